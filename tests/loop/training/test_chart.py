"""Curves in the terminal: what is drawn lies where its values say."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.loop.training.chart import chart, short

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def field(text: str, width: int, height: int) -> list[str]:
    """The rows between the axes."""
    return [re.split("[┤│]", line, maxsplit=1)[1].ljust(width) for line in text.splitlines()[:height]]


def test_a_straight_line_goes_from_corner_to_corner() -> None:
    rows = field(chart({"loss": [(x, 10.0 - x) for x in range(11)]}, width=20, height=6), 20, 6)
    first = [next(i for i, sign in enumerate(row) if sign != " ") for row in rows if row.strip()]
    assert first == sorted(first)
    assert (first[0], len(rows[-1].rstrip()) in (19, 20)) == (0, True)


def test_axes_name_ticks_ends_and_what_is_counted() -> None:
    text = chart({"loss": [(1, 2.0), (12_500, 3.0)]}, x_label="step")
    assert "3 ┤" in text and "2 ┤" in text
    assert re.search(r"1 +step +12\.5k", text)


def test_several_curves_are_told_apart_with_and_without_colour() -> None:
    curves = {"low": [(0, 0.0), (9, 0.0)], "high": [(0, 1.0), (9, 1.0)]}
    plain = chart(curves, width=10, height=8)
    rows = field(plain, 10, 8)
    high, low = (next(i for i, row in enumerate(rows) if sign * 10 in row) for sign in "BA")
    assert high < low
    assert plain.splitlines()[-1].strip() == "A low   B high"
    coloured = chart(curves, width=10, height=8, colour=True)
    assert "\x1b[36m" in coloured and "\x1b[33m" in coloured
    assert "\x1b" not in plain


def test_the_fall_of_the_first_steps_does_not_flatten_the_rest() -> None:
    text = chart({"loss": [(i, 100.0 if i < 3 else 2.0 + 1 / i) for i in range(1, 200)]})
    assert "100" not in text


def test_values_that_are_none_leave_gaps() -> None:
    assert chart({"loss": [(1, math.nan), (2, math.inf)]}) == "(no finite values)"
    assert chart({}) == "(no finite values)"


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.tuples(st.integers(0, 10**6), ANY), max_size=30)))
def test_any_values_give_rows_of_one_width(curves: dict[str, list[tuple[int, float]]]) -> None:
    text = chart({name: sorted(points, key=lambda p: p[0]) for name, points in curves.items()}, width=30, height=5)
    if text != "(no finite values)":
        lines = text.splitlines()[:5]
        assert len({len(line) for line in lines}) == 1
        assert any(line.rstrip()[-1] not in "┤│" for line in lines)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (950, "950"), (9_999, "9999"), (12_500, "12.5k"), (3.1e6, "3.1M"), (2e9, "2G")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text

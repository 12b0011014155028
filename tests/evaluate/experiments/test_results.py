"""Results: what they refuse, and that they survive being written down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results, counted_errors, split_values


def results(*items: ItemResult, **more: Any) -> Results:
    return Results("a", None, "d", items, **more)


def test_nothing_and_the_same_twice_are_refused() -> None:
    with pytest.raises(InputError, match="results of a hold no items"):
        results()
    with pytest.raises(InputError, match=r"item 'x' \(repeat 1\) twice\."):
        results(ItemResult("x"), ItemResult("x", repeat=1), ItemResult("x", repeat=1))
    with pytest.raises(InputError, match="item 'x' belongs to the clusters 'k' and 'l'"):
        results(ItemResult("x", "k"), ItemResult("x", "l", 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None])
def test_a_value_is_a_finite_number(value: Any) -> None:
    with pytest.raises(InputError, match="metric 'f1' of item 'x'"):
        ItemResult("x", values={"f1": value})


def test_a_metric_has_a_value_or_an_error() -> None:
    with pytest.raises(InputError, match="both a value and an error"):
        ItemResult("x", values={"f1": 1.0}, errors={"f1": "down"})
    with pytest.raises(InputError, match="counted from 0"):
        ItemResult("x", repeat=-1)


def test_what_metrics_gave_is_sorted_into_values_and_errors() -> None:
    values, errors = split_values({"a": 1, "b": True, "c": math.nan, "d": "bad", "e": None, "f": -math.inf, "g": "0.5"})
    assert values == {"a": 1.0, "b": 1.0, "g": 0.5}
    assert errors == {"c": "gave nan", "d": "gave 'bad', which is no number", "f": "gave -inf"}
    assert split_values({"huge": 10**400}) == ({}, {"huge": "gave a number that is too large"})


def test_errors_are_told_apart_from_what_does_not_apply() -> None:
    some = [
        ItemResult("a", values={"f1": 1.0}),
        ItemResult("b"),
        ItemResult("c", errors={"f1": "raised"}),
        ItemResult("d", errors={OUTPUT: "down"}),
        ItemResult("e", errors={OUTPUT: "down"}),
    ]
    assert counted_errors(some, "f1") == {"down": 2, "raised": 1}
    assert some[1].problem("f1") is None and some[3].failed == "down"
    assert results(*some).metrics == ["f1"]


_TEXT = st.text(max_size=5)


@given(
    st.lists(
        st.builds(
            ItemResult,
            item=_TEXT,
            values=st.dictionaries(st.sampled_from("ab"), st.floats(allow_nan=False, allow_infinity=False)),
            errors=st.dictionaries(st.sampled_from("cd"), _TEXT),
            output=st.one_of(st.none(), _TEXT, st.dictionaries(_TEXT, st.integers())),
            slices=st.dictionaries(_TEXT, _TEXT, max_size=2),
            input=st.one_of(st.none(), _TEXT),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda one: one.item,
    )
)
def test_results_survive_json(items: list[ItemResult]) -> None:
    made = results(*items, scorers={"a": "0" * 64}, split="test", made_with={"seed": 1})
    assert Results.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    results(ItemResult("x")).write(tmp_path / "r.json")
    row = json.loads((tmp_path / "r.json").read_text())
    assert row["items"] == [{"item": "x"}]
    for wrong in ({}, [], {**row, "format": "other/1"}, {**row, "items": [{"itme": "x"}]}, {**row, "extra": 1}):
        with pytest.raises(InputError, match=r"r\.json"):
            Results.from_json(wrong, "r.json")  # type: ignore[arg-type]

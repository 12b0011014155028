"""Labels of rows: every row keeps its own, whatever type they are of, and nothing is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.labels import labels_of
from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError

NAMES = st.text(min_size=1, max_size=6).filter(lambda name: bool(name.strip()))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


def rows_of(values: list[Any], column: str = "label") -> list[Row]:
    return [Row(f"row {number}", {column: value}) for number, value in enumerate(values, start=1)]


def doubled(values: list[Any]) -> list[Any]:
    """Two of each, as are demanded."""
    return [*values, *values]


@given(st.lists(NAMES, min_size=2, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_every_row_has_the_label_that_it_had(names: list[str], random: Any) -> None:
    values = doubled(names)
    random.shuffle(values)
    found = labels_of(rows_of(values))
    assert [found.names[number] for (number,) in found.chosen] == values
    assert list(found.names) == sorted(found.names, key=found.names.index) and set(found.names) == set(names)
    assert sum(found.counts()) == len(values) and not found.several
    assert found.names == labels_of(rows_of(values[::-1])).names  # the order of the rows decides nothing
    assert [int(one[0]) for one in found.targets(range(len(values)))] == [number for (number,) in found.chosen]


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True))
def test_whole_numbers_are_the_same_however_they_are_written(numbers: list[int]) -> None:
    as_int, as_float, as_text = (
        labels_of(rows_of(doubled(values))) for values in (numbers, list(map(float, numbers)), list(map(str, numbers)))
    )
    assert as_int == as_float == as_text and list(as_int.names) == [str(one) for one in sorted(numbers)]


@given(st.lists(st.lists(NAMES, max_size=4), min_size=1, max_size=8))
def test_a_text_may_have_any_number_of_labels(values: list[list[str]]) -> None:
    if not any(values):
        with pytest.raises(InputError, match="No row has any label"):
            labels_of(rows_of(values, "labels"))
        return
    found = labels_of(rows_of(values, "labels"))
    targets = np.concatenate(found.targets(range(len(values))))
    assert found.several and targets.dtype == np.float32 and targets.shape == (len(values), len(found.names))
    for own, row in zip(values, targets, strict=True):
        assert {found.names[number] for number in np.flatnonzero(row)} == set(own)
    assert targets.sum(0).astype(int).tolist() == found.counts()


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.data())
def test_given_names_keep_their_order_and_are_numbered_by_it(names: list[str], data: Any) -> None:
    places = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=2 * len(names), max_size=20))
    if len(set(places)) < 2:
        return
    found = labels_of(rows_of(places), names)
    assert found.names == tuple(names) and [number for (number,) in found.chosen] == places
    assert labels_of(rows_of([names[place] for place in places]), names) == found
    with pytest.raises(InputError, match=f"row {len(places) + 1}: the label {len(names)} is out of range"):
        labels_of(rows_of([*places, len(names)]), names)


@given(st.lists(ANYTHING, min_size=1, max_size=6))
def test_whatever_stands_there_is_a_label_or_an_error_that_names_a_row(values: list[Any]) -> None:
    rows = [row for row in rows_of(values) if row.values["label"] is not None]  # as files are read
    try:
        found = labels_of(rows)
    except InputError as error:
        told = error.message
        assert "row " in told or any(word in told for word in ("No row has any", "All ", "too many to learn"))
    else:
        assert len(found.chosen) == len(rows) and len(set(found.names)) == len(found.names)


@pytest.mark.parametrize(
    ("values", "given_names", "told"),
    [
        ([], (), "No row has any label"),
        (["a"] * 5, (), "All 5 rows have the label 'a'"),
        ([str(number) for number in range(9)], (), "9 different labels in 9 rows, too many"),
        (["a", "b", 3, "a"], (), "row 1: the label is a text, but that of row 3 is a number"),
        (["a", ["b"], "a"], (), "row 1: the label is 'a', but other rows have a list"),
        (["a", "b", "c"], ("a", "b"), "row 3: the label is 'c', which objective.labels does not name"),
        (["a", "b", -1], ("a", "b"), "row 3: the label is -1, which stands for rows without one"),
        (["a", "b", float("inf")], ("a", "b"), "row 3: the label is Infinity, but must be a name"),
        (["a", "b", " "], (), 'row 3: the label is " ", but must be a name'),
        (["a", "b", "a"], ("a", "a"), "names 'a' twice"),
    ],
)
def test_what_is_no_label_is_named(values: list[Any], given_names: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        labels_of(rows_of(values), given_names)

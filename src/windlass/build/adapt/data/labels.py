"""Labels of rows: names, numbers of names, or several of them, told apart and checked before anything is trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError

GIVEN = "objective.labels"
_EACH = 2
"""Examples that a class has at least, on average: with fewer, the column holds something else."""


@dataclass(frozen=True, slots=True)
class Labels:
    names: tuple[str, ...]
    several: bool
    """A text may have any number of them."""
    chosen: tuple[tuple[int, ...], ...]
    """Of each row."""

    def counts(self) -> list[int]:
        """Rows with each label."""
        found = Counter(number for row in self.chosen for number in row)
        return [found[number] for number in range(len(self.names))]

    def targets(self, numbers: Sequence[int]) -> list[NDArray[Any]]:
        """Of these rows: the number of the label (1,) int64, or 1.0 for each one that it has (1, labels) float32."""
        if not self.several:
            return [np.array(self.chosen[number], np.int64) for number in numbers]
        found = np.zeros((len(numbers), 1, len(self.names)), np.float32)
        for place, number in enumerate(numbers):
            found[place, 0, list(self.chosen[number])] = 1.0
        return list(found)


def labels_of(rows: Sequence[Row], given: Sequence[str] = (), *, by: str = GIVEN) -> Labels:
    """The labels in the columns `label`, or `labels`, which hold a name, a number, or a list of such.

    `given`: their names in order; numbers then count from the first one; `by`: who gave them, for errors. Raises
    `InputError` naming the row whose label is missing, unknown, out of range or of another type than the others, and
    when there is nothing to tell apart.
    """
    found = [_values(row) for row in rows]
    several = any(isinstance(value, list) for value in found)
    for row, value in zip(rows, found, strict=True):
        if several and not isinstance(value, list):
            raise InputError(
                f"{row.where}: the label is {value!r}, but other rows have a list of labels.",
                "Give every row a list, which may be empty, or none.",
            )
    lists: list[list[Any]] = [value if isinstance(value, list) else [value] for value in found]
    said = [(row, value) for row, values in zip(rows, lists, strict=True) for value in values]
    names = names_of(said, given, by=by)
    numbers = {name: number for number, name in enumerate(names)}
    chosen = [
        tuple(dict.fromkeys(number_of(row, value, numbers, given) for value in values))
        for row, values in zip(rows, lists, strict=True)
    ]
    labels = Labels(tuple(names), several, tuple(chosen))
    _check(labels, len(rows))
    return labels


def names_of(values: Sequence[tuple[Row, Any]], given: Sequence[str], *, by: str = GIVEN) -> tuple[str, ...]:
    """Names in order: those given, else numbers by size or names by the alphabet. Raises as `labels_of`."""
    if len(set(given)) < len(given):
        raise InputError(f"{by} names '{Counter(given).most_common(1)[0][0]}' twice.", "Name each once.")
    kinds = {isinstance(value, str): row for row, value in reversed(values)}  # the first row of either
    if not given and len(kinds) == 2:
        raise InputError(
            f"{kinds[True].where}: the label is a text, but that of {kinds[False].where} is a number.",
            "Give all of them as texts, or all as numbers.",
        )
    there = {_name(row, value, given, by) for row, value in values}
    if given:
        return tuple(given)
    plain = all(name.isdecimal() for name in there)
    return tuple(sorted(there, key=lambda name: (int(name) if plain else 0, name)))


def number_of(row: Row, value: Any, numbers: Mapping[str, int], given: Sequence[str]) -> int:
    """Of the label's name, however it is said."""
    return numbers[_name(row, value, given)]


def _values(row: Row) -> Any:
    for column in ("label", "labels"):
        if column in row.values:
            return row.values[column]
    raise InputError(
        f"{row.where}: there is no label; the columns are {', '.join(map(str, row.values)) or 'none'}.",
        "Give a column `label`, or say which one is meant, as in data.columns.label=topic.",
    )


def _name(row: Row, value: Any, given: Sequence[str], by: str = GIVEN) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables with gaps hold whole numbers so
    if isinstance(value, bool):
        value = "true" if value else "false"
    if given and isinstance(value, str) and value not in given and value.isdecimal():
        value = int(value)  # a table of text has no other numbers
    if isinstance(value, int):
        if value < 0:
            raise InputError(
                f"{row.where}: the label is {value}, which stands for rows without one.", "Leave such rows out."
            )
        if given and value >= len(given):
            raise InputError(
                f"{row.where}: the label {value} is out of range: {by} has {len(given)} names, which are numbered 0 to "
                f"{len(given) - 1}."
            )
        return given[value] if given else str(value)
    if isinstance(value, str) and value.strip():
        if given and value not in given:
            raise InputError(
                f"{row.where}: the label is '{value[:80]}', which {by} does not name.",
                f"Known are: {', '.join(given[:20])}.",
            )
        return value
    raise InputError(
        f"{row.where}: the label is {json.dumps(value, default=str)[:80]}, but must be a name or a whole number.",
        "For numbers with fractions there is the objective 'regress'.",
    )


def _check(labels: Labels, rows: int) -> None:
    there = [name for name, count in zip(labels.names, labels.counts(), strict=True) if count]
    if not there:
        raise InputError("No row has any label.", "Look at the column of the labels.")
    if not labels.several and len(there) < 2:
        raise InputError(f"All {rows:,} rows have the label '{there[0]}', so there is nothing to tell apart.")
    if not labels.several and len(there) * _EACH > rows:
        raise InputError(
            f"There are {len(there):,} different labels in {rows:,} rows, too many to learn from.",
            "Is it the right column? Else give at least two examples of each.",
        )

"""What is judged, and what people say of it, from files of rows: JSON lines, a JSON array, CSV or Parquet, also packed.

A row is an item: the fields that the judge reads, flat or under `inputs`, and perhaps an `id`, the `trace` it comes
from, a `cluster` of items that are alike. With `label` (or `labels`, by criterion) it is also what somebody says of the
item: a level's name or value; of a pair 1 or 2, and 0 for a tie. Who says it is the `author`. Several rows may be of
one item. `chosen` says why an item is there, where it was not drawn at random: `disagreements`, for example.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.readers.report import ReadReport
from windlass.core.readers.rows import read_rows
from windlass.evaluate.judges.judge import FIRST, SECOND, TIE, Criterion, Judge

_LARGEST = 64 << 20
"""Bytes of a row."""
_COLUMN = "labels."
_OF_A_PAIR = {1: FIRST, 2: SECOND, 0: TIE}
ANYBODY = "people"
"""The author of labels that name none."""


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    inputs: Mapping[str, str]
    trace: str | None = None
    cluster: str | None = None
    """Items of one cluster are alike; statistics count clusters."""
    chosen: str = ""
    """Why it is there, where it was not drawn at random: labels of such items say nothing of the others."""

    @property
    def content(self) -> str:
        """Digest of what is judged: two outputs to one question have one id, and what people say of one is not said of
        the other."""
        return sha256_json(dict(self.inputs))[:16]


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says of an item by one criterion."""

    item: str
    criterion: str
    value: float
    author: str = ANYBODY


def read_items(path: Path, judge: Judge) -> list[Item]:
    """The items of a file. Raises `InputError` naming file and row: for a field that is missing, or two items of one
    id."""
    items: dict[str, Item] = {}
    for number, row in _rows(path):
        item = item_of(row, judge, f"{path}, row {number}")
        if item.id in items:
            raise InputError(f"{path}, row {number}: the item '{item.id}' stands there twice.", "Leave it in once.")
        items[item.id] = item
    return list(items.values())


def read_labelled(path: Path, judge: Judge) -> tuple[list[Item], list[Label]]:
    """Items and what people say of them. Raises `InputError` naming file and row: also for two labels of one author
    for one item, and for one id with different inputs."""
    items: dict[str, Item] = {}
    labels: dict[tuple[str, str, str], Label] = {}
    for number, row in _rows(path):
        where = f"{path}, row {number}"
        item = item_of(row, judge, where)
        if items.setdefault(item.id, item).inputs != item.inputs:
            raise InputError(f"{where}: the id '{item.id}' stands for another item before.", "Give each item its own.")
        for label in labels_of(row, judge, item.id, where):
            if labels.setdefault((label.item, label.criterion, label.author), label) is not label:
                raise InputError(
                    f"{where}: '{label.author}' has said of '{item.id}' before.", "One label an item and author."
                )
    return list(items.values()), list(labels.values())


def item_of(row: Mapping[str, Any], judge: Judge, where: str) -> Item:
    given = row["inputs"] if isinstance(row.get("inputs"), Mapping) else row
    for name in judge.fields:
        if _missing(given.get(name)):
            raise InputError(
                f"{where}: no '{name}', which '{judge.name}' reads.", f"It reads {', '.join(judge.fields)}."
            )
    inputs = {name: _text(given[name]) for name in judge.fields}
    said = row.get("id")
    return Item(
        sha256_json(inputs)[:16] if said in (None, "") else str(said),
        inputs,
        None if row.get("trace") in (None, "") else str(row["trace"]),
        None if row.get("cluster") in (None, "") else str(row["cluster"]),
        str(row.get("chosen") or ""),
    )


def labels_of(row: Mapping[str, Any], judge: Judge, item: str, where: str) -> list[Label]:
    """What a row says of its item. Raises `InputError` where it says nothing, or what no level is."""
    given = row.get("labels")
    if given is None:  # a spreadsheet has a column for each
        given = {name.removeprefix(_COLUMN): said for name, said in row.items() if name.startswith(_COLUMN)}
    if not given and len(judge.criteria) == 1:
        given = {judge.criteria[0].name: row.get("label")}
    if not isinstance(given, Mapping) or not given or all(_missing(said) for said in given.values()):
        levels = ", ".join(level.name for level in judge.criteria[0].levels)
        alone = len(judge.criteria) == 1
        hint = f"Give `label`: {levels}." if alone else f"Give `labels` by criterion: {_names(judge)}."
        raise InputError(f"{where}: no label.", hint)
    author = row.get("author")
    found = []
    for name, said in given.items():
        if name not in [criterion.name for criterion in judge.criteria]:
            raise InputError(f"{where}: '{name}' is no criterion of '{judge.name}'.", f"It has {_names(judge)}.")
        value = _value(said, judge, judge.criterion(name), where)
        found.append(Label(item, name, value, ANYBODY if author in (None, "") else str(author)))
    return found


def _value(said: Any, judge: Judge, criterion: Criterion, where: str) -> float:
    levels = {level.name: level.value for level in criterion.levels}
    if judge.pairwise:
        # What a spreadsheet or a form gives is text.
        said = _OF_A_PAIR.get(int(said) if isinstance(said, str) and said.isascii() and said.isdigit() else said, said)
    if isinstance(said, str) and said in levels:
        return levels[said]
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = None
    if number is None or number not in levels.values():
        shown = ", ".join(f"{name} ({value:g})" for name, value in levels.items())
        raise InputError(f"{where}: {said!r} is no level of '{criterion.name}'.", f"Known: {shown}.")
    return number


def _missing(value: Any) -> bool:
    """Also NaN, which is what tables have for nothing."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _names(judge: Judge) -> str:
    return ", ".join(criterion.name for criterion in judge.criteria)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rows(path: Path) -> Sequence[tuple[int, Mapping[str, Any]]]:
    report = ReadReport()
    rows = list(read_rows(path, str(path), report, max_bytes=_LARGEST))
    if report.skipped:
        first = report.skipped[0]
        raise InputError(f"{first}.", "Mend it, or leave it out.")
    if not rows:
        raise InputError(f"{path} holds no rows.", "Each line is one JSON object, or a row under a header.")
    return rows

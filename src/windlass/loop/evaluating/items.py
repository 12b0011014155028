"""Items of a task: inputs and the right answer as plain JSON, what belongs together, and by what they are sliced."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError
from windlass.core.files import sha256_json

_FIELDS = {"inputs", "expected", "cluster", "slices"}
_FORM = '{"inputs": {...}, "expected": ..., "cluster": "...", "slices": {"language": "de"}}'


@dataclass(frozen=True, slots=True)
class Item:
    """Inputs by name, and the right answer, as plain JSON."""

    inputs: Mapping[str, Any]
    answer: Any
    cluster: str = ""
    """What belongs together, such as one customer's mails: never on both sides of a split. Empty: nothing else."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Kind of slice -> the one that the item belongs to."""

    @property
    def key(self) -> str:
        return sha256_json(self.inputs)

    @property
    def group(self) -> str:
        return self.cluster or self.key


def read_items(path: Path) -> list[Item]:
    """One JSON object on each line: inputs by name, what is expected, and if wanted `cluster` and `slices`.

    Raises `InputError` naming the line, also for an item whose inputs stood there before, and for a file without items.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read: {said}.") from error
    found = {number: _item(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()}
    if not found:
        raise InputError(f"{path} holds no items.", f"Give lines of {_FORM}.")
    first: dict[str, int] = {}
    for number, item in found.items():
        if first.setdefault(item.key, number) != number:
            raise InputError(
                f"{path}, line {number}: the inputs are those of line {first[item.key]}.", "Leave each item in once."
            )
    return list(found.values())


def _item(line: str, where: str) -> Item:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    if not isinstance(said, dict) or not isinstance(said.get("inputs"), dict):
        raise InputError(f"{where} has no object `inputs`.", f"Give lines of {_FORM}.")
    if "expected" not in said:
        raise InputError(f"{where} has no `expected`.", f"Give lines of {_FORM}.")
    if unknown := sorted(said.keys() - _FIELDS):
        raise InputError(f"{where}: unknown field '{unknown[0]}'.", f"Give lines of {_FORM}.")
    slices = said.get("slices", {})
    if not isinstance(slices, dict) or not all(isinstance(one, str | int | bool) for one in slices.values()):
        raise InputError(f"{where}: the slices are not names by kind.", 'Write {"language": "de"}.')
    named = {by: str(name) for by, name in slices.items()}
    return Item(said["inputs"], said["expected"], str(said.get("cluster", "")), named)


def different(items: Sequence[Item]) -> None:
    """Raises `InputError` for no items, and for items that are there twice."""
    if not items:
        raise InputError("There are no items.", f"Give lines of {_FORM}.")
    twice = [key for key, n in Counter(item.key for item in items).items() if n > 1]
    if twice:
        raise InputError(f"{len(twice)} items have the same inputs as others.", "Leave each in once.")


def parted(items: Sequence[Item], share: float, salt: str) -> tuple[list[Item], list[Item]]:
    """About `share` of the items and the others, by the hash of their clusters: items that are added later move none.

    Raises `InputError` for items that are there twice, and when a side is empty.
    """
    different(items)
    taken = [_place(item.group, salt) < share for item in items]
    sides = (
        [item for item, is_taken in zip(items, taken) if is_taken],
        [item for item, is_taken in zip(items, taken) if not is_taken],
    )
    if not all(sides):
        raise InputError(f"{len(items)} items are too few to divide.", "Give more items, or more clusters of them.")
    return sides


def _place(group: str, salt: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group}".encode()).digest()[:6], "big") / 2**48


def lines(items: Sequence[Item]) -> str:
    """JSON Lines, as `read_items` takes them."""
    rows = (
        {
            "inputs": item.inputs,
            "expected": item.answer,
            **({"cluster": item.cluster} if item.cluster else {}),
            **({"slices": item.slices} if item.slices else {}),
        }
        for item in items
    )
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)

"""A queue: items that people are to judge, by the rubric that a model may be given as well.

Of a pair the sides are blind: which output stands left is drawn from the item and the queue's seed, the same for
everybody, and which system made it is told when all is labelled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from windlass.core.config import strict
from windlass.core.errors import InputError
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import FIRST, SECOND, SIDES, TIE, Judge


@dataclass(frozen=True)
class Queue:
    """Raises `InputError` for one without items, or with two of one id."""

    rubric: Judge
    """Its name is the queue's, and so that of the scores; its instructions are the guidelines that people read."""
    items: Sequence[Item]
    seed: int = 0
    per_item: int | None = None
    """So many people label each item; None: everybody labels all."""
    systems: tuple[str, str] | None = None
    """Of a pair: who made the first output and who the second. Not shown before the end."""
    source: str = ""
    """Where the items come from, in words."""

    def __post_init__(self) -> None:
        if not self.items:
            raise InputError(f"The queue '{self.rubric.name}' has no items.", "Choose others: nothing fits.")
        if len(self.by_id) < len(self.items):
            ids = [item.id for item in self.items]
            twice = next(one for one in ids if ids.count(one) > 1)
            raise InputError(f"The item '{twice}' stands in the queue twice.", "Leave it in once.")
        if self.per_item is not None and self.per_item < 1:
            raise InputError(f"{self.per_item} people an item: at least 1 must look at it.")

    @property
    def name(self) -> str:
        return self.rubric.name

    @cached_property
    def by_id(self) -> Mapping[str, Item]:
        return {item.id: item for item in self.items}

    def item(self, id: str) -> Item:
        if id not in self.by_id:
            raise InputError(f"The queue '{self.name}' has no item '{id[:80]}'.", "Was it made anew?")
        return self.by_id[id]

    def subject(self, item: Item) -> str:
        """What scores of an item stand at: the trace it comes from, or the item itself."""
        return item.trace or f"{self.name}/{item.id}"

    def order(self, author: str) -> list[Item]:
        """The items as this person gets them. Each begins elsewhere, so that two who share the work seldom meet."""
        return sorted(self.items, key=lambda item: _drawn(self.seed, author, item.id))

    # pairs ----------------------------------------------------------------------------------------------------------

    def turned(self, item: Item) -> bool:
        """Whether the second output of a pair stands left."""
        return self.rubric.pairwise and bool(_drawn(self.seed, "side", item.id) & 1)

    def outputs(self, item: Item) -> list[tuple[str, str]]:
        """What is judged, as it is shown: (heading, text), from left to right."""
        if not self.rubric.pairwise:
            return [(self.rubric.judged, item.inputs[self.rubric.judged])]
        sides = reversed(SIDES) if self.turned(item) else SIDES
        texts = [item.inputs[f"{self.rubric.judged}{side}"] for side in sides]
        return list(zip(("A", "B"), texts))

    def choices(self, item: Item, criterion: str) -> list[tuple[str, str, str]]:
        """What a person can say, in the order shown: (level, what it is called, when it is right)."""
        if not self.rubric.pairwise:
            levels = sorted(self.rubric.criterion(criterion).levels, key=lambda level: level.value)
            return [(level.name, level.name, level.what) for level in levels]
        left, right = (SECOND, FIRST) if self.turned(item) else (FIRST, SECOND)
        return [(left, "A is better", ""), (right, "B is better", ""), (TIE, "neither is", "")]

    # storage --------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """All but the items."""
        return {
            "rubric": self.rubric.to_json(),
            "seed": self.seed,
            "per_item": self.per_item,
            "systems": None if self.systems is None else list(self.systems),
            "source": self.source,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], items: Sequence[Mapping[str, Any]], where: str) -> Queue:
        systems = row["systems"]
        return cls(
            strict(Judge, row["rubric"], where=where),
            [Item(**item) for item in items],
            row["seed"],
            row["per_item"],
            None if systems is None else (systems[0], systems[1]),
            row["source"],
        )


def plain(item: Item) -> dict[str, Any]:
    """An item as a line of a file."""
    return asdict(item)


def _drawn(seed: int, salt: str, item: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{salt}\0{item}".encode()).digest()[:8], "big")

"""What people said, from the scores that hold it: the newest word of each person on each item counts.

A label is a score with a value. A skipped item, and a label that was withdrawn, are scores without one, whose error
says so. Nothing is ever changed or removed, so two who label at once cannot take each other's labels away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from windlass.core.records import ScoreRecord
from windlass.evaluate.judges.items import Item, Label
from windlass.evaluate.review.queue import Queue

SKIPPED, WITHDRAWN = "skipped", "withdrawn"
QUEUE, CRITERION, ITEM = "queue", "criterion", "item"
"""Metadata of a score of a queue: digest of the queue, and what it is of."""

State = Literal["labelled", "skipped", "open"]


@dataclass(slots=True)
class Standing:
    """One person's word on one item."""

    values: dict[str, float] = field(default_factory=dict)
    """By criterion."""
    comment: str = ""
    at: float = 0.0
    skipped: bool = False


class Labels:
    """The labels of one queue."""

    def __init__(self, queue: Queue, digest: str, scores: Iterable[ScoreRecord]) -> None:
        """scores: oldest first; those of other queues of that name are left out."""
        self.queue = queue
        self._said: dict[tuple[str, str], Standing] = {}
        self._history: dict[str, dict[str, None]] = {}
        """Author -> items in the order in which they were last spoken of."""
        for score in scores:
            item, criterion = str(score.metadata.get(ITEM)), str(score.metadata.get(CRITERION))
            if score.metadata.get(QUEUE) != digest or score.source != "human" or item not in queue.by_id:
                continue
            said = self._said.setdefault((item, score.author), Standing())
            said.skipped = score.error == SKIPPED
            if score.value is None:
                said.values.pop(criterion, None)
            else:
                said.values[criterion] = score.value
            said.comment, said.at = score.comment, score.at
            history = self._history.setdefault(score.author, {})
            history.pop(item, None)
            if score.error != WITHDRAWN:
                history[item] = None
        self.authors = sorted({author for (_, author), said in self._said.items() if said.values or said.skipped})
        """Who labelled or skipped something."""
        self._people: dict[str, list[str]] = {}
        for item, author in sorted(self._said):
            if self.state(queue.by_id[item], author) == "labelled":
                self._people.setdefault(item, []).append(author)

    def of(self, item: Item, author: str) -> Standing:
        return self._said.get((item.id, author), Standing())

    def state(self, item: Item, author: str) -> State:
        """An item is labelled when each criterion is: a form that was stored in part is still open."""
        said = self.of(item, author)
        if len(said.values) == len(self.queue.rubric.criteria):
            return "labelled"
        return "skipped" if said.skipped else "open"

    def people(self, item: Item) -> list[str]:
        """Who labelled an item."""
        return self._people.get(item.id, [])

    def progress(self, author: str) -> Counter[State]:
        return Counter(self.state(item, author) for item in self.queue.items)

    def next(self, author: str) -> Item | None:
        """What this person looks at next: what nobody has enough of; then what they skipped; None when all is done."""
        skipped = None
        for item in self.queue.order(author):
            state = self.state(item, author)
            if state == "open" and not self._enough(item, author):
                return item
            if state == "skipped" and skipped is None and not self._enough(item, author):
                skipped = item
        return skipped

    def left(self, author: str) -> int:
        """How many items this person has still to label."""
        return sum(
            self.state(item, author) != "labelled" and not self._enough(item, author) for item in self.queue.items
        )

    def last(self, author: str) -> Item | None:
        """What this person labelled or skipped last: what an undo is of."""
        history = self._history.get(author)
        return self.queue.by_id[next(reversed(history))] if history else None

    @property
    def finished(self) -> bool:
        """Whether everybody who began is done, so that what was blind may be told."""
        return bool(self.authors) and all(self.left(author) == 0 for author in self.authors)

    def labels(self) -> list[Label]:
        return [
            Label(item.id, criterion, value, author)
            for item in self.queue.items
            for author in self.people(item)
            for criterion, value in self.of(item, author).values.items()
        ]

    def _enough(self, item: Item, author: str) -> bool:
        most = self.queue.per_item
        return most is not None and len([one for one in self.people(item) if one != author]) >= most


def votes(labels: Labels, criterion: str) -> Mapping[str, Mapping[str, float]]:
    """Item -> author -> value, of the items that somebody labelled."""
    found: dict[str, dict[str, float]] = {}
    for label in labels.labels():
        if label.criterion == criterion:
            found.setdefault(label.item, {})[label.author] = label.value
    return found

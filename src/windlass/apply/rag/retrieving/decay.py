"""Newer documents before older ones that say the same: a hit's score halves, in part, with each half-life of its age.

score x (1 - share + share x 0.5^(age / half-life)): with a share of 0 age does not matter, with 1 nothing else does in
the end. A date of the future has no age. A document without a date counts as one half-life old, and how many there were
stands on the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from windlass.apply.rag.retrieving.step import Asked, Step
from windlass.core.errors import InputError
from windlass.core.protocols import Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

DatesOf = Callable[[Sequence[Hit]], Sequence[Any]]
"""What each hit's document says of when it was written, as it stands in its metadata; None where it says nothing."""
_DAY = 86_400.0


class Described(Protocol):
    """An index that tells the metadata of its documents."""

    def metadata_of(self, documents: Sequence[str]) -> Sequence[Mapping[str, Any]]: ...


class Decayed(Step):
    name = "decay"

    def __init__(
        self,
        index: Index,
        dates_of: DatesOf,
        half_life: float,
        *,
        share: float = 0.5,
        depth: int = 30,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        recorder: Recorder | None = None,
    ) -> None:
        """`half_life`: days. `depth`: hits that are put in a new order (at least k)."""
        super().__init__(index, recorder)
        if not half_life > 0 or not 0 <= share <= 1 or depth < 1:
            raise InputError(
                f"half_life is {half_life}, share {share} and depth {depth}.",
                "Use a half-life above 0 days, a share from 0 to 1 and a depth of at least 1.",
            )
        self.dates_of, self.half_life, self.share, self.depth, self.now = dates_of, half_life, share, depth, now

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        hits = asked.deep(self.depth).on(self.index)
        span["windlass.candidates"] = len(hits)
        dates = self._helped(span, lambda: [when(value) for value in self.dates_of(hits)])
        if dates is None:
            return hits[: asked.k]
        span["windlass.undated"] = dates.count(None)
        now, least = self.now(), min((hit.score for hit in hits), default=0.0)
        raised = -min(least, 0.0)  # of scores below 0, less would be more
        older = [
            replace(hit, score=(hit.score + raised) * self.kept(None if at is None else (now - at).total_seconds()))
            for hit, at in zip(hits, dates, strict=True)
        ]
        return sorted(older, key=lambda hit: -hit.score)[: asked.k]

    def kept(self, age: float | None) -> float:
        """What is left of a score after `age` seconds, or where no age is known."""
        halved = 0.5 if age is None else 0.5 ** (max(age, 0.0) / _DAY / self.half_life)
        return 1 - self.share + self.share * halved


def dated(index: Described, key: str) -> DatesOf:
    """What stands under `key` in the metadata of hits' documents."""

    def dates_of(hits: Sequence[Hit]) -> Sequence[Any]:
        return [facts.get(key) for facts in index.metadata_of([hit.citation.document for hit in hits])]

    return dates_of


def when(value: Any) -> datetime | None:
    """A date as metadata holds it: ISO 8601, a year, as e-mails write it, or seconds since 1970. None for no date."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return (
                datetime(int(value), 1, 1, tzinfo=UTC) if 1000 <= value <= 9999 else datetime.fromtimestamp(value, UTC)
            )
        except (ValueError, OverflowError, OSError):
            return None
    if not isinstance(value, str) or not (text := value.strip()):
        return None
    if text.isdecimal() and len(text) == 4:
        return when(int(text))
    if len(text) == 7 and text[4:5] == "-":
        text = f"{text}-01"
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return when(read(text))
        except ValueError:
            continue
    return None

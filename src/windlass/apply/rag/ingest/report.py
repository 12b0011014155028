"""What an ingest did: every file, row and passage that went in or did not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from windlass.core.readers.report import Note, ReadReport

NAMED = 1000
"""Repetitions that are named; all are counted."""


class FileLine(NamedTuple):
    """What became of one file. Documents that it has no more are not here: they are among those removed."""

    file: str
    state: str
    """read, as before (not opened), or kept (it could not be read now)."""
    added: int
    changed: int
    unchanged: int


@dataclass(slots=True)
class IngestReport:
    """Documents: `added + changed + unchanged` are those that were found, `removed` those that are no longer there."""

    index: str = ""
    roots: list[str] = field(default_factory=list)
    files: int = 0
    """Places that were looked at: files, and addresses."""
    files_read: int = 0
    files_as_before: int = 0
    """Not opened: they are as they were when they were last read, and so is what the index holds of them."""
    files_kept: int = 0
    """That could not be read now, or are being written: what the index holds of them stays."""
    bytes: int = 0
    """Of all files, those not opened included."""
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    docstrings: int = 0
    """Left out: they stand in the source that is indexed."""
    repeated_ids: int = 0
    without_passages: int = 0
    """Documents, of those added or changed, in which there is no word."""
    passages: int = 0
    """Of the documents added or changed."""
    passages_without_a_word: int = 0
    characters: int = 0
    embedded: int = 0
    """Texts that the embedder had to read: passages that were not known by their text, and whatever else the way of
    cutting asks it for."""
    tokens: int = 0
    longer_than_read: int = 0
    """Passages that are longer than the embedder reads, and were cut for it."""
    public: int = 0
    """Documents without an access label."""
    labels: Counter[str] = field(default_factory=Counter)
    """Access label -> documents."""
    unmatched: list[str] = field(default_factory=list)
    """Patterns of access that no document fits: mistyped, perhaps."""
    repeated: list[tuple[str, str]] = field(default_factory=list)
    """(document, where the very same text stands too), the first `NAMED`."""
    repeated_count: int = 0
    reading: ReadReport = field(default_factory=ReadReport)
    """What was skipped and mended, pages without text among it."""
    each: list[FileLine] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Roots in which there is nothing to read any more; what the index holds of them stays."""
    holds_documents: int = 0
    holds_passages: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("read", "embed", "put"), 0.0))
    """Seconds that reading (and cutting), embedding and putting took; they run side by side."""
    stopped: bool = False
    """By Ctrl-C: what was done is kept, and nothing was removed."""
    dry: bool = False

    @property
    def documents(self) -> int:
        return self.added + self.changed + self.unchanged

    def as_json(self) -> dict[str, Any]:
        plain = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("reading", "labels", "repeated", "seconds", "stages", "each")
        }
        reading = self.reading.as_json()
        for name in ("files", "bytes", "documents"):
            del reading[name]
        return {
            **plain,
            "documents": self.documents,
            "seconds": round(self.seconds, 3),
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
            "labels": dict(sorted(self.labels.items())),
            "repeated": [{"document": one, "as": other} for one, other in self.repeated],
            **reading,
            "each": [line._asdict() for line in self.each],
        }

    def rows(self) -> list[tuple[str, int]]:
        """The counts that say something, each with its name."""
        wanted = "would be " if self.dry else ""
        found = [
            ("files", self.files),
            ("  read", self.files_read),
            ("  not opened: as they were", self.files_as_before),
            ("  kept as they were: not readable now", self.files_kept),
            *((f"  {kind}", count) for kind, count in sorted(self.reading.parts.items())),
            ("documents", self.documents),
            (f"  {wanted}added", self.added),
            (f"  {wanted}changed", self.changed),
            ("  unchanged", self.unchanged),
            ("  without a word", self.without_passages),
            (f"documents {wanted}removed", self.removed),
            ("documents whose id was given twice", self.repeated_ids),
            ("docstrings, which stand in their source", self.docstrings),
            ("passages of what is new", self.passages),
            ("  embedded", self.embedded),
            ("  known by their text", 0 if self.dry else max(0, self.passages - self.embedded)),
            ("  longer than the embedder reads", self.longer_than_read),
            ("  left out, without a word", self.passages_without_a_word),
            ("texts that stand twice", self.repeated_count),
            *((f"skipped: {reason}", count) for reason, count in self.reading.reasons().items()),
            *((f"mended: {reason}", count) for reason, count in self.reading.mends.most_common()),
        ]
        if self.labels:
            found += [("for everybody", self.public)]
            found += [(f"for those with '{label}'", count) for label, count in sorted(self.labels.items())]
        always = ("files", "documents")
        return [row for row in found if row[1] or row[0] in always]

    def notes(self, most: int = 5) -> list[str]:
        """The first of everything that a person may want to look at, by name."""
        lines = [f"skipped  {note}" for note in _first(self.reading.skipped, self.reading.skips, most)]
        lines += [f"mended   {note}" for note in _first(self.reading.mended, self.reading.mends, most)]
        lines += [f"twice    {one} holds the same text as {other}" for one, other in self.repeated[:most]]
        lines += [f"access   no document fits the pattern '{pattern}'" for pattern in self.unmatched]
        lines += [f"empty    there is nothing to read in {root} any more; its documents stay" for root in self.empty]
        return lines


_EXPECTED = ("hidden", "not of this project", "a link to what is read already")
"""Skipped for reasons that nobody needs to look after."""


def _first(notes: Sequence[Note], counts: Counter[str], most: int) -> list[str]:
    shown: Counter[str] = Counter()
    found = []
    for note in notes:
        shown[note.reason] += 1
        if shown[note.reason] <= most and note.reason not in _EXPECTED:
            found.append(str(note))
        elif shown[note.reason] == most + 1 and note.reason not in _EXPECTED:
            found.append(f"… and {counts[note.reason] - most:,} more: {note.reason}")
    return found

"""What reading found: every file or row that was skipped or mended is counted and, up to a limit, named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from windlass.core.documents import Document

NAMED = 1000
"""Notes of one reason that are kept: a file of a million broken rows must not fill the memory with their names."""


@dataclass(frozen=True, slots=True)
class Note:
    source: str
    reason: str
    """One of a few phrases, so that notes can be counted."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(slots=True)
class ReadReport:
    """Filled while a source is read; complete when its iterator is exhausted."""

    files: int = 0
    """Files read, including those that gave no document."""
    bytes: int = 0
    """Bytes of those files."""
    documents: int = 0
    skipped: list[Note] = field(default_factory=list)
    """The first `NAMED` of each reason; `skips` counts all."""
    mended: list[Note] = field(default_factory=list)
    """The first `NAMED` of each reason; `mends` counts all."""
    skips: Counter[str] = field(default_factory=Counter)
    mends: Counter[str] = field(default_factory=Counter)

    def skip(self, source: str, reason: str, detail: str = "") -> None:
        self.skips[reason] += 1
        if self.skips[reason] <= NAMED:
            self.skipped.append(Note(source, reason, detail))

    def mend(self, source: str, reason: str, detail: str = "") -> None:
        self.mends[reason] += 1
        if self.mends[reason] <= NAMED:
            self.mended.append(Note(source, reason, detail))

    def reasons(self) -> dict[str, int]:
        """Reason -> how many were skipped for it, most frequent first."""
        return dict(sorted(self.skips.items(), key=lambda item: (-item[1], item[0])))

    def as_json(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "bytes": self.bytes,
            "documents": self.documents,
            "skipped_by_reason": self.reasons(),
            "skipped_count": self.skips.total(),
            "mended_count": self.mends.total(),
            "skipped": [str(note) for note in self.skipped],
            "mended": [str(note) for note in self.mended],
        }


class Source(Protocol):
    """Where documents come from."""

    @property
    def name(self) -> str:
        """Says what was read, in one phrase. Holds no absolute path: it becomes part of an artifact."""
        ...

    @property
    def licence(self) -> str: ...

    def documents(self, report: ReadReport) -> Iterator[Document]:
        """Yields the documents in a fixed order and fills `report` meanwhile.

        Every document's text is canonical (`core.readers.text`) and its metadata holds `kind` (page, topic,
        docstring, source) and `cluster`: documents of one cluster share text and must not be split apart.
        Raises `InputError` when there is nothing to read.
        """
        ...

"""What reading found: every file or row that was skipped or mended is counted and, up to a limit, named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from windlass.core.documents import Document
from windlass.core.errors import MissingExtra

NAMED = 1000
"""Notes of one reason that are kept: a file of a million broken rows must not fill the memory with their names."""

UNREACHED = "cannot be read"
"""The reason of a skip that says nothing about the file: the disk, the network or a right failed, not its content."""

NEEDS_EXTRA = "needs an extra that is not installed"


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
    parts: Counter[str] = field(default_factory=Counter)
    """What was read inside of files, by kind: pages, slides, sheets, rows, messages, attachments."""
    missing: MissingExtra | None = None
    """The extra that a file needed last and that is not installed."""
    unreached: list[str] = field(default_factory=list)
    """Files, and folders with all that they hold, that could not be looked at (`UNREACHED`), or not without an extra.
    What was read of them before is neither gone nor changed as far as anybody knows: `was_reached` asks for one."""
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
        if reason in (UNREACHED, NEEDS_EXTRA):
            self.unreached.append(source)

    def lacks(self, source: str, error: MissingExtra) -> None:
        """Skips a file that cannot be read without an extra."""
        self.missing = error
        self.skip(source, NEEDS_EXTRA, error.hint)

    def was_reached(self, source: str) -> bool:
        """Whether the absence of a file tells that it is gone: neither it nor a folder above it failed to open."""
        return not any(name in (".", source) or source.startswith(f"{name}/") for name in self.unreached)

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
            "parts": dict(sorted(self.parts.items())),
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


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What a source has and reads at one go: a file, a web page, a channel. Listing it reads nothing of it."""

    name: str
    """Unique within the source, and the same the next time."""
    stamp: str
    """Changes when what it holds may have changed: of a file its size and times, of a web page its entity tag. Empty
    where nothing tells: then it has to be read. Not to be compared between sources that are set up differently."""
    documents: Callable[[ReadReport], Iterator[Document]]
    """Reads it. Yields nothing for what cannot be read; the report says why."""


class FileSource(Source, Protocol):
    """A source that can tell what it has, and what has changed, without reading it."""

    def files(self, report: ReadReport, stamps: Mapping[str, str] | None = None) -> Iterator[SourceFile]:
        """What the source has, in a fixed order; `documents` yields the documents of all of it.

        `stamps` is what the caller holds, name -> stamp: a source that has to ask somebody else (the web) asks
        whether that still stands. To be read one by one: a file may not be readable any more when the next one came.
        A held name that does not come is gone if `report.was_reached(name)`, once this iterator is exhausted.
        """
        ...

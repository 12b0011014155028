"""Documents: the text that corpora are made of and that answers quote, always with a way back to its source.

A document is cut into passages, and an index holds both: what it takes in one piece is an `Entry`.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from windlass.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DocumentFormat = Literal["text", "markdown", "rst", "html", "python", "code"]


PLACES = {"pages": "page", "slides": "slide"}
"""Metadata that holds where each page or slide of a document begins: ascending offsets, the first of them 0. A page
without text begins where the one before it ends."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and where its part of the text begins. A section ends where the next one starts."""

    start: int
    """Offset in characters of the document's text."""
    level: int
    """1 for the title of the document, then deeper."""
    heading: str


@dataclass(frozen=True, slots=True)
class Document:
    """One source document after extraction. All offsets in windlass point into `text`."""

    id: str
    """Stable within a corpus: derived from `source`."""
    source: str
    """A path relative to the folder that was read, with `:row` for a row of a file, or a `python:` name."""
    title: str
    text: str
    format: DocumentFormat = "text"
    sections: Sequence[Section] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """`access`, when there, is a list of labels: only who holds one of them may see the document. Without it the
    document is public."""

    @property
    def access(self) -> frozenset[str]:
        """The labels of `metadata`. Raises `InputError` when they are none, so that a mistake does not publish."""
        labels = self.metadata.get("access")
        if labels is None:
            return frozenset()
        if not isinstance(labels, (list, tuple, set, frozenset)) or not labels or not all(map(_is_label, labels)):
            raise InputError(
                f"Document '{self.id}' has access {labels!r}, but it must be a list of labels.",
                "Name at least one label, or leave `access` out of a public document's metadata.",
            )
        return frozenset(labels)


def _is_label(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@dataclass(frozen=True, slots=True)
class Passage:
    """`text == document.text[start:end]`. `heading` is the path of headings above it, outermost first."""

    document: str
    title: str
    heading: str
    start: int
    end: int
    text: str
    context: str = ""
    """What is embedded and searched with it, and never quoted: the header of the table that it is a piece of, or what a
    model wrote about it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as an index takes it: whole, with its passages and their vectors."""

    document: Document
    digest: str
    """Of all that the index derives from: text, title, sections, metadata, the way of chunking. It tells whether the
    document must be indexed again."""
    passages: Sequence[Passage]
    vectors: NDArray[np.float32]
    """Shape (passages, dimension), rows of unit length; made by the index's embedder."""
    embedder: str = ""
    """Digest of the embedder that made the vectors. When it is given, an index takes those of its own only: it may be
    embedded anew while a document is on its way."""


def document_digest(document: Document, how: Mapping[str, Any]) -> str:
    """An `Entry.digest`: of the whole document and of `how` it is made into passages."""
    whole = json.dumps([asdict(document), how], sort_keys=True, separators=(",", ":"))  # ASCII: any text has one
    return hashlib.sha256(whole.encode("ascii")).hexdigest()


def place(metadata: Mapping[str, Any], offset: int) -> str:
    """Where a document shows a character: `page 12` of a PDF, `slide 3`, `sheet Costs`; '' where it has no such parts.

    `metadata` is the document's own.
    """
    for key, name in PLACES.items():
        if starts := metadata.get(key):
            return f"{name} {max(bisect_right(starts, offset), 1)}"
    return f"sheet {metadata['sheet']}" if "sheet" in metadata else ""


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Writes JSON lines; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(asdict(document), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_documents(path: Path) -> Iterator[Document]:
    """Reads what `write_documents` wrote. Raises `InputError` naming the line that is broken."""
    return (document for _, document in placed_documents(path))


def placed_documents(path: Path) -> Iterator[tuple[int, Document]]:
    """The documents of a file, each with its place, by which `documents_at` finds it again."""
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield place, _document(line, f"{path}, line {number}")
            place += len(line)


def documents_at(path: Path, places: Iterable[int]) -> Iterator[Document]:
    """The documents at these places of a file, without reading what lies between."""
    with path.open("rb") as file:
        for place in places:
            file.seek(place)
            yield _document(file.readline(), f"{path}, byte {place}")


def _document(line: bytes, where: str) -> Document:
    try:
        row = json.loads(line)
        sections = tuple(Section(**section) for section in row.pop("sections", ()))
        return Document(**row, sections=sections)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: not a document ({error}).", "Make the corpus again.") from error

"""Documents: the text that corpora are made of and that answers quote, always with a way back to its source."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from windlass.core.errors import InputError

DocumentFormat = Literal["text", "markdown", "rst", "html", "python", "code"]


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

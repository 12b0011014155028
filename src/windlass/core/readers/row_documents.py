"""From rows to documents: which field is the text, and what else a row says about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from windlass.core.documents import Document
from windlass.core.readers.extracting import extracted
from windlass.core.readers.formats import format_of
from windlass.core.readers.report import ReadReport
from windlass.core.readers.rows import Row
from windlass.core.readers.text import canonical


@dataclass(frozen=True, slots=True)
class RowFields:
    """Which fields of a row make a document."""

    text: str | None = "text"
    """None: `text` where a row has that; of other rows all fields are read, as lines `name: value`."""
    id: str | None = None
    """None: the document is called `file:row`. Else `file#value`, for values that differ from row to row."""
    title: str = "title"
    """Used where a row has it."""
    kept: tuple[str, ...] = ("repo", "source", "path", "url", "license", "licence", "date")
    """Fields that go to `metadata["row"]` where a row has them. `path` also tells the format of the text."""

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Those that have to be read; None: all."""
        if self.text is None:
            return None
        return tuple(dict.fromkeys(filter(None, (self.text, self.id, self.title, "path", *self.kept))))


def row_documents(rows: Iterable[Row], name: str, fields: RowFields, report: ReadReport) -> Iterator[Document]:
    """The documents of the rows of one file. A row without text is skipped and named."""
    for number, row in rows:
        source = f"{name}:{number}"
        report.parts["rows"] += 1
        text = row.get(fields.text or "text")
        if fields.text is None and not isinstance(text, str):
            text = "\n".join(f"{name}: {value}" for name, value in _said(row))
        if not isinstance(text, str):
            if fields.text not in row:
                report.skip(source, f"row without a field '{fields.text}'", f"it has {', '.join(row) or 'none'}")
            else:
                report.skip(source, f"row whose '{fields.text}' is not text", type(text).__name__)
            continue
        if fields.id is not None:
            if row.get(fields.id) in (None, ""):
                report.skip(source, f"row without a field '{fields.id}'")
                continue
            source = f"{name}#{canonical(str(row[fields.id]))}"
        path = row.get("path")
        path = canonical(path) if isinstance(path, str) else ""
        kept = {field: _plain(row[field]) for field in fields.kept if row.get(field) not in (None, "")}
        title = row.get(fields.title)
        for document in extracted(text, source, format_of(path) or "text", report, path):
            if document.metadata["kind"] == "source" and path:
                document = replace(document, title=path)
            elif document.metadata["kind"] == "page" and isinstance(title, str) and title.strip():
                document = replace(document, title=canonical(title).strip())
            yield replace(document, metadata={**document.metadata, "row": kept}) if kept else document


def _said(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """What a row says, as (name, text): fields in fields are named by their path, `address.city`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _said(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _said(item, f"{name}.{number}" if name else str(number))
    elif isinstance(value, list):
        if value:
            yield name, ", ".join(str(item) for item in value)
    elif value not in (None, ""):
        yield name, str(value)


def _plain(value: Any) -> Any:
    """As JSON can hold it, without lone halves of characters."""
    if isinstance(value, str):
        return canonical(value)
    if isinstance(value, Mapping):
        return {canonical(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)

"""PDF (ISO 32000): the text of each page as it is written, bookmarks as sections; needs pypdf.

What a page shows as a picture is not read: a page without text is named. A table comes as its lines of text, cell after
cell in the order in which they were written: a PDF does not say where a column begins.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from windlass.core.documents import Document, Section
from windlass.core.errors import MissingExtra
from windlass.core.readers.pages import joined_pages
from windlass.core.readers.report import ReadReport
from windlass.core.readers.text import canonical

_LARGEST_PAGE = 20_000_000
"""Bytes of drawing instructions of a page: one that is larger is a map, and would take minutes."""

_MOST_PAGES = 50_000
_PATIENCE = 60.0
"""Seconds that a file may take, and one more for each page (most take a hundredth), but never more than an hour: forms
that show each other can keep one busy for years. Only this limit asks how fast the machine is."""

_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError, RecursionError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What pypdf raises of damaged files besides errors of its own: it follows the file before it has checked it."""

_NO_TITLE = re.compile(r"untitled|microsoft \w+ - |.*\.(docx?|pptx?|xlsx?|indd|tex|dvi|qxd|pdf)$", re.IGNORECASE)
_HEADING = 200
"""Characters of a bookmark."""


def read_pdf(file: Path, name: str, report: ReadReport) -> Iterator[Document]:
    """The one document of a .pdf file. `metadata["pages"]` holds where each page begins: `core.documents.place`."""
    try:
        import pypdf
        from pypdf.errors import DependencyError, PyPdfError
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading PDF files", "documents") from error
    with file.open("rb") as stream, _remarks(name, report):
        try:
            reader = pypdf.PdfReader(stream)
            if reader.is_encrypted and not reader.decrypt(""):
                report.skip(name, "encrypted", "save a copy without a password")
                return
            count = len(reader.pages)
        except DependencyError as error:
            raise MissingExtra("Reading encrypted PDF files", "documents") from error
        except (PyPdfError, *_BROKEN) as error:
            report.skip(name, "damaged", _said(error))
            return
        if not 0 < count <= _MOST_PAGES:
            report.skip(name, "empty" if not count else "too large", f"it has {count:,} pages")
            return
        texts: list[str] = []
        end = monotonic() + min(_PATIENCE + count, 3600)
        for number in range(1, count + 1):
            texts.append("")
            if monotonic() > end:
                report.skip(f"{name}#page={number}", "page not reached in time", "print the file into a new PDF")
                continue
            try:
                page = reader.pages[number - 1]
                contents = page.get_contents()
                size = 0 if contents is None else len(contents.get_data())
                if size > _LARGEST_PAGE:
                    report.skip(f"{name}#page={number}", "page too large", f"{size / 1e6:,.0f} MB of drawing")
                    continue
                texts[-1] = page.extract_text()
                report.parts["pages"] += 1
            except (PyPdfError, *_BROKEN) as error:
                report.skip(f"{name}#page={number}", "page damaged", _said(error))
                continue
            if not texts[-1].strip():
                hint = "a picture of text? run OCR over the file, as with ocrmypdf"
                report.skip(f"{name}#page={number}", "page without text", hint)
        yield from _document(reader, texts, name, report)


def _document(reader: Any, texts: Sequence[str], name: str, report: ReadReport) -> Iterator[Document]:
    text, starts, furniture = joined_pages(texts)
    if furniture:
        detail = f"{len(furniture)} lines, as '{furniture[0][:60]}'"
        report.mend(name, "headers and footers kept on their first page", detail)
    for number, page in enumerate(texts, start=1):
        end = starts[number] if number < len(starts) else len(text)
        if page.strip() and not text[starts[number - 1] : end].strip():
            report.skip(f"{name}#page={number}", "page without text", "besides its header and footer")
    if not text:
        report.skip(name, "empty", f"none of its {len(texts):,} pages has text: run OCR over it, as with ocrmypdf")
        return
    said = _facts(reader, name, report)
    sections = _bookmarks(reader, text, starts, name, report)
    metadata: dict[str, Any] = {"kind": "page", "module": "", "cluster": name, "pages": starts}
    metadata |= {key: said[key] for key in ("author", "created") if key in said}
    title = said.get("title", "") or name.rpartition("/")[2].rpartition(".")[0] or name
    yield Document(name, name, title, text, "text", tuple(sections), metadata)


def _facts(reader: Any, name: str, report: ReadReport) -> dict[str, str]:
    """Title, author and date, as the file gives them; says what it holds besides its pages."""
    from pypdf.errors import PyPdfError

    found: dict[str, str] = {}
    try:
        root = reader.root_object
        if "/AcroForm" in root and any((reader.get_form_text_fields() or {}).values()):
            report.mend(name, "values of form fields left out", "print the form into a new PDF to have them read")
        names = root.get("/Names")
        if names is not None and "/EmbeddedFiles" in names.get_object():
            report.mend(name, "enclosed files left out", "save them as files of their own")
        said = reader.metadata
        if said is not None:
            date = said.creation_date
            facts = {"title": said.title, "author": said.author, "created": date and date.isoformat()}
            found = {key: one for key, value in facts.items() if value and (one := canonical(str(value)).strip())}
    except (PyPdfError, *_BROKEN) as error:
        report.mend(name, "facts about the file cannot be read", _said(error))
    if _NO_TITLE.match(found.get("title", "")):
        del found["title"]
    return found


def _bookmarks(reader: Any, text: str, starts: Sequence[int], name: str, report: ReadReport) -> list[Section]:
    """The bookmarks that point to a page with text, each where its title stands there, or where the page begins."""
    from pypdf.errors import PyPdfError

    found: dict[int, Section] = {}
    try:
        for title, level, number in _outline(reader, reader.outline, 1):
            title = " ".join(canonical(title).split())[:_HEADING]
            if not title or number is None or not 0 <= number < len(starts):
                continue
            end = starts[number + 1] if number + 1 < len(starts) else len(text)
            words = r"\s+".join(re.escape(word) for word in title.split())
            at = re.compile(rf"^(?:[\d.]+\s+)?{words}", re.IGNORECASE | re.MULTILINE).search(text, starts[number], end)
            start = at.start() if at else starts[number]
            if start < len(text) and start < end:
                found.setdefault(start, Section(start, level, title))
    except (PyPdfError, *_BROKEN) as error:
        report.mend(name, "bookmarks cannot be read", _said(error))
    return [found[start] for start in sorted(found)]


def _outline(reader: Any, items: Sequence[Any], level: int) -> Iterator[tuple[str, int, int | None]]:
    """(title, level, page from 0) of the bookmarks; pypdf gives those below one as a list after it."""
    for item in items:
        if isinstance(item, list):
            yield from _outline(reader, item, level + 1)
        else:
            yield str(item.title or ""), level, reader.get_destination_page_number(item)


@contextmanager
def _remarks(name: str, report: ReadReport) -> Iterator[None]:
    """pypdf logs what it mends or leaves out: here it goes into the report, and not onto the screen."""
    thread = threading.get_ident()
    seen: set[str] = set()

    class Remarks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = record.getMessage().partition("\n")[0]
            if record.thread == thread and said not in seen:
                seen.add(said)
                report.mend(name, "damaged in part", said)

    handler = Remarks(logging.WARNING)
    logger = logging.getLogger("pypdf")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]

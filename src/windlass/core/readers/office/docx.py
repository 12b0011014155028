"""Word documents: headings as sections, lists with their numbers, tables as rows, footnotes below the text.

Read as Word shows the document with all changes accepted. Page headers and footers, comments, hidden text and pictures
are left out; the report says of hidden text and comments how many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from windlass.core.documents import Document
from windlass.core.readers.blocks import Blocks, row_text
from windlass.core.readers.office.docx_styles import Numbering, Style, read_numbering, read_styles
from windlass.core.readers.office.package import Package, document_of
from windlass.core.readers.office.xml_events import Event, events
from windlass.core.readers.report import ReadReport

_PASSED_OVER = frozenset({"Fallback", "moveFrom", "del", "pPrChange", "rPrChange", "sectPr"})
"""Elements that say again, in another way or as it was before, what the document says."""

_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
_MATHS = {"den": "/", "sup": "^", "sub": "_", "rad": "√"}
"""What a formula in one line has in place of a fraction's bar, of high and of low letters."""

_NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes"}
_SPACE = re.compile(r"\s+")


def read_docx(package: Package, main: str, name: str, report: ReadReport) -> Iterator[Document]:
    """The one document of a .docx file."""
    styles = read_styles(package, package.related(main, "styles"))
    body = _Body(styles, read_numbering(package, package.related(main, "numbering")))
    with package.opened(main) as stream:
        for event in events(stream):
            body.read(event)
    _add_notes(body, package, main)
    if body.hidden:
        report.mend(name, "hidden text left out", f"{body.hidden:,} pieces")
    comments = _count(package, package.related(main, "comments"), "comment")
    if comments:
        report.mend(name, "comments left out", f"{comments:,}")
    if not body.blocks.length:
        report.skip(name, "empty", "it holds no text")
        return
    sections = body.blocks.sections
    title = body.title or (sections[0].heading if sections and sections[0].start == 0 else "")
    yield document_of(body.blocks, name, package, title=title)


@dataclass(slots=True)
class _Paragraph:
    style: Style = field(default_factory=Style)
    number: int | None = None
    """Of the list that it is an item of; 0: of none, although its style says so."""
    depth: int | None = None
    outline: int | None = None
    parts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Table:
    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] | None = None
    """The paragraphs of the cell that is open."""


class _Body:
    """Turns the events of a document's part into blocks. Paragraphs stand in each other through text boxes."""

    def __init__(self, styles: Mapping[str, Style], numbering: Numbering) -> None:
        self.blocks = Blocks()
        self.title = ""
        self.hidden = 0
        self.notes: list[tuple[str, str]] = []
        """(which part, id) of those that were referred to, in order."""
        self._styles = styles
        self._numbering = numbering
        self._default = styles.get("", Style())
        self._paragraphs: list[_Paragraph] = []
        self._tables: list[_Table] = []
        self._skipping = 0
        self._mark = ""
        self._in_run = self._in_text = self._vanished = self._in_list = False

    def read(self, event: Event) -> None:
        kind, tag, said = event
        if self._skipping:
            self._skipping += {"start": 1, "end": -1, "text": 0}[kind]
        elif kind == "text":
            if self._in_text and self._paragraphs:
                self._say(self._mark + tag)
                self._mark = ""
        elif kind == "end":
            self._end(tag)
        elif tag in _PASSED_OVER:
            self._skipping = 1
        else:
            self._start(tag, said or {})

    def _start(self, tag: str, said: Mapping[str, str]) -> None:
        paragraph = self._paragraphs[-1] if self._paragraphs else None
        if tag == "p":
            self._paragraphs.append(_Paragraph(self._default))
        elif tag == "r":
            self._in_run, self._vanished = True, False
        elif tag == "t":
            self._in_text = True
        elif tag == "tbl":
            self._tables.append(_Table())
        elif tag == "tr" and self._tables:
            self._tables[-1].rows.append([])
        elif tag == "tc" and self._tables:
            self._tables[-1].cell = []
        elif paragraph is None:
            return
        elif tag in _MATHS:
            self._mark = _MATHS[tag]
        elif tag == "pStyle":
            paragraph.style = self._styles.get(said.get("val", ""), self._default)
        elif tag == "numId":
            paragraph.number = _number(said)
        elif tag == "ilvl":
            paragraph.depth = _number(said)
        elif tag == "outlineLvl":
            paragraph.outline = _number(said)
        elif tag == "vanish" and self._in_run:
            self._vanished = said.get("val") not in ("0", "false", "off")
        elif tag in _CHARACTERS and self._in_run:
            self._say(_CHARACTERS[tag])
        elif tag in _NOTES and not self._vanished:
            self.notes.append((_NOTES[tag], said.get("id", "")))
            self._say(f"[{len(self.notes)}]")

    def _end(self, tag: str) -> None:
        if tag == "t":
            self._in_text = False
        elif tag in _MATHS:
            self._mark = ""
        elif tag == "r":
            self._in_run = False
        elif tag == "p" and self._paragraphs:
            self._place(self._paragraphs.pop())
        elif tag == "tc" and self._tables and self._tables[-1].cell is not None and self._tables[-1].rows:
            table = self._tables[-1]
            table.rows[-1].append(" ".join(table.cell or ()))
            table.cell = None
        elif tag == "tbl" and self._tables:
            self._place_table(self._tables.pop())

    def _say(self, text: str) -> None:
        if not self._vanished:
            self._paragraphs[-1].parts.append(text)
        elif text.strip():
            self.hidden += 1

    def _place(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.parts).strip()
        if not text:
            return
        number = paragraph.style.number if paragraph.number is None else paragraph.number
        depth = paragraph.style.depth if paragraph.depth is None else paragraph.depth
        mark = self._numbering.mark(number, depth or 0) if number else ""
        cell = self._tables[-1].cell if self._tables else None
        if cell is not None:
            cell.append(f"{mark} {text}".strip())
            return
        text = f"{mark} {text}".strip()
        level = paragraph.style.level if paragraph.outline is None else paragraph.outline + 1
        heading = paragraph.style.is_title or (level is not None and level <= 9)
        if paragraph.style.is_title:
            self.title = self.title or _SPACE.sub(" ", text)
            self.blocks.heading(text, 1)
        elif level is not None and heading:
            self.blocks.heading(text, level + bool(self.title))
        else:
            self.blocks.add(text, tight=bool(mark) and self._in_list)
        self._in_list = bool(mark) and not heading

    def _place_table(self, table: _Table) -> None:
        rows = [row for row in table.rows if any(cell.strip() for cell in row)]
        outer = self._tables[-1].cell if self._tables else None
        if outer is not None:  # a table in a cell of another one
            outer += [row_text(row) for row in rows]
            return
        for number, row in enumerate(rows):
            self.blocks.add(row_text(row), tight=number > 0)
        self._in_list = False


def _number(said: Mapping[str, str]) -> int | None:
    try:
        return int(said.get("val", ""))
    except ValueError:
        return None


def _add_notes(body: _Body, package: Package, main: str) -> None:
    """The footnotes and endnotes that the text refers to, as paragraphs below it."""
    texts: dict[tuple[str, str], str] = {}
    for which in dict.fromkeys(which for which, _ in body.notes):
        part = package.related(main, which)
        if part is None:
            continue
        note, inside = "", False
        words: list[str] = []
        with package.opened(part) as stream:
            for kind, tag, said in events(stream):
                if kind == "start" and tag == which[:-1]:
                    note, words = (said or {}).get("id", ""), []
                elif kind == "end" and tag == which[:-1]:
                    texts[which, note] = _SPACE.sub(" ", "".join(words)).strip()
                elif kind == "end" and tag == "p":
                    words.append(" ")
                elif kind == "text" and inside:
                    words.append(tag)
                elif tag == "t":
                    inside = kind == "start"
    for number, note_id in enumerate(body.notes, start=1):
        if text := texts.get(note_id):
            body.blocks.add(f"[{number}] {text}")


def _count(package: Package, part: str | None, tag: str) -> int:
    if part is None:
        return 0
    with package.opened(part) as stream:
        return sum(kind == "start" and name == tag for kind, name, _ in events(stream))

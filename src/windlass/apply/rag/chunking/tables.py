"""Tables in texts: where their rows start, and the header that a piece of one needs to be understood.

Known are Markdown's (a header, a line of dashes, rows), reST's grids, and rows of as many cells each with bars between
them, as the readers of HTML, office files and spreadsheets write them: their first row is taken for the header.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windlass.apply.rag.chunking.masks import Span
from windlass.core.documents import Document

_LINE = re.compile(r"[^\n]+")
_DASHES = re.compile(r":?-+:?")
_LONGEST = 300
"""Characters of a header that are repeated."""
_BORDER = re.compile(r"[ \t]*\+[-=+]+\+[ \t]*")


@dataclass(frozen=True, slots=True)
class Table:
    start: int
    end: int
    rows: Sequence[int]
    """Where the rows below the header start, ascending."""
    header: str
    """As it stands in the text, its beginning if it is long; empty for a grid without one."""


class Tables:
    """Those of one part of a document, in order. One whose header lies outside of the part has none."""

    def __init__(self, document: Document, low: int, high: int) -> None:
        self.all: list[Table] = []
        text = document.text
        if document.format in ("python", "code") or text.find("|", low, high) < 0:
            return
        for lines in _blocks(text, low, high):
            if _BORDER.fullmatch(text, *lines[0]):
                table = _grid(text, lines)
            else:
                table = _bars(text, lines, document.format in ("html", "text"))
            if table is not None:
                self.all.append(table)
        self._starts = [table.start for table in self.all]

    def at(self, place: int) -> Table | None:
        """The table in which a place lies, its first and last character not counted."""
        if not self.all:
            return None
        i = bisect_right(self._starts, place) - 1
        return self.all[i] if i >= 0 and self._starts[i] < place < self.all[i].end else None

    def header_above(self, place: int) -> str:
        """The header that a passage lacks which starts here."""
        table = self.at(place)
        return table.header if table is not None and place >= table.rows[0] else ""


def _blocks(text: str, low: int, high: int) -> Iterator[list[Span]]:
    """Runs of at least two lines that may be rows."""
    lines: list[Span] = []
    for match in _LINE.finditer(text, low, high):
        start, end = match.span()
        maybe = text.find("|", start, end) >= 0 or _BORDER.fullmatch(text, start, end) is not None
        if lines and not (maybe and start == lines[-1][1] + 1):
            if len(lines) > 1:
                yield lines
            lines = []
        if maybe:
            lines.append((start, end))
    if len(lines) > 1:
        yield lines


def _bars(text: str, lines: Sequence[Span], bare: bool) -> Table | None:
    """`bare`: the rows of a table may follow its header without a line between them."""
    cells = text[slice(*lines[1])].strip().strip("|").split("|")
    if all(_DASHES.fullmatch(cell.strip()) for cell in cells):
        rows = [start for start, _ in lines[2:]]
    elif (
        bare
        and len(lines) > 2
        and len(bars := {text.count(" | ", start, end) for start, end in lines}) == 1
        and 0 not in bars
    ):
        rows = [start for start, _ in lines[1:]]
    else:
        return None
    return Table(lines[0][0], lines[-1][1], rows, text[lines[0][0] : rows[0]].strip()[:_LONGEST]) if rows else None


def _grid(text: str, lines: Sequence[Span]) -> Table | None:
    borders = [(start, end) for start, end in lines if _BORDER.fullmatch(text, start, end)]
    below = next((start for start, end in borders[1:] if "=" in text[start:end]), None)
    rows = [start for start, _ in borders[1:-1] if below is None or start >= below]
    if not rows:
        return None
    return Table(lines[0][0], lines[-1][1], rows, "" if below is None else text[lines[0][0] : below].strip()[:_LONGEST])

"""Excel workbooks: each sheet a document, each row a line that says which column a value stands in.

A value is shown as the file holds it: dates as ISO 8601, numbers in full, formulas by the value that was computed when
the file was saved. A long sheet becomes several documents, so that a sheet of any length is read in the memory of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from windlass.core.documents import Document
from windlass.core.readers.blocks import Blocks, row_text
from windlass.core.readers.office.package import Package, document_of
from windlass.core.readers.office.xlsx_values import CellValues, read_formats
from windlass.core.readers.office.xml_events import events
from windlass.core.readers.report import ReadReport
from windlass.core.readers.text import canonical
from windlass.core.readers.unpacking import Bomb

DOCUMENT = 200_000
"""Characters after which a sheet goes on in another document."""

_LONGEST_NAME = 80
"""Characters of a column's name: what is longer is no name, and would be repeated in every row."""

_LAST_COLUMN = 16_384
_LONGEST_ROW = 2_000_000
"""Characters: one text may be shown in every cell of a row."""

_YEAR = re.compile(r"(?:19|20)\d\d")


def read_xlsx(package: Package, main: str, name: str, report: ReadReport) -> Iterator[Document]:
    """The documents of the sheets of a .xlsx file, in its order."""
    sheets, since_1904 = _workbook(package, main)
    relations = package.relations(main)
    shared = _shared(package, package.related(main, "sharedStrings"))
    values = CellValues(shared, read_formats(package, package.related(main, "styles")), since_1904)
    read = 0
    for title, id in sheets:
        relation = relations.get(id)
        source = f"{name}#{title}"
        if relation is None or relation.target not in package:
            report.skip(source, "sheet damaged", "the file does not hold it")
        elif relation.kind != "worksheet":
            report.skip(source, "sheet without cells", relation.kind)
        else:
            report.parts["sheets"] += 1
            documents = 0
            for document in _sheet(package, relation.target, values, name, title, report):
                documents += 1
                yield document
            read += documents
            if not documents:
                report.skip(source, "sheet without values")
    if not read:
        report.skip(name, "empty", "no sheet has a cell with a value")


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    cells: dict[int, str]
    """By column, from 0; none is empty."""
    names: bool
    """Whether all could be names of columns: texts, or years."""


def _sheet(
    package: Package, part: str, values: CellValues, name: str, title: str, report: ReadReport
) -> Iterator[Document]:
    """A sheet's documents. Those after the first are named by the row that they begin with."""
    book = name.rpartition("/")[2].rpartition(".")[0]
    blocks, first, written = Blocks(), 0, 0
    header: dict[int, str] = {}

    def finished() -> Document:
        source = f"{name}#{title}" + (f"!{first}" if written else "")
        about = {"cluster": f"{name}#{title}", "sheet": title, "first_row": first}
        return document_of(blocks, source, package, title=f"{book}: {title}", about=about)

    values.missing = 0
    rows = _rows(package, part, values, f"{name}#{title}", report)
    row = next(rows, None)
    while row is not None:
        following = next(rows, None)
        report.parts["rows"] += 1
        if not blocks.length:
            first = row.number
            blocks.heading(title, 1)
        if header:
            cells = [f"{header[at]}: {cell}" if at in header else cell for at, cell in row.cells.items()]
            blocks.add(row_text(cells), tight=True)
        else:
            blocks.add(row_text(list(row.cells.values())), tight=len(row.cells) > 1)
            if following is not None and _are_names(row, following):
                header = row.cells
        if blocks.length > DOCUMENT or following is None:
            yield finished()
            written += blocks.length
            if written > package.limit:
                raise Bomb(f"the cells of {title} hold more than {package.limit / 1e6:,.0f} MB of text")
            blocks = Blocks()
        row = following
    if values.missing:
        how = "open and save it in a program that computes them"
        report.mend(f"{name}#{title}", "formulas without a computed value left out", f"{values.missing:,}; {how}")


def _are_names(row: _Row, following: _Row) -> bool:
    """Whether a row names the columns below: names side by side, all different, three or more or above a number.

    Two texts above two texts may as well be a name and its value.
    """
    at, names = list(row.cells), list(row.cells.values())
    return (
        row.names
        and len(names) > 1
        and at[-1] - at[0] == len(at) - 1
        and len(set(names)) == len(names)
        and max(map(len, names)) <= _LONGEST_NAME
        and (len(names) > 2 or not following.names)
    )


def _rows(package: Package, part: str, values: CellValues, source: str, report: ReadReport) -> Iterator[_Row]:
    """The rows of a sheet that hold a value."""
    number, column, size = 0, -1, 0
    cells: dict[int, str] = {}
    names = in_value = formula = False
    kind = style = ""
    words: list[str] = []
    phonetic = 0
    with package.opened(part) as stream:
        for event, tag, said in events(stream):
            if event == "text":
                if in_value and not phonetic:
                    words.append(tag)
            elif tag in ("v", "t"):
                in_value = event == "start"
            elif tag == "rPh":
                phonetic += 1 if event == "start" else -1
            elif tag == "f":
                formula = True
            elif tag == "c" and said is not None:
                column = _column(said.get("r", ""), column + 1)
                kind, style, formula = said.get("t", "n"), said.get("s", "0"), False
                words.clear()
            elif tag == "c":
                text = values.shown(kind, style, "".join(words), formula)
                size += len(text)
                if text and size <= _LONGEST_ROW:
                    cells[column] = text
                    names = names and (kind in ("s", "inlineStr", "str") or _YEAR.fullmatch(text) is not None)
            elif tag == "row" and said is not None:
                number = int(said.get("r", number + 1))
                cells, names, column, size = {}, True, -1, 0
            elif tag == "row" and size > _LONGEST_ROW:
                report.skip(f"{source}!{number}", "row too large", f"the limit is {_LONGEST_ROW:,} characters")
            elif tag == "row" and cells:
                yield _Row(number, cells, names)


def _column(place: str, otherwise: int) -> int:
    """Of a cell's name: 0 of A7, 26 of AA7."""
    letters = place.rstrip("0123456789")
    column = 0
    for letter in letters[:4]:
        column = 26 * column + ord(letter.upper()) - ord("A") + 1
    column = column - 1 if letters else otherwise
    if not 0 <= column < _LAST_COLUMN:
        raise ValueError(f"a cell stands in column {place or column}, and there are {_LAST_COLUMN:,}")
    return column


def _workbook(package: Package, main: str) -> tuple[list[tuple[str, str]], bool]:
    """(title and relation of each sheet, whether its days are counted from 1904)."""
    sheets: list[tuple[str, str]] = []
    since_1904 = False
    with package.opened(main) as stream:
        for kind, tag, said in events(stream):
            if kind != "start" or said is None:
                continue
            if tag == "sheet":
                sheets.append((canonical(said.get("name", "")).strip(), said.get("r:id", "")))
            elif tag == "workbookPr":
                since_1904 = said.get("date1904") in ("1", "true")
    return sheets, since_1904


def _shared(package: Package, part: str | None) -> list[str]:
    """The texts that cells refer to by number."""
    texts: list[str] = []
    if part is None:
        return texts
    words: list[str] = []
    in_text, phonetic = False, 0
    with package.opened(part) as stream:
        for kind, tag, _ in events(stream):
            if kind == "text":
                if in_text and not phonetic:
                    words.append(tag)
            elif tag == "t":
                in_text = kind == "start"
            elif tag == "rPh":  # how Japanese is pronounced, said once more
                phonetic += 1 if kind == "start" else -1
            elif tag == "si" and kind == "end":
                texts.append("".join(words))
                words.clear()
    return texts

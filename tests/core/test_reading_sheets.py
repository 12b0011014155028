"""Workbooks: what openpyxl wrote is shown as it reads it, row by row, with the names of the columns."""

from __future__ import annotations

import datetime
import tracemalloc
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_world import read, xlsx

from windlass.core.documents import place
from windlass.core.readers import ReadReport, canonical
from windlass.core.readers.office.xlsx_values import look_of, shown_number
from windlass.core.readers.reading import read_file

DATES = st.datetimes(datetime.datetime(1900, 3, 1), datetime.datetime(2200, 1, 1)).map(
    lambda d: d.replace(microsecond=0)
)
CELLS = st.one_of(
    st.integers(-(10**14), 10**14), st.floats(-1e6, 1e6).map(lambda x: round(x, 6)), st.booleans(), DATES,
    DATES.map(lambda moment: moment.date()),
    st.text(st.sampled_from("abc äß漢<&"), min_size=1, max_size=12).filter(str.strip),
)  # fmt: skip


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else value.date().isoformat()
    if isinstance(value, float):
        return f"{value:.15g}" if value != int(value) else str(int(value))
    return " ".join(canonical(str(value)).split())


@settings(max_examples=8, deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_cells_are_shown_as_openpyxl_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[Any]]
) -> None:
    path = workbook(tmp_path_factory.mktemp("xlsx") / "a.xlsx", Data=[["First", "Second", "Third"], *rows])
    (document,), report = read(path)
    sheet = openpyxl.load_workbook(path, data_only=True)["Data"]
    for line, row in zip(document.text.split("\n")[2:], sheet.iter_rows(min_row=2, values_only=True), strict=True):
        names = ("First", "Second", "Third")
        assert line == " | ".join(f"{name}: {shown(value)}" for name, value in zip(names, row)), row
    assert canonical(document.text) == document.text and read(path)[0] == [document]
    assert report.parts == {"sheets": 1, "rows": len(rows) + 1}


def test_each_sheet_is_a_document_and_an_empty_one_is_named(tmp_path: Path) -> None:
    costs = [["Costs of 2024"], ["Item", "Price"], ["Rope", 12.5], [None, None], ["Pawl", 3]]
    path = workbook(tmp_path / "book.xlsx", Costs=costs, Empty=[], Notes=[["Only a remark"]])
    found, report = read(path)
    assert [one.id for one in found] == ["book.xlsx#Costs", "book.xlsx#Notes"]
    assert found[0].text == "Costs\n\nCosts of 2024\nItem | Price\nItem: Rope | Price: 12.5\nItem: Pawl | Price: 3"
    assert found[0].title == "book: Costs" and place(found[0].metadata, 3) == "sheet Costs"
    assert [str(note) for note in report.skipped] == ["book.xlsx#Empty: sheet without values"]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([["Region", 2022, 2023], ["North", 1, 2]], "Region: North | 2022: 1 | 2023: 2"),
        ([["Question", "Answer"], ["Who?", "Ann"]], "Who? | Ann"),  # may be two pairs as well
        ([["a", "b", "a"], ["1", "2", "3"]], "1 | 2 | 3"),  # a name twice
        ([["x" * 90, "b", "c"], ["1", "2", "3"]], "1 | 2 | 3"),  # no name is that long
        ([["a", None, "c"], [1, 2, 3]], "1 | 2 | 3"),
        ([["", "Item", "Price"], [None, "Rope", 3, "late"]], "Item: Rope | Price: 3 | late"),
    ],
)
def test_only_a_row_that_looks_like_names_is_taken_for_them(tmp_path: Path, rows: list[list[Any]], line: str) -> None:
    (document,), _ = read(workbook(tmp_path / "a.xlsx", Data=rows))
    assert document.text.split("\n")[-1] == line


def test_formulas_give_what_was_computed_or_are_named(tmp_path: Path) -> None:
    sheet = (
        '<row r="1"><c r="A1"><f>1+1</f><v>2</v></c><c r="B1" t="str"><f>A1&amp;""</f><v>two</v></c>'
        '<c r="C1"><f>NOW()</f></c><c r="D1" t="e"><f>1/0</f><v>#DIV/0!</v></c></row>'
    )
    (document,), report = read(xlsx(tmp_path / "a.xlsx", sheet))
    assert document.text == "Data\n2 | two | #DIV/0!"
    assert report.mended[0].reason == "formulas without a computed value left out"


def test_texts_of_all_kinds_are_read_once(tmp_path: Path) -> None:
    shared = "<si><r><t>rich </t></r><r><t>text</t></r></si><si><t>漢字</t><rPh><t>かんじ</t></rPh></si>"
    sheet = (
        '<row r="5"><c r="B5" t="s"><v>0</v></c><c t="s"><v>1</v></c><c r="AA5" t="inlineStr"><is><t>in</t></is></c>'
        '<c r="AB5" t="d"><v>2024-02-29</v></c></row>'
    )
    (document,), _ = read(xlsx(tmp_path / "a.xlsx", sheet, shared))
    assert document.text == "Data\nrich text | 漢字 | in | 2024-02-29" and document.metadata["first_row"] == 5


@pytest.mark.parametrize(
    ("value", "format", "text"),
    [
        (45351, "dd.mm.yyyy", "2024-02-29"), (45351.5, "yyyy-mm-dd hh:mm", "2024-02-29 12:00:00"),
        (45351, '[$-407]d. mmmm yyyy;@', "2024-02-29"), (0.75, "h:mm AM/PM", "18:00:00"), (1.5, "[h]:mm", "36:00:00"),
        (0.075, "0.0%", "7.5%"), (12.5, '0.00 "days"', "12.5"), (12.5, "#,##0.00 [$€-407]", "12.5"),
        (3, "[Red]0;-0", "3"), (45351, "General", "45351"), (1, "d", "1900-01-01"), (59, "d", "1900-02-28"),
        (61, "d", "1900-03-01"), (-1, "yyyy", "-1"), (1e300, "yyyy", "1e+300"), (0.1 + 0.2, "0", "0.3"),
        (1e15, "0", "1e+15"),
    ],
)  # fmt: skip
def test_a_format_tells_a_date_from_a_number(value: float, format: str, text: str) -> None:
    assert shown_number(value, look_of(format)) == text


def test_days_may_be_counted_from_1904(tmp_path: Path) -> None:
    styles = '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs>'
    sheet = '<row r="1"><c r="A1" s="1"><v>0</v></c></row>'
    (document,), _ = read(xlsx(tmp_path / "a.xlsx", sheet, styles=styles, book='<workbookPr date1904="1"/>'))
    assert document.text == "Data\n\n1904-01-01"


def long(path: Path, rows: int) -> Path:
    """A sheet of five columns."""
    head = '<row r="1">' + "".join(f'<c t="inlineStr"><is><t>name{at}</t></is></c>' for at in range(5)) + "</row>"
    lines = (f'<row r="{at}">' + f"<c><v>{at}.25</v></c>" * 5 + "</row>" for at in range(2, rows + 2))
    return xlsx(path / f"{rows}.xlsx", head + "".join(lines))


def test_a_long_sheet_is_read_in_the_memory_of_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.core.readers.office.xlsx.DOCUMENT", 20_000)
    peaks = []
    for path in (long(tmp_path, 800), long(tmp_path, 3_200)):
        tracemalloc.start()
        report = ReadReport()
        documents = sum(1 for _ in read_file(path, path.name, report))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert documents > 6 and report.parts["rows"] == 3_201
    assert peaks[1] < 1.2 * peaks[0] and peaks[1] < 4_000_000, peaks


@pytest.mark.slow
def test_a_hundred_thousand_cells_are_read(tmp_path: Path) -> None:
    found, report = read(long(tmp_path, 20_000))
    assert report.parts["rows"] == 20_001 and not report.skipped
    assert [one.id for one in found][:2] == ["20000.xlsx#Data", f"20000.xlsx#Data!{found[1].metadata['first_row']}"]
    assert sum(one.text.count("name4: ") for one in found) == 20_000


def test_the_parts_of_a_long_sheet_hold_every_row_once(tmp_path: Path) -> None:
    rows = "".join(
        f'<row r="{at}"><c t="inlineStr"><is><t>{f"row{at} " * 40}</t></is></c></row>' for at in range(1, 2001)
    )
    found, _ = read(xlsx(tmp_path / "a.xlsx", rows))
    assert len(found) == 3
    lines = [line for one in found for line in one.text.split("\n") if line.startswith("row")]
    assert [line.split()[0] for line in lines] == [f"row{at}" for at in range(1, 2001)]
    for one in found:
        assert f"row{one.metadata['first_row']} " in one.text.split("\n")[1] + one.text.split("\n")[2]

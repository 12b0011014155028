"""Office files that were made to do harm: each is named with the reason, costs little, and the next file is read."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_world import R, S, W, docx, package, read, relations, xlsx

from windlass.core.readers import Folder, ReadReport
from windlass.core.readers.office.xml_events import DamagedXml, events
from windlass.core.readers.unpacking import Bomb

LAUGHS = "<!DOCTYPE x [" + '<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi")
) + "]>"  # fmt: skip
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def document(path: Path, head: str, text: str) -> Path:
    body = f"{head}<w:document {W}><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    return package(path, {"word/document.xml": body}, "word/document.xml")


def lying(path: Path) -> Path:
    """An archive that says that its part is small."""
    file = docx(path, "<w:p><w:r><w:t>" + "x" * 100_000 + "</w:t></w:r></w:p>")
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo("word/document.xml").file_size
    file.write_bytes(bytes(data).replace(size.to_bytes(4, "little"), (50).to_bytes(4, "little")))
    return file


def styles_without_end(path: Path) -> Path:
    return docx(path, "<w:p><w:r><w:t>text</w:t></w:r></w:p>", styles=" " * 3_000_000)


def padded(path: Path) -> Path:
    """A bomb beside a picture that makes the archive large."""
    file = docx(path, f"<w:p><w:r><w:t>{'x' * 3_000_000}</w:t></w:r></w:p>")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("word/media/noise.png", random.Random(0).randbytes(300_000))
    return file


HOSTILE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "billion laughs": (lambda path: document(path, LAUGHS, "&i;"), "damaged", "document type"),
    "a file by an entity": (lambda path: document(path, OUTSIDE, "&a;"), "damaged", "document type"),
    "a bomb": (
        lambda path: docx(path, f"<w:p><w:r><w:t>{'x' * 3_000_000}</w:t></w:r></w:p>"),
        "too large",
        "unpacks to more than",
    ),
    "a bomb beside a picture": (padded, "too large", "unpacks to more than"),
    "a bomb of styles": (styles_without_end, "too large", "unpacks to more than"),
    "a size that lies": (lying, "damaged", ""),
    "deep elements": (lambda path: docx(path, "<w:sdt>" * 5000 + "</w:sdt>" * 5000), "too large", "nested"),
    "broken xml": (lambda path: docx(path, "<w:p>"), "damaged", "broken XML"),
    "no main part": (lambda path: package(path, {}, "word/none.xml"), "damaged", "no main part"),
    "no archive": (lambda path: path.write_bytes(b"PK nonsense"), "damaged", "zip"),
    "empty": (lambda path: path.write_bytes(b""), "damaged", "zip"),
    "of Office 97": (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" * 200), "not Office Open XML", "encrypted"),
    "cut": (lambda path: path.write_bytes(docx(path, "x" * 5000).read_bytes()[:400]), "damaged", ""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_named_and_the_next_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr("windlass.core.readers.office.package.ALWAYS", 2_000_000)
    make, reason, detail = HOSTILE[what]
    make(tmp_path / "bad.docx")
    docx(tmp_path / "good.docx", "<w:p><w:r><w:t>Good</w:t></w:r></w:p>")
    report = ReadReport()
    found = {one.id: one.text for one in Folder(tmp_path).documents(report)}
    assert found == {"good.docx": "Good"}
    assert [note.reason for note in report.skipped] == [reason]
    assert any(word in report.skipped[0].detail for word in detail.split("|")), report.skipped


def test_a_document_type_is_refused_before_anything_of_it_is_read() -> None:
    for head in (LAUGHS, OUTSIDE, '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">', "<!DOCTYPE x>"):
        with pytest.raises(DamagedXml, match="document type"):
            list(events(io.BytesIO(f"{head}<x>&i;</x>".encode())))
    with pytest.raises(Bomb, match="nested"):
        list(events(io.BytesIO(b"<x>" * 100_000)))


def test_a_cell_far_to_the_right_and_a_text_shown_very_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = "".join(f'<row r="{at}"><c r="XFD{at}"><v>1</v></c></row>' for at in range(1, 501))
    (one,), _ = read(xlsx(tmp_path / "wide.xlsx", wide))
    assert one.text.count("\n") >= 500
    found, report = read(xlsx(tmp_path / "far.xlsx", '<row r="1"><c r="XFE1"><v>1</v></c></row>'))
    assert not found and report.skips["damaged"] == 1
    shared = f"<si><t>{'x' * 10_000}</t></si>"
    often = '<row r="1">' + '<c t="s"><v>0</v></c>' * 3_000 + "</row>" + '<row r="2"><c><v>2</v></c></row>'
    (one,), report = read(xlsx(tmp_path / "often.xlsx", often, shared))
    assert one.text == "Data\n\n2" and report.skips == {"row too large": 1}
    monkeypatch.setattr("windlass.core.readers.office.package.ALWAYS", 2_000_000)
    rows = '<row><c t="s"><v>0</v></c></row>' * 1_000
    found, report = read(xlsx(tmp_path / "down.xlsx", rows, shared))
    assert report.skips == {"too large": 1} and sum(len(one.text) for one in found) < 3_000_000


@pytest.mark.parametrize(
    "cell",
    ['<c t="s"><v>7</v></c>', '<c t="s"><v>x</v></c>', "<c><v>twelve</v></c>", '<c r="?"><v>1</v></c>', '<c t="s"/>'],
)
def test_cells_that_refer_to_nothing_are_named(tmp_path: Path, cell: str) -> None:
    found, report = read(xlsx(tmp_path / "a.xlsx", f'<row r="1">{cell}</row>'))
    assert not found and report.skips == {"damaged": 1}


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_no_broken_byte_breaks_the_reading(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    shared = "<si><t>text</t></si>"
    path = xlsx(folder / "a.xlsx", '<row r="1"><c t="s"><v>0</v></c><c><v>2</v></c></row>', shared)
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at] = byte
    path.write_bytes(data[:at] if cut else data)
    found, report = read(path)
    assert found or report.skipped


def test_sheets_that_are_not_there_are_named(tmp_path: Path) -> None:
    book = (
        f'<workbook {S} {R}><sheets><sheet name="A" r:id="a"/><sheet name="B" r:id="chartsheet"/></sheets></workbook>'
    )
    links = relations(worksheet="w.xml", chartsheet="c.xml")
    parts = {"xl/workbook.xml": book, "xl/_rels/workbook.xml.rels": links, "xl/c.xml": "<x/>"}
    found, report = read(package(tmp_path / "a.xlsx", parts, "xl/workbook.xml"))
    assert not found
    assert report.skips == {"sheet damaged": 1, "sheet without cells": 1, "empty": 1}

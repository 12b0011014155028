"""Office files made by hand: parts as XML, for what the field's libraries do not write."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from windlass.core.documents import Document
from windlass.core.readers import ReadReport
from windlass.core.readers.reading import read_file

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
R = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
_TYPE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'


def relations(**targets: str) -> str:
    """A part of relations: id and kind are one word."""
    rows = (f'<Relationship Id="{kind}" Type="{_TYPE}/{kind}" Target="{at}"/>' for kind, at in targets.items())
    return _RELATIONS.format("".join(rows))


def package(path: Path, parts: Mapping[str, str | bytes], main: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_rels/.rels", relations(officeDocument=main))
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def docx(path: Path, body: str, **parts: str) -> Path:
    """A Word file of a body; `styles`, `numbering`, `footnotes`, ... are the insides of those parts."""
    insides = {f"word/{name}.xml": f"<w:{name} {W}>{inside}</w:{name}>" for name, inside in parts.items()}
    links = {"word/_rels/document.xml.rels": relations(**{name: f"{name}.xml" for name in parts})}
    document = f"<w:document {W} {R}><w:body>{body}</w:body></w:document>"
    return package(path, {"word/document.xml": document, **links, **insides}, "word/document.xml")


def xlsx(path: Path, sheet: str, shared: str = "", styles: str = "", book: str = "") -> Path:
    """An Excel file of one sheet called Data; the arguments are the insides of its parts."""
    parts = {
        "xl/workbook.xml": f'<workbook {S} {R}>{book}<sheets><sheet name="Data" sheetId="1" r:id="worksheet"/></sheets>'
        "</workbook>",
        "xl/_rels/workbook.xml.rels": relations(
            worksheet="worksheets/sheet1.xml", sharedStrings="sharedStrings.xml", styles="styles.xml"
        ),
        "xl/worksheets/sheet1.xml": f"<worksheet {S}><sheetData>{sheet}</sheetData></worksheet>",
        "xl/sharedStrings.xml": f"<sst {S}>{shared}</sst>",
        "xl/styles.xml": f"<styleSheet {S}>{styles}</styleSheet>",
    }
    return package(path, parts, "xl/workbook.xml")


def read(path: Path, **how: int) -> tuple[list[Document], ReadReport]:
    report = ReadReport()
    return list(read_file(path, path.name, report, **how)), report  # type: ignore[arg-type]

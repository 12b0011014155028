"""Office Open XML: what Word, PowerPoint and Excel write, each with a reader of its own for what their parts say."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from windlass.core.documents import Document
from windlass.core.readers.office.docx import read_docx
from windlass.core.readers.office.package import Package
from windlass.core.readers.office.pptx import read_pptx
from windlass.core.readers.office.xlsx import read_xlsx
from windlass.core.readers.report import ReadReport
from windlass.core.readers.unpacking import UNPACKING_ERRORS, reason

_READERS: Mapping[str, Callable[[Package, str, str, ReadReport], Iterator[Document]]] = {
    ".docx": read_docx,
    ".pptx": read_pptx,
    ".xlsx": read_xlsx,
}

_OLE = b"\xd0\xcf\x11\xe0"
"""Begins the binary files of Office before 2007, and the wrapping around a file with a password."""

_BROKEN = (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, RuntimeError)
"""What reading a damaged archive may raise besides `UNPACKING_ERRORS`; `zipfile` says of a password RuntimeError."""


def read_office(file: Path, name: str, suffix: str, report: ReadReport) -> Iterator[Document]:
    """The documents of a .docx, .pptx or .xlsx file; a damaged one gives those that came before the damage."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) == _OLE:
                why = "encrypted, or of Office before 2007: save it as a new file without a password"
                report.skip(name, "not Office Open XML", why)
                return
            with zipfile.ZipFile(stream) as archive:
                package = Package(archive)
                main = package.related("", "officeDocument")
                if main is None:
                    report.skip(name, "damaged", "it names no main part")
                    return
                yield from _READERS[suffix](package, main, name, report)
                drawn = (("pictures", package.count("/media/")), ("charts", package.count("/charts/chart")))
                if any(count for _, count in drawn):
                    shown = ", ".join(f"{count:,} {kind}" for kind, count in drawn if count)
                    report.mend(name, "pictures and charts left out", shown)
    except UNPACKING_ERRORS as error:
        report.skip(name, *reason(error))
    except _BROKEN as error:
        report.skip(name, "damaged", str(error).partition("\n")[0] or type(error).__name__)

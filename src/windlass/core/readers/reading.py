"""From one file to its documents: what it is called says who reads it. Nothing is passed over in silence."""

from __future__ import annotations

import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath

from windlass.core.documents import Document, DocumentFormat
from windlass.core.errors import MissingExtra
from windlass.core.readers.extracting import extracted
from windlass.core.readers.formats import DOCUMENTS, format_of
from windlass.core.readers.report import ReadReport
from windlass.core.readers.row_documents import RowFields, row_documents
from windlass.core.readers.rows import is_rows, read_rows
from windlass.core.readers.text import NotText, decode
from windlass.core.readers.unpacking import UNPACKING_ERRORS, opened, reason, unpacked_name

MAX_BYTES = 20_000_000
"""Larger pages and rows are skipped: none that a person wrote is that long, and reading one would take its size in
memory. A file of rows or a mailbox may have any size."""

PICTURES = 10
"""A PDF or an Office file may be so many times as large: most of it is pictures, which are not read."""

_NESTED = 4
"""A letter in a letter in a letter is read; a chain without end is not."""

_HTML_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,40})""", re.IGNORECASE)
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]{2,40})", re.MULTILINE)  # PEP 263


def is_readable(name: str) -> bool:
    """Whether a file of that name is of a type that windlass reads."""
    return format_of(unpacked_name(name)) is not None or _holds_rows(name) or _suffix(name) in DOCUMENTS


def _holds_rows(name: str) -> bool:
    return is_rows(name) or _suffix(name) == ".json"


def read_file(
    file: Path,
    name: str,
    report: ReadReport,
    *,
    max_bytes: int = MAX_BYTES,
    fields: RowFields | None = None,
    depth: int = 0,
) -> Iterator[Document]:
    """The documents of one file: one page; for Python its source and its docstrings; one for each row or message.

    `name` is its source, what it is called on disk tells its format; `depth` says in how many others it was enclosed.
    Raises `MissingExtra` when a package that the format needs is not installed.
    """
    fields = fields or RowFields()
    called = file.name
    if not is_readable(called):
        report.skip(name, "of a type that windlass does not read", file.suffix or "no suffix")
        return
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for ever
            report.skip(name, "not a regular file")
            return
    except OSError as error:
        report.skip(name, *reason(error))
        return
    format = format_of(unpacked_name(called))
    if _holds_rows(called):
        rows = read_rows(file, name, report, max_bytes=max_bytes, columns=fields.columns)
        yield from row_documents(rows, name, fields, report)
    elif format is not None:
        text = _page(file, name, format, report, max_bytes)
        if text:
            path = unpacked_name(name if PurePath(name).suffix == file.suffix else called)
            yield from extracted(text, name, format, report, path)
    elif _suffix(called) in (".eml", ".mbox"):
        yield from _mail(file, name, report, max_bytes, fields, depth)
    else:
        yield from _document(file, name, report, max_bytes)


def _suffix(name: str) -> str:
    return PurePath(unpacked_name(name)).suffix.lower()


def _document(file: Path, name: str, report: ReadReport, max_bytes: int) -> Iterator[Document]:
    """The documents of a PDF or an Office file."""
    with _whole(file, name, report, PICTURES * max_bytes) as whole:
        if whole is None:
            return
        report.files += 1
        report.bytes += file.stat().st_size
        suffix = _suffix(file.name)
        if suffix == ".pdf":
            from windlass.core.readers.pdf import read_pdf

            yield from read_pdf(whole, name, report)
        else:
            from windlass.core.readers.office.office import read_office

            yield from read_office(whole, name, suffix, report)


def _mail(
    file: Path, name: str, report: ReadReport, max_bytes: int, fields: RowFields, depth: int
) -> Iterator[Document]:
    from windlass.core.readers.mail import read_mail, read_mailbox

    def enclosed(data: bytes, source: str) -> Iterator[Document]:
        """What is attached to a letter, by the same readers."""
        if depth + 1 >= _NESTED:
            report.skip(source, "enclosed too deep", f"in {_NESTED} others; save it as a file of its own")
            return
        with tempfile.TemporaryDirectory(prefix="windlass-") as folder:
            path = Path(folder, f"enclosed{PurePath(unpacked_name(source)).suffix}{_packing(source)}")
            path.write_bytes(data)
            try:
                yield from read_file(path, source, report, max_bytes=max_bytes, fields=fields, depth=depth + 1)
            except MissingExtra as error:
                report.lacks(source, error)

    read = read_mail if _suffix(file.name) == ".eml" else read_mailbox
    try:
        size = file.stat().st_size
        with opened(file) as stream:
            report.files += 1
            report.bytes += size
            yield from read(stream, name, report, max_bytes, enclosed)
    except UNPACKING_ERRORS as error:
        report.skip(name, *reason(error))


def _packing(name: str) -> str:
    """`.gz` of a packed file, else nothing."""
    return name[len(unpacked_name(name)) :]


@contextmanager
def _whole(file: Path, name: str, report: ReadReport, limit: int) -> Iterator[Path | None]:
    """Where the file lies unpacked while the block runs, or None when it was skipped."""
    with ExitStack() as stack:
        path: Path | None = file
        try:
            size = file.stat().st_size
            with opened(file) as stream:
                if _packing(file.name):
                    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="windlass-")), "unpacked")
                    size = 0
                    with path.open("wb") as copy:
                        while size <= limit and (block := stream.read(1 << 20)):
                            size += copy.write(block)
            if size > limit:
                report.skip(name, "too large", f"{size / 1e6:,.0f} MB, the limit is {limit / 1e6:,.0f}")
                path = None
        except UNPACKING_ERRORS as error:
            report.skip(name, *reason(error))
            path = None
        yield path


def _page(file: Path, name: str, format: DocumentFormat, report: ReadReport, max_bytes: int) -> str:
    """The text of a file that is one document; '' when it was skipped."""
    try:
        size = file.stat().st_size
        with opened(file) as stream:
            if _packing(file.name):
                data = stream.read(max_bytes + 1)
                size = max(size, len(data))
            elif size <= max_bytes:
                data = stream.read(size + 1)  # not more: the buffer is made in that size
                if len(data) > size:
                    report.skip(name, "cannot be read", "it grew meanwhile")
                    return ""
    except UNPACKING_ERRORS as error:
        report.skip(name, *reason(error))
        return ""
    if size > max_bytes:
        shown = f"{size / 1e6:,.0f} MB" if not _packing(file.name) else "unpacked"
        report.skip(name, "too large", f"{shown}, the limit is {max_bytes / 1e6:,.0f}")
        return ""
    try:
        text, note = decode(data, _declared(data, format))
    except NotText as error:
        report.skip(name, "not text", str(error))
        return ""
    report.files += 1
    report.bytes += len(data)
    if note:
        report.mend(name, note)
    if not text.strip():
        report.skip(name, "empty")
        return ""
    return text


def _declared(data: bytes, format: DocumentFormat) -> str | None:
    if format == "html":
        match = _HTML_CHARSET.search(data[:2048])
    elif format == "python":
        match = _CODING.search(b"\n".join(data[:2048].split(b"\n")[:2]))
    else:
        return None
    return match[1].decode("ascii", "replace") if match else None

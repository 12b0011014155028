"""A folder, or one file of it: pages, programs and files of rows, packed or not. Nothing is passed over in silence."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from windlass.core.documents import Document, DocumentFormat
from windlass.core.errors import InputError, MissingExtra
from windlass.core.readers.extracting import extracted
from windlass.core.readers.formats import PAGES, PROGRAMS, format_of
from windlass.core.readers.report import ReadReport
from windlass.core.readers.row_documents import RowFields, row_documents
from windlass.core.readers.rows import ROW_FORMATS, is_rows, read_rows
from windlass.core.readers.text import NotText, decode
from windlass.core.readers.unpacking import UNPACKING_ERRORS, opened, reason, unpacked_name

MAX_BYTES = 20_000_000
"""Larger pages and rows are skipped: none that a person wrote is that long, and reading one would take its size in
memory. A file of rows may have any size."""

_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "CVS"})
_HTML_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,40})""", re.IGNORECASE)
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]{2,40})", re.MULTILINE)  # PEP 263


@dataclass(frozen=True, slots=True)
class Folder:
    """A `Source` over a folder in the order of its paths, or over one file.

    Pages and rows over `max_bytes` are skipped unread. `fields` says which fields of a row make a document.
    """

    path: Path
    max_bytes: int = MAX_BYTES
    fields: RowFields = field(default_factory=RowFields)

    @property
    def name(self) -> str:
        what = "file" if self.path.is_file() else "folder"
        return f"the {what} {_printable(self.path.resolve().name) or '/'}"

    @property
    def licence(self) -> str:
        return "unknown: that of the files themselves"

    def documents(self, report: ReadReport) -> Iterator[Document]:
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist.", "Name a file or a folder of documents.")
        missing: MissingExtra | None = None
        before = report.documents
        for file, name in _walk(self.path, report):
            name = name or _printable(file.name)
            try:
                for document in read_file(file, name, report, max_bytes=self.max_bytes, fields=self.fields):
                    report.documents += 1
                    yield document
            except MissingExtra as error:
                missing = error
                report.skip(name, "needs an extra that is not installed", error.hint)
        if report.documents == before:
            if missing is not None:
                raise missing
            raise self._nothing(report)

    def _nothing(self, report: ReadReport) -> InputError:
        found = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons().items())
        example = f" First: {report.skipped[0]}." if report.skipped else ""
        return InputError(
            f"There is nothing to read in {self.path}: " + (f"skipped {found}.{example}" if found else "it is empty."),
            f"windlass reads pages ({' '.join(PAGES)}), programs in {len(set(PROGRAMS.values()))} languages, and rows "
            f"({' '.join(ROW_FORMATS)}) whose field '{self.fields.text}' holds the text (name another if need be); "
            f"each of at most {self.max_bytes / 1e6:,.0f} MB, packed as .gz or .zst or not.",
        )


def read_folder(folder: Path, *, max_bytes: int = MAX_BYTES) -> tuple[list[Document], ReadReport]:
    """All documents of a folder, and what was read and skipped. Raises `InputError` when there are none."""
    report = ReadReport()
    return list(Folder(folder, max_bytes).documents(report)), report


def read_file(
    file: Path, name: str, report: ReadReport, *, max_bytes: int = MAX_BYTES, fields: RowFields | None = None
) -> Iterator[Document]:
    """The documents of one file: one page; for Python its source and its docstrings; or one for each row.

    `name` is its source. Raises `MissingExtra` when a package that the format needs is not installed.
    """
    fields = fields or RowFields()
    format = format_of(unpacked_name(name))
    if format is None and not is_rows(name):
        report.skip(name, "of a type that windlass does not read", file.suffix or "no suffix")
        return
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for ever
            report.skip(name, "not a regular file")
            return
    except OSError as error:
        report.skip(name, *reason(error))
        return
    if format is None:
        rows = read_rows(file, name, report, max_bytes=max_bytes, columns=fields.columns)
        yield from row_documents(rows, name, fields, report)
        return
    text = _page(file, name, format, report, max_bytes)
    if text:
        yield from extracted(text, name, format, report, unpacked_name(name))


def _page(file: Path, name: str, format: DocumentFormat, report: ReadReport, max_bytes: int) -> str:
    """The text of a file that is one document; '' when it was skipped."""
    try:
        size = file.stat().st_size
        with opened(file) as stream:
            if unpacked_name(name) != name:
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
        shown = f"{size / 1e6:,.0f} MB" if unpacked_name(name) == name else "unpacked"
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


def _walk(root: Path, report: ReadReport) -> Iterator[tuple[Path, str]]:
    """Files under `root` with their names, in path order; what hangs on symbolic links comes last.

    Each folder and file is visited once, whatever links lead to it: real places first, so a loop ends at once.
    """
    seen: dict[tuple[int, int], str] = {}
    pending = [(root, "")]
    links: list[tuple[Path, str]] = []
    while pending or links:
        if not pending:
            links.sort(key=lambda link: link[1])
            pending.append(links.pop(0))
        path, name = pending.pop()
        try:
            status = path.stat()
            folder = stat.S_ISDIR(status.st_mode)
            key = (status.st_dev, status.st_ino)
            if key in seen and (folder or path.is_symlink()):
                report.skip(name, "a link to what is read already", seen[key])
                continue
            seen.setdefault(key, name or ".")
            if not folder:
                yield path, name
                continue
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            report.skip(name or ".", "cannot be read", error.strerror or type(error).__name__)
            continue
        for entry in reversed(entries):  # the last one pushed is the next one read
            shown = f"{name}/{_printable(entry.name)}" if name else _printable(entry.name)
            if entry.name.startswith("."):
                report.skip(shown, "hidden")
            elif entry.name in _FOREIGN_FOLDERS and entry.is_dir():
                report.skip(shown, "not of this project")
            elif os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
                report.skip(shown, "not of this project", "a virtual environment")
            elif entry.is_symlink():
                links.append((Path(entry.path), shown))
            else:
                pending.append((Path(entry.path), shown))


def _printable(name: str) -> str:
    """A file name that is valid Unicode: names on disk are bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")

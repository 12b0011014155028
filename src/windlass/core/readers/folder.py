"""A folder, or one file of it: pages, programs, documents, letters and files of rows, packed or not.

Nothing is passed over in silence.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from windlass.core.documents import Document
from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import sha256_json
from windlass.core.readers.formats import DOCUMENTS, PAGES, PROGRAMS
from windlass.core.readers.reading import MAX_BYTES, is_readable, read_file
from windlass.core.readers.report import UNREACHED, ReadReport, SourceFile
from windlass.core.readers.row_documents import RowFields
from windlass.core.readers.rows import ROW_FORMATS

READING = 1
"""Raised whenever the readers make other documents of the same files: then all files count as changed."""

_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "CVS"})


@dataclass(frozen=True, slots=True)
class Folder:
    """A `FileSource` over a folder in the order of its paths, or over one file.

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
        before = report.documents
        for file in self.files(report):
            yield from file.documents(report)
        if report.documents == before:
            raise report.missing or self._nothing(report)

    def files(self, report: ReadReport, stamps: Mapping[str, str] | None = None) -> Iterator[SourceFile]:
        """The files of a type that windlass reads; the report names all others. Opens none of them.

        A stamp is made of size, times and inode, as Git's index has them: a file that is written twice within one tick
        of the clock (milliseconds), with the same number of bytes and looked at in between, is the one that is missed.
        """
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist.", "Name a file or a folder of documents.")
        setup = sha256_json([READING, self.max_bytes, repr(self.fields)])[:8]
        for path, name, status in _walk(self.path, report):
            name = name or _printable(path.name)
            if is_readable(name):
                times = f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
                stamp = f"{setup}-{status.st_size:x}-{times}-{status.st_ino:x}"
                yield SourceFile(name, stamp, partial(self._read, path, name))
            else:
                report.skip(name, "of a type that windlass does not read", path.suffix or "no suffix")

    def _read(self, path: Path, name: str, report: ReadReport) -> Iterator[Document]:
        try:
            for document in read_file(path, name, report, max_bytes=self.max_bytes, fields=self.fields):
                report.documents += 1
                yield document
        except MissingExtra as error:
            report.lacks(name, error)

    def _nothing(self, report: ReadReport) -> InputError:
        found = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons().items())
        example = f" First: {report.skipped[0]}." if report.skipped else ""
        return InputError(
            f"There is nothing to read in {self.path}: " + (f"skipped {found}.{example}" if found else "it is empty."),
            f"windlass reads pages ({' '.join(PAGES)}), programs in {len(set(PROGRAMS.values()))} languages, documents "
            f"({' '.join(DOCUMENTS)}), and rows ({' '.join(ROW_FORMATS)} .json) whose field "
            f"'{self.fields.text or 'text'}' holds the text (name another if need be); "
            f"pages and rows of at most {self.max_bytes / 1e6:,.0f} MB, packed as .gz or .zst or not.",
        )


def read_folder(folder: Path, *, max_bytes: int = MAX_BYTES) -> tuple[list[Document], ReadReport]:
    """All documents of a folder, and what was read and skipped. Raises `InputError` when there are none."""
    report = ReadReport()
    return list(Folder(folder, max_bytes).documents(report)), report


def _walk(root: Path, report: ReadReport) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Files under `root` with their names and what the disk says of them, in path order.

    Each folder and file is visited once, whatever links lead to it. What hangs on symbolic links comes last: with real
    places first a loop ends at once.
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
                yield path, name, status
                continue
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            report.skip(name or ".", UNREACHED, error.strerror or type(error).__name__)
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

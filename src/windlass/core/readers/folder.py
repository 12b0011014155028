"""A folder of Markdown, text, reST, HTML and Python files as documents. No file is passed over in silence."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.core.documents import Document, DocumentFormat, Section
from windlass.core.errors import InputError
from windlass.core.readers.headings import markdown_sections, rst_sections, split_front_matter
from windlass.core.readers.html import read_html
from windlass.core.readers.python_source import docstring_document, documented, parse, source_document
from windlass.core.readers.report import ReadReport
from windlass.core.readers.text import NotText, canonical, decode

MAX_BYTES = 20_000_000
"""Larger files are skipped: no page a person wrote is that long, and reading one would take its size in memory."""

FORMATS: dict[str, DocumentFormat] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".py": "python",
    ".pyi": "python",
}
_BARE_NAMES = frozenset(
    {"README", "LICENSE", "COPYING", "NEWS", "CHANGES", "CHANGELOG", "AUTHORS", "INSTALL", "NOTICE"}
)
_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "CVS"})
_HEADER_TITLE = re.compile(r"(?:[\w-]+:[ \t]\S.*\n){0,5}Title:[ \t]+(\S.*)", re.IGNORECASE)
_HTML_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,40})""", re.IGNORECASE)
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]{2,40})", re.MULTILINE)  # PEP 263


@dataclass(frozen=True, slots=True)
class Folder:
    """A `Source` over a folder, in the order of its paths. Files over `max_bytes` are skipped unread."""

    path: Path
    max_bytes: int = MAX_BYTES

    @property
    def name(self) -> str:
        return f"the folder {self.path.resolve().name or '/'}"

    @property
    def licence(self) -> str:
        return "unknown: that of the files in the folder"

    def documents(self, report: ReadReport) -> Iterator[Document]:
        if not self.path.is_dir():
            what = "is a file, not a folder" if self.path.exists() else "does not exist"
            raise InputError(f"{self.path} {what}.", "Name a folder of Markdown, text, reST, HTML or Python files.")
        for file, name in _walk(self.path, report):
            for document in read_file(file, name, report, max_bytes=self.max_bytes):
                report.documents += 1
                yield document
        if not report.documents:
            found = ", ".join(f"{count} {reason}" for reason, count in report.reasons().items())
            raise InputError(
                f"There is nothing to read in {self.path}" + (f": skipped {found}." if found else ": it is empty."),
                f"windlass reads {', '.join(FORMATS)} files of at most {self.max_bytes / 1e6:,.0f} MB.",
            )


def read_folder(folder: Path, *, max_bytes: int = MAX_BYTES) -> tuple[list[Document], ReadReport]:
    """All documents of a folder, and what was read and skipped. Raises `InputError` when there are none."""
    report = ReadReport()
    return list(Folder(folder, max_bytes).documents(report)), report


def read_file(file: Path, name: str, report: ReadReport, *, max_bytes: int = MAX_BYTES) -> list[Document]:
    """The documents of one file: one page; or for Python its source and its docstrings. `name` is its source."""
    format = FORMATS.get(file.suffix.lower()) or ("text" if file.name in _BARE_NAMES else None)
    if format is None:
        report.skip(name, "of a type that windlass does not read", file.suffix or "no suffix")
        return []
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            report.skip(name, "not a regular file")
            return []
        if status.st_size > max_bytes:
            report.skip(name, "too large", f"{status.st_size / 1e6:,.0f} MB, the limit is {max_bytes / 1e6:,.0f}")
            return []
        with file.open("rb") as stream:
            data = stream.read(status.st_size + 1)  # not more: the buffer is made in that size
    except OSError as error:
        report.skip(name, "cannot be read", error.strerror or type(error).__name__)
        return []
    if len(data) > status.st_size:
        report.skip(name, "cannot be read", "it grew meanwhile")
        return []
    try:
        text, note = decode(data, _declared(data, format))
    except NotText as error:
        report.skip(name, "not text", str(error))
        return []
    report.files += 1
    report.bytes += len(data)
    if note:
        report.mend(name, note)
    if not text.strip():
        report.skip(name, "empty")
        return []
    return _documents(text, name, format, report)


def _declared(data: bytes, format: DocumentFormat) -> str | None:
    if format == "html":
        match = _HTML_CHARSET.search(data[:2048])
    elif format == "python":
        match = _CODING.search(b"\n".join(data[:2048].split(b"\n")[:2]))
    else:
        return None
    return match[1].decode("ascii", "replace") if match else None


def _documents(text: str, name: str, format: DocumentFormat, report: ReadReport) -> list[Document]:
    if format == "python":
        return _python_documents(text, name, report)
    if format == "html":
        title, text, sections = read_html(text)
    else:
        text = canonical(text)
        title = ""
        if format == "markdown":
            title, text = split_front_matter(text)
            text = canonical(text)
        sections = markdown_sections(text) if format == "markdown" else rst_sections(text)
    if not text:
        report.skip(name, "empty", "no text besides its markup")
        return []
    title = title or _title(text, sections) or name.rpartition("/")[2].rpartition(".")[0] or name
    metadata = {"kind": "page", "module": "", "cluster": name}
    return [Document(name, name, title, text, format, tuple(sections), metadata)]


def _title(text: str, sections: Sequence[Section]) -> str:
    """The title that a header line names, or the first heading if it opens the page or is alone on its level."""
    if match := _HEADER_TITLE.match(text):
        return match[1]
    if sections and (sections[0].start == 0 or sum(s.level == sections[0].level for s in sections) == 1):
        return sections[0].heading
    return ""


def _python_documents(text: str, name: str, report: ReadReport) -> list[Document]:
    text = canonical(text)
    if not text:
        report.skip(name, "empty")
        return []
    module = _module_name(name)
    try:
        tree = parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        report.mend(name, "not valid Python: kept as text without sections", str(error).partition("\n")[0])
        return [source_document(text, None, name, module)]
    pages = [
        docstring_document(item, module, source=f"{name}#{item.qualname or module}", cluster=name)
        for item in documented(tree)
    ]
    return [source_document(text, tree, name, module), *pages]


def _module_name(name: str) -> str:
    parts = name.rpartition(".")[0].split("/")
    if parts[0] in ("src", "lib") and len(parts) > 1:
        parts = parts[1:]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


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

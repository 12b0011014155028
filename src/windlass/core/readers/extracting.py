"""From a text and its format to documents: canonical text, title, sections; for Python also its docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from windlass.core.documents import Document, DocumentFormat, Section
from windlass.core.readers.formats import programming_language
from windlass.core.readers.headings import markdown_sections, rst_sections, split_front_matter
from windlass.core.readers.html import read_html
from windlass.core.readers.python_source import docstring_document, documented, parse, source_document
from windlass.core.readers.report import ReadReport
from windlass.core.readers.text import canonical

_HEADER_TITLE = re.compile(r"(?:[\w-]+:[ \t]\S.*\n){0,5}Title:[ \t]+(\S.*)", re.IGNORECASE)


def extracted(text: str, name: str, format: DocumentFormat, report: ReadReport, path: str = "") -> Iterator[Document]:
    """The documents of one text; `name` is their source, `path` what the file is called that holds it alone."""
    if format == "python":
        yield from _python_documents(text, name, path or name, report)
        return
    if format == "html":
        title, text, sections = read_html(text)
    else:
        text = canonical(text)
        title = ""
        if format == "markdown":
            title, text = split_front_matter(text)
            text = canonical(text)
        sections = [] if format == "code" else _sections(text, format)
    if not text:
        report.skip(name, "empty", "no text besides its markup" if format != "text" else "")
        return
    metadata: dict[str, Any] = {"kind": "page", "module": "", "cluster": name}
    if format == "code":
        title = path or name
        metadata |= {"kind": "source", "programming_language": programming_language(path or name)}
    title = title or _title(text, sections) or path.rpartition("/")[2].rpartition(".")[0] or path or name
    yield Document(name, name, title, text, format, tuple(sections), metadata)


def _sections(text: str, format: DocumentFormat) -> list[Section]:
    return markdown_sections(text) if format == "markdown" else rst_sections(text)


def _title(text: str, sections: Sequence[Section]) -> str:
    """The title that a header line names, or the first heading if it opens the page or is alone on its level."""
    if match := _HEADER_TITLE.match(text):
        return match[1]
    if sections and (sections[0].start == 0 or sum(s.level == sections[0].level for s in sections) == 1):
        return sections[0].heading
    return ""


def _python_documents(text: str, name: str, path: str, report: ReadReport) -> Iterator[Document]:
    text = canonical(text)
    if not text:
        report.skip(name, "empty")
        return
    module = _module_name(path)
    try:
        tree = parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        report.mend(name, "not valid Python: kept as text without sections", str(error).partition("\n")[0])
        yield source_document(text, None, name, module)
        return
    yield source_document(text, tree, name, module)
    for item in documented(tree):
        yield docstring_document(item, module, source=f"{name}#{item.qualname or module}", cluster=name)


def _module_name(path: str) -> str:
    parts = path.rpartition(".")[0].split("/")
    if parts[0] in ("src", "lib") and len(parts) > 1:
        parts = parts[1:]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)

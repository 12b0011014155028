"""The readable text of an HTML page: headings, paragraphs, lists, tables and code; no navigation, no scripts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from windlass.core.documents import Section
from windlass.core.readers.text import canonical

_ALWAYS_DROPPED = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "select", "button"})
_FURNITURE = frozenset({"nav", "footer"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "div", "dl", "dt"}
    | {"fieldset", "figcaption", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li"}
    | {"main", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead"}
    | {"title", "tr", "ul"}
)
_SPACE = re.compile(r"\s+")


def read_html(text: str) -> tuple[str, str, list[Section]]:
    """Returns (title or '', canonical text, sections). A heading stands alone on its line."""
    parser = _Blocks(_ALWAYS_DROPPED | _FURNITURE)
    parser.read(text)
    if parser.dropping:  # a <nav> that is never closed must not swallow the page
        parser = _Blocks(_ALWAYS_DROPPED)
        parser.read(text)
    parts: list[str] = []
    sections: list[Section] = []
    length = 0
    tight = False
    for block, kind in parser.blocks:
        if not block:
            continue
        if parts:
            separator = "\n" if tight and kind in ("li", "tr") else "\n\n"
            parts.append(separator)
            length += len(separator)
        if kind[0] == "h":
            sections.append(Section(length, int(kind[1]), block))
        parts.append(block)
        length += len(block)
        tight = kind in ("li", "tr")
    return parser.title, "".join(parts), sections


class _Blocks(HTMLParser):
    """Collects (canonical text, kind) blocks, where kind is h1..h6, li, tr, pre or p."""

    def __init__(self, dropped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.dropped = dropped
        self.dropping: list[str] = []
        self.blocks: list[tuple[str, str]] = []
        self.title = ""
        self._kind = "p"
        self._pre = 0
        self._row: list[str] | None = None
        self._text: list[str] = []

    def read(self, text: str) -> None:
        self.feed(text)
        self.close()
        self._flush()
        self._end_row()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.dropped:
            self._flush()
            self.dropping.append(tag)
        if self.dropping:
            return
        if tag == "br" and (self._pre or self._kind[0] == "h"):
            self._text.append("\n" if self._pre else " ")
            return
        if tag in _BLOCKS:
            self._flush()
        if tag == "pre":
            self._pre += 1
            self._kind = "pre"
        elif (len(tag) == 2 and tag[0] == "h" and tag[1] in "123456") or tag in ("li", "title"):
            self._kind = tag
        elif tag == "tr":
            self._end_row()
            self._row = []

    def handle_endtag(self, tag: str) -> None:
        if self.dropping:
            if tag in self.dropping:
                while self.dropping.pop() != tag:
                    pass
            return
        if tag in _BLOCKS:
            self._flush()
        if tag == "pre":
            self._pre = max(self._pre - 1, 0)
        if tag in ("tr", "table"):
            self._end_row()

    def handle_data(self, data: str) -> None:
        if not self.dropping:
            self._text.append(data)

    def _flush(self) -> None:
        text, kind = "".join(self._text), self._kind
        self._text.clear()
        self._kind = "pre" if self._pre else "p"
        block = canonical(text) if self._pre else canonical(_SPACE.sub(" ", text)).strip()
        if kind == "title":
            self.title = self.title or block
        elif not block:
            if kind == "li":
                self._kind = "li"  # <li><p>text: the mark belongs to the text that follows
        elif self._row is not None:
            self._row.append(block)
        else:
            self.blocks.append((f"- {block}" if kind == "li" else block, kind))

    def _end_row(self) -> None:
        if self._row:
            self.blocks.append((" | ".join(self._row), "tr"))
        self._row = None

"""A text that is put together from paragraphs, headings and rows, with the offsets of what it is made of."""

from __future__ import annotations

import re

from windlass.core.documents import Section
from windlass.core.readers.text import canonical

_SPACE = re.compile(r"\s+")


class Blocks:
    """Canonical text that grows at its end; an offset that was given stays right."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.starts: list[int] = []
        """Where each page or slide begins."""
        self.length = 0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, text: str, *, tight: bool = False) -> int:
        """A paragraph, or (`tight`) a line right below the one before. Returns where it begins; nothing is added for
        a text without characters."""
        block = canonical(text).strip()
        if not block:
            return self._next(tight)
        start = self._next(tight)
        self._parts += ["\n" * (start - self.length), block]
        self.length = start + len(block)
        return start

    def heading(self, text: str, level: int) -> None:
        """A section that begins with a line of its own."""
        title = _SPACE.sub(" ", canonical(text)).strip()
        if title:
            self.sections.append(Section(self.add(title), level, title))

    def page(self) -> None:
        """What comes next stands on the next page, or slide. To be called before each of them, the first included."""
        self.starts.append(self._next(False))

    def _next(self, tight: bool) -> int:
        return self.length + (1 if tight else 2) if self.length else 0


def row_text(cells: list[str]) -> str:
    """Cells of a table as one line, as the readers of HTML write it."""
    return " | ".join(_SPACE.sub(" ", cell).strip() for cell in cells)

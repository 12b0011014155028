"""Changing a document's text without losing its sections and pages: each is rewritten by itself, then they are counted
anew.

So an offset never points into a text that is no longer there, whatever was done to what stands before it.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable

from windlass.core.documents import PLACES, Document, Section


def rewritten(document: Document, change: Callable[[int, str], str]) -> Document:
    """The document with `change(start, piece)` in the place of each piece between the starts of its sections and pages.

    Pieces come without the line ends behind them, which stay; what `change` returns must be canonical. A piece of which
    nothing is left goes with its section. The same document comes back when nothing changed.
    """
    paged = {key: starts for key in PLACES if (starts := document.metadata.get(key))}
    pages = {start for starts in paged.values() for start in starts if document.text[start : start + 1].strip("\n")}
    starts = sorted({0, *(section.start for section in document.sections), *pages})
    text = ""
    moved: list[int] = []
    left: set[int] = set()
    for start, end in zip(starts, [*starts[1:], len(document.text)]):
        body = document.text[start:end].rstrip("\n")
        moved.append(len(text))
        if new := change(start, body):
            left.add(start)
            text += new + document.text[start + len(body) : end]
    text = text.rstrip("\n")
    if text == document.text:
        return document

    def now(start: int) -> int:
        """Where what stood at `start`, or the next after it that was a piece, stands."""
        at = bisect_left(starts, start)
        return min(moved[at], len(text)) if at < len(moved) else len(text)

    sections = tuple(
        Section(now(section.start), section.level, section.heading)
        for section in document.sections
        if section.start in left
    )
    places = {key: [now(start) for start in starts] for key, starts in paged.items()}
    return dataclasses.replace(document, text=text, sections=sections, metadata={**document.metadata, **places})

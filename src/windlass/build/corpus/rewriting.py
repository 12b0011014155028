"""Changing a document's text without losing its sections: each is rewritten by itself, then they are counted anew.

So an offset never points into a text that is no longer there, whatever was done to what stands before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from windlass.core.documents import Document, Section


def rewritten(document: Document, change: Callable[[int, str], str]) -> Document:
    """The document with `change(start, piece)` in the place of each piece between the starts of its sections.

    Pieces come without the line ends behind them, which stay; what `change` returns must be canonical. A piece of which
    nothing is left goes with its section. The same document comes back when nothing changed.
    """
    starts = sorted({0, *(section.start for section in document.sections)})
    text = ""
    moved: dict[int, int] = {}
    for start, end in zip(starts, [*starts[1:], len(document.text)]):
        body = document.text[start:end].rstrip("\n")
        if new := change(start, body):
            moved[start] = len(text)
            text += new + document.text[start + len(body) : end]
    text = text.rstrip("\n")
    if text == document.text:
        return document
    sections = tuple(
        Section(moved[section.start], section.level, section.heading)
        for section in document.sections
        if section.start in moved
    )
    return dataclasses.replace(document, text=text, sections=sections)

"""Cuts along the structure of a text: where it may be cut, and at what price.

A section starts for free, a blank line is cheap, a sentence's end dearer, the middle of a line expensive: so headings,
paragraphs, lists, tables, code and one endless line need no rules of their own, and `cheapest` finds the best cut of
the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from windlass.apply.rag.chunking.cheapest import Place
from windlass.apply.rag.chunking.masks import Span, between
from windlass.apply.rag.chunking.settings import ChunkSettings
from windlass.apply.rag.chunking.tables import Tables
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.documents import Document

SECTION, BLOCK, ITEM, SENTENCE, CODE_LINE, CELL, LINE, WORD, ANYWHERE = 0.0, 0.1, 0.2, 0.35, 0.4, 0.6, 0.8, 1.2, 3.0

_BLANK = re.compile(r"\n(?:[ \t]*\n)+")
_ITEM_LINE = re.compile(r"(?<=\n)[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|\||#{1,6} )")
_TOP_LEVEL = {
    "python": re.compile(r"(?<=\n)(?:async def |def |class |@)"),
    "code": re.compile(r"(?<=\n\n)(?=[^\s)\]}])"),
}
"""Where a definition starts: in most languages, not indented below a blank line."""
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}|\t)[^\n]*(?:\n(?:[ \t]*\n)*|\Z))+", re.MULTILINE)
_GAP = re.compile(r"\s+")


def places(
    document: Document, sections: Sequence[int], tables: Tables, low: int, high: int, settings: ChunkSettings
) -> list[Place]:
    """All places inside `low:high` where the text may be cut, ascending, with both ends. `sections`: where they start.

    None is further from the next than half of the largest passage, but rows of tables, which may be a whole one."""
    text = document.text
    price: dict[int, float] = {}

    def offer(at: int, cost: float) -> None:
        if low < at < high:
            price[at] = min(cost, price.get(at, cost))

    code = [(low, high)] if document.format in _TOP_LEVEL else _code(text, low, high)
    for left, right in code:
        for match in re.finditer(r"\n", text[left:right]):
            offer(left + match.end(), CODE_LINE)
        offer(left, BLOCK)
        offer(right, BLOCK)
    for left, right in between(code, low, high):
        for match in re.finditer(r"\n", text[left:right]):
            offer(left + match.end(), LINE)
        for _, end in sentence_spans(text, left, right):
            offer(end, SENTENCE)
    code_starts = [left for left, _ in code]
    for match in _BLANK.finditer(text, low, high):
        i = bisect_right(code_starts, match.start() - 1) - 1
        offer(match.end(), ITEM if i >= 0 and match.end() < code[i][1] else BLOCK)
    for match in _ITEM_LINE.finditer(text, low, high):
        offer(match.start(), ITEM)
    if document.format in _TOP_LEVEL:
        for match in _TOP_LEVEL[document.format].finditer(text, low, high):
            offer(match.start(), BLOCK / 2)
    within = {at for at in sections if low < at < high}
    for at in within:
        price[at] = SECTION
    for at in [at for at in price if tables.at(at) is not None]:
        del price[at]
    for table in tables.all:
        for at in table.rows[1:]:  # never between the header and the first row
            offer(at, ITEM)
    for left, right in pairwise([low, *sorted(price), high]):
        in_table = tables.at(right - 1) is not None
        if in_table and right - left > settings.limit:
            _cut_row(text, left, right, offer)
        elif not in_table and right - left > settings.limit // 2:
            _cut_inside(text, left, right, settings, price)
    for left, right in pairwise([low, *sorted(price), high]):
        if right - left > settings.limit:  # cells longer than a passage
            _cut_inside(text, left, right, settings, price)
    ordered = [Place(at, price[at], at in within, tables.header_above(at)) for at in sorted(price)]
    return [Place(low, 0.0), *ordered, Place(high, 0.0)]


def _cut_row(text: str, left: int, right: int, offer: Callable[[int, float], None]) -> None:
    for match in re.finditer(r"\|", text[left:right]):
        offer(left + match.start(), CELL)


def _cut_inside(text: str, left: int, right: int, settings: ChunkSettings, price: dict[int, float]) -> None:
    """Adds gaps between words, and where even a word is too long, places inside it."""
    step = settings.limit // 8 + 1
    gaps = [left, *(match.end() for match in _GAP.finditer(text, left, right) if match.end() < right), right]
    last = left
    for a, b in pairwise(gaps):
        if a - last >= settings.limit // 32:  # close enough to cut well, few enough to stay fast
            price.setdefault(a, WORD)
            last = a
        for at in range(a + step, b, step) if b - a > settings.limit // 2 else ():
            price.setdefault(at, ANYWHERE)


def _code(text: str, low: int, high: int) -> list[Span]:
    """Fenced and indented blocks."""
    fenced = [m.span() for m in _FENCE.finditer(text, low, high)]
    indented = [
        m.span()
        for left, right in between(fenced, low, high)
        for m in _INDENTED.finditer(text, left, right)
        if m.end() > m.start()
    ]
    return sorted(fenced + indented)

"""From documents to passages: verbatim spans that follow the structure of the text, none lost, none twice.

Every place where a text may be cut has a price: a section starts for free, a blank line is cheap, a sentence's end
dearer, the middle of a line expensive. Passages far from the target size cost too, and so does a passage that reaches
across a heading. The cheapest way to cut the whole document is found by dynamic programming over those places, so
headings, paragraphs, lists, code and one endless line need no rules of their own.

What is embedded and searched is the passage below its context, `title > heading` (see `embedding_text`): a passage
cut from the middle of a page still says what it is about.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from windlass.apply.rag.sentences import sentence_spans, trimmed
from windlass.core.documents import Document
from windlass.core.errors import InputError

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """Sizes are characters. `pieces` bounds the estimated word pieces, context included: MiniLM reads 256."""

    target: int = 550
    limit: int = 800
    pieces: int = 225
    context: int = 120
    """Longest context put above a passage for search."""

    def __post_init__(self) -> None:
        if not 0 < self.target < self.limit or self.pieces < 16 or self.context < 0:
            raise InputError("Chunk settings need 0 < target < limit, pieces >= 16 and context >= 0.")


@dataclass(frozen=True, slots=True)
class Passage:
    """`text == document.text[start:end]`. `heading` is the path of headings above it, outermost first."""

    document: str
    title: str
    heading: str
    start: int
    end: int
    text: str


def chunk(document: Document, masked: Sequence[Span] = (), settings: ChunkSettings | None = None) -> Iterator[Passage]:
    """The passages of one document, in order.

    Every character that is neither white space nor inside a `masked` span is in exactly one passage, and no passage
    touches a masked span. A title or heading that repeats a masked text is left out of the passages' context too.
    """
    settings = settings or ChunkSettings()
    text = document.text
    masked = _merged(masked, document)
    secrets = [text[start:end] for start, end in masked]
    title = document.source if _reveals(document.title, secrets) else document.title
    starts, paths = _headings(document, masked, secrets, title)
    context = len(_context(title, max(paths, key=len, default=""), settings.context)) // 4
    for low, high in _complement(masked, len(text)):
        cuts = _places(document, starts, low, high, settings)
        for left, right in pairwise(_cheapest(text, cuts, settings, settings.pieces - context)):
            span = trimmed(text, left, right)
            if span is None:
                continue
            start, end = _indented(text, span[0], low), span[1]
            yield Passage(document.id, title, _heading_of(starts, paths, *span), start, end, text[start:end])


def embedding_text(passage: Passage, context: int = 120) -> str:
    """What is embedded for a passage: `title > heading`, cut to `context` characters, a line break, the text."""
    above = _context(passage.title, passage.heading, context)
    return f"{above}\n{passage.text}" if above else passage.text


def context_of(passage: Passage, context: int = 120) -> str:
    """The line above the passage in `embedding_text`."""
    return _context(passage.title, passage.heading, context)


def _context(title: str, heading: str, longest: int) -> str:
    return " > ".join(part for part in (title, heading) if part)[:longest]


# what must not be found ---------------------------------------------------------------------------------------------


def _merged(masked: Sequence[Span], document: Document) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(masked):
        if not 0 <= start < end <= len(document.text):
            raise InputError(
                f"Document '{document.id}' has {len(document.text)} characters, but {start}:{end} is to be masked.",
                "The masked spans belong to another version of the corpus: make them again from this one.",
            )
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _complement(masked: Sequence[Span], length: int) -> Iterator[Span]:
    left = 0
    for start, end in masked:
        if left < start:
            yield left, start
        left = end
    if left < length:
        yield left, length


_RUN = 4
"""A heading that shares this many words in a row with a masked text gives it away; shorter secrets count whole."""


def _reveals(heading: str, secrets: Sequence[str]) -> bool:
    words = re.findall(r"\w+", heading.lower())
    for secret in secrets:
        hidden = re.findall(r"\w+", secret.lower())
        run = min(_RUN, len(hidden))
        if run and _runs(words, run) & _runs(hidden, run):
            return True
    return False


def _runs(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


# headings -----------------------------------------------------------------------------------------------------------


def _headings(
    document: Document, masked: Sequence[Span], secrets: Sequence[str], title: str
) -> tuple[list[int], list[str]]:
    """Where sections start, ascending, and the path of headings that holds from there on."""
    starts, paths = [0], [""]
    open_sections: list[tuple[int, str]] = []
    for section in sorted(document.sections, key=lambda s: s.start):
        hidden = any(start <= section.start < end for start, end in masked) or _reveals(section.heading, secrets)
        open_sections = [s for s in open_sections if s[0] < section.level]
        heading = section.heading.strip()
        open_sections.append((section.level, "" if hidden or heading == title.strip() else heading))
        starts.append(min(section.start, len(document.text)))
        paths.append(" > ".join(h for _, h in open_sections if h))
    return starts, paths


def _heading_of(starts: Sequence[int], paths: Sequence[str], start: int, end: int) -> str:
    """The path of the section that holds most of `start:end`."""
    first = max(bisect_left(starts, start + 1) - 1, 0)
    best, most = "", -1
    for i in range(first, len(starts)):
        if starts[i] >= end:
            break
        until = min(end, starts[i + 1] if i + 1 < len(starts) else end)
        if until - max(start, starts[i]) > most:
            best, most = paths[i], until - max(start, starts[i])
    return best


# where a text may be cut, and at what price -------------------------------------------------------------------------

_SECTION, _BLOCK, _ITEM, _SENTENCE, _CODE_LINE, _LINE, _WORD, _ANYWHERE = 0.0, 0.1, 0.2, 0.35, 0.4, 0.8, 1.2, 3.0
_ACROSS = 0.6
"""Price of a section that starts inside a passage: only tiny sections are joined with their neighbours."""

_BLANK = re.compile(r"\n(?:[ \t]*\n)+")
_ITEM_LINE = re.compile(r"(?<=\n)[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|\||#{1,6} )")
_TOP_LEVEL = re.compile(r"(?<=\n)(?:async def |def |class |@)")
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}|\t)[^\n]*(?:\n(?:[ \t]*\n)*|\Z))+", re.MULTILINE)
_GAP = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class _Place:
    at: int
    price: float
    section: bool = False


def _places(document: Document, starts: Sequence[int], low: int, high: int, settings: ChunkSettings) -> list[_Place]:
    """All places inside `low:high`, ascending, with both ends."""
    text = document.text
    price: dict[int, float] = {}

    def offer(at: int, cost: float) -> None:
        if low < at < high:
            price[at] = min(cost, price.get(at, cost))

    code = [(low, high)] if document.format == "python" else _code(text, low, high)
    for left, right in code:
        for match in re.finditer(r"\n", text[left:right]):
            offer(left + match.end(), _CODE_LINE)
        offer(left, _BLOCK)
        offer(right, _BLOCK)
    for left, right in _between(code, low, high):
        for match in re.finditer(r"\n", text[left:right]):
            offer(left + match.end(), _LINE)
        for _, end in sentence_spans(text, left, right):
            offer(end, _SENTENCE)
    for match in _BLANK.finditer(text, low, high):
        in_code = any(left < match.start() and match.end() < right for left, right in code)
        offer(match.end(), _ITEM if in_code else _BLOCK)
    for match in _ITEM_LINE.finditer(text, low, high):
        offer(match.start(), _ITEM)
    if document.format == "python":
        for match in _TOP_LEVEL.finditer(text, low, high):
            offer(match.start(), _BLOCK / 2)
    sections = {at for at in starts if low < at < high}
    for at in sections:
        price[at] = _SECTION
    for left, right in pairwise([low, *sorted(price), high]):
        if right - left > settings.limit // 2:
            _cut_inside(text, left, right, settings, price)
    ordered = [_Place(at, price[at], at in sections) for at in sorted(price)]
    return [_Place(low, 0.0), *ordered, _Place(high, 0.0)]


def _cut_inside(text: str, left: int, right: int, settings: ChunkSettings, price: dict[int, float]) -> None:
    """Adds gaps between words, and where even a word is too long, places inside it."""
    step = settings.limit // 8 + 1
    gaps = [left, *(match.end() for match in _GAP.finditer(text, left, right) if match.end() < right), right]
    last = left
    for a, b in pairwise(gaps):
        if a - last >= settings.limit // 32:  # close enough to cut well, few enough to stay fast
            price.setdefault(a, _WORD)
            last = a
        for at in range(a + step, b, step) if b - a > settings.limit // 2 else ():
            price.setdefault(at, _ANYWHERE)


def _code(text: str, low: int, high: int) -> list[Span]:
    """Fenced and indented blocks."""
    fenced = [m.span() for m in _FENCE.finditer(text, low, high)]
    indented = [
        m.span()
        for left, right in _between(fenced, low, high)
        for m in _INDENTED.finditer(text, left, right)
        if m.end() > m.start()
    ]
    return sorted(fenced + indented)


def _between(spans: Sequence[Span], low: int, high: int) -> Iterator[Span]:
    left = low
    for start, end in spans:
        if left < start:
            yield left, start
        left = max(left, end)
    if left < high:
        yield left, high


# the cheapest way to cut --------------------------------------------------------------------------------------------


def _cheapest(text: str, places: Sequence[_Place], settings: ChunkSettings, most_pieces: int) -> list[int]:
    """Offsets of the cheapest cut from the first place to the last."""
    pieces = _pieces_at(text, [place.at for place in places])
    best = [0.0]
    came_from = [0]
    across = 0
    crossed = [0]  # sections that started up to and including each place
    for place in places[1:]:
        across += place.section
        crossed.append(across)
    for j in range(1, len(places)):
        cheapest, source = float("inf"), j - 1
        for i in range(j - 1, -1, -1):
            size = places[j].at - places[i].at
            if i < j - 1 and (size > settings.limit or pieces[j] - pieces[i] > most_pieces):
                break
            joined = crossed[j] - crossed[i] - places[j].section
            cost = best[i] + places[i].price + _size_price(size, settings) + _ACROSS * joined
            if cost < cheapest:
                cheapest, source = cost, i
        best.append(cheapest)
        came_from.append(source)
    cuts = [len(places) - 1]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return [places[i].at for i in reversed(cuts)]


def _size_price(size: int, settings: ChunkSettings) -> float:
    if size < settings.target:
        return float((1 - size / settings.target) ** 2)
    return float(0.3 * ((size - settings.target) / (settings.limit - settings.target)) ** 2)


_PIECE = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")


def _pieces_at(text: str, offsets: Sequence[int]) -> list[int]:
    """Estimated word pieces before each offset: BERT's tokenizer splits at punctuation, rare words and digits.

    Measured on technical pages and Python source: under 1 % of the passages are longer than MiniLM reads."""
    total, counts = 0, []
    for left, right in pairwise([offsets[0], *offsets]):
        for match in _PIECE.finditer(text, left, right):
            length = match.end() - match.start()
            total += 1 + (length - 1) // (5 if text[match.start()].isalpha() else 3)
        counts.append(total)
    return counts


def _indented(text: str, start: int, low: int) -> int:
    """`start` moved left over the indentation of its line, so that a block of code keeps its shape."""
    at = start
    while at > low and text[at - 1] in " \t":
        at -= 1
    return at if at == 0 or text[at - 1] == "\n" else start

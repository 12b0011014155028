"""Where sentences end: rules for prose in European languages, good enough to quote from and to cut at.

A sentence ends at `.`, `!`, `?` or `…` (closing quotes and brackets included) before white space, unless the dot
belongs to an abbreviation, an initial or a number, or the next word goes on in lower case. A blank line
and the start of a list item or table row always end one. Chinese and Japanese full stops need no space after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ABBREVIATIONS = re.compile(
    r"e\.g|i\.e|cf|etc|vs|al|eqs?|eds?|dr|mrs?|ms|prof|st|jr|sr|inc|ltd|co|corp|dept|est|approx|resp|incl|z\.b|d\.h|bzw"
    r"|ca|u\.s|u\.k|a\.m|p\.m|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
_BEFORE_NUMBERS = re.compile(r"figs?|sec|ch|vol|nos?|pp?|par|art")
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_`]*+(?=\s)|[。！？]+[」』”]?")
"""Neither goes back nor starts inside a run of marks: a line of a million dots takes the time of a million."""
_BREAK = re.compile(r"\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*+•][ \t]|\d{1,3}[.)][ \t]|\|))")
_WORD_BEFORE = re.compile(r"[\w.]+$")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of `text[start:end]`, trimmed of white space, in order, none overlapping.

    Every character that is not white space lies in exactly one of them.
    """
    end = len(text) if end is None else end
    cuts = sorted({*_block_ends(text, start, end), *_sentence_ends(text, start, end), end})
    left = start
    for cut in cuts:
        span = trimmed(text, left, cut)
        if span is not None:
            yield span
        left = cut


def trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without white space at its ends; None when nothing is left."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def _block_ends(text: str, start: int, end: int) -> Iterator[int]:
    for match in _BREAK.finditer(text, start, end):
        yield match.end()


def _sentence_ends(text: str, start: int, end: int) -> Iterator[int]:
    for match in _END.finditer(text, start, end):
        if match.group()[0] != "." or not _inside_sentence(text, match, start, end):
            yield match.end()


def _inside_sentence(text: str, dot: re.Match[str], start: int, end: int) -> bool:
    """Whether the dot at `dot` is part of a word, such as an abbreviation, rather than a full stop."""
    after = dot.end()
    while after < end and text[after].isspace():
        after += 1
    following = text[after : min(after + 1, end)]
    if len(dot.group()) == 1:
        before = _WORD_BEFORE.search(text, max(start, dot.start() - 20), dot.start())
        word = before.group() if before else ""
        if _ABBREVIATIONS.fullmatch(word.lower()) or (len(word) == 1 and word.isupper()):
            return True
        if following.isdigit() and _BEFORE_NUMBERS.fullmatch(word.lower()):
            return True
    return following.islower()

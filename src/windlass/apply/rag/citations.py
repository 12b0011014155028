"""Checking what a model claims to quote: every quotation must stand, word for word, in the passage it names.

A model is asked to end each sentence with `[2: "exact words"]`. A quotation is `supported` when passage 2 holds those
words, `misattributed` when only another passage does, `absent` when none does. Words and passages are compared as
`apply.verbatim` says: white space and typographic marks may differ, nothing else. What follows from a quotation is not
judged here; that it exists is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from windlass.apply.rag.sentences import sentence_spans
from windlass.apply.verbatim import Text, as_read
from windlass.core.values import Citation

Verdict = Literal["supported", "misattributed", "absent"]

MARKER = re.compile(r"\[\s*(\d{1,3})\s*:\s*[\"“”](.+?)[\"“”]\s*\]", re.DOTALL)
_LEAST = 12
"""A quotation of fewer characters proves nothing, as it may stand anywhere: it counts as absent unless it is a line."""


@dataclass(frozen=True, slots=True)
class CheckedQuote:
    passage: int
    """The number the model gave, counting from 1."""
    quote: str
    verdict: Verdict
    citation: Citation | None
    """Where the words really stand; None when absent."""


@dataclass(frozen=True, slots=True)
class CheckedSentence:
    text: str
    """The sentence without its markers."""
    quotes: Sequence[CheckedQuote]

    @property
    def supported(self) -> bool:
        """It has quotations, and every one of them is supported."""
        return bool(self.quotes) and all(quote.verdict == "supported" for quote in self.quotes)


def check_quote(number: int, quote: str, passages: Sequence[Citation]) -> CheckedQuote:
    """Looks for `quote` in passage `number` (from 1), then in the others."""
    order = [i for i in range(len(passages)) if i == number - 1] + [i for i in range(len(passages)) if i != number - 1]
    for i in order:
        found = find_verbatim(quote, passages[i])
        if found is not None:
            return CheckedQuote(number, quote, "supported" if i == number - 1 else "misattributed", found)
    return CheckedQuote(number, quote, "absent", None)


def find_verbatim(quote: str, passage: Citation) -> Citation | None:
    """The quotation with its place in the document, or None."""
    words = as_read(quote)
    text = Text(passage.quote)
    place = next(text.places(words), None)
    if place is None or (len(words) < _LEAST and not _whole_line(words, passage.quote)):
        return None
    start, end = text.span(place)
    return replace(passage, start=passage.start + start, end=passage.start + end, quote=passage.quote[start:end])


def _whole_line(words: str, text: str) -> bool:
    return any(as_read(line) == words for line in text.splitlines())


def check_answer(text: str, passages: Sequence[Citation]) -> list[CheckedSentence]:
    """Splits a model's answer into sentences and checks the quotations of each.

    A marker belongs to the sentence it follows. Text after the last marker, and sentences without one, have no
    quotations and so are not supported.
    """
    checked: list[CheckedSentence] = []
    at = 0
    pending: list[str] = []
    quotes: list[CheckedQuote] = []
    for match in MARKER.finditer(text):
        between = text[at : match.start()]
        if quotes and between.strip(" \t\n.,;"):
            checked.extend(_sentences(pending, quotes))
            pending, quotes = [], []
        pending.append(between)
        quotes.append(check_quote(int(match[1]), match[2], passages))
        at = match.end()
    if quotes:
        checked.extend(_sentences(pending, quotes))
        pending = []
    rest = "".join([*pending, text[at:]]).strip(" \t\n.,;")
    if rest:
        checked.append(CheckedSentence(text[at:].strip(), ()))
    return checked


def _sentences(pieces: Sequence[str], quotes: Sequence[CheckedQuote]) -> list[CheckedSentence]:
    """Sentences of the text before some markers: the markers support the last one only."""
    text = "".join(pieces).strip().lstrip(".,; \n")
    spans = list(sentence_spans(text))
    unsupported = [CheckedSentence(text[a:b], ()) for a, b in spans[:-1]]
    last = text[spans[-1][0] : spans[-1][1]] if spans else ""
    return [*unsupported, CheckedSentence(last, tuple(quotes))]

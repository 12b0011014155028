"""Checking what a model claims to quote: every quotation must stand, word for word, in the passage it names.

A model is asked to end each sentence with `[2: "exact words"]`. A quotation is `supported` when passage 2 holds those
words, `misattributed` when only another passage does, `absent` when none does, and `barred` when they stand only where
nothing may be quoted from (`rag.answers.untrusted`). Words and passages are compared as `apply.verbatim` says: white
space and typographic marks may differ, nothing else. What follows from a quotation is not judged here; that it exists
is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from windlass.apply.rag.answers.untrusted import Suspect, part, within, without
from windlass.apply.rag.sentences import sentence_spans
from windlass.apply.verbatim import Text, as_read
from windlass.core.values import Citation

Verdict = Literal["supported", "misattributed", "absent", "barred"]
VERDICTS: Sequence[Verdict] = get_args(Verdict)

MARKER = re.compile(r"\[\s*(\d{1,3})\s*:\s*[\"“”](.+?)[\"“”]\s*\]", re.DOTALL)
_BEGUN = re.compile(r"\[\s*\d{0,3}\s*(?::\s*(?:[\"“”].*)?)?\Z", re.DOTALL)
"""The beginning of a marker, whose end is still to come."""
_BETWEEN = " \t\n.,;"
"""What may stand between the markers of one sentence."""
_ADDRESS = re.compile(
    r"\bhttps?://[^\s<>\"”)\]]*[^\s<>\"”)\].,;:!?]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\b(?:www\.)?(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|info|io|co|dev|app|xyz|site|online|biz|me|ai|eu|uk|de|fr|ru|cn)"
    r"\b(?:/[^\s<>\"”)\]]*[^\s<>\"”)\].,;:!?])?",
    re.IGNORECASE,
)
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
    foreign: Sequence[str] = ()
    """Addresses (links, sites, e-mail) that it names and that none of the passages it quotes does."""

    @property
    def supported(self) -> bool:
        """It has quotations, every one of them is supported, and it sends nobody anywhere else."""
        return bool(self.quotes) and not self.foreign and all(quote.verdict == "supported" for quote in self.quotes)


def check_quote(number: int, quote: str, passages: Sequence[Citation], barred: Sequence[Suspect] = ()) -> CheckedQuote:
    """Looks for `quote` in passage `number` (from 1), then in the others; what is `barred` is no place for it."""
    order = [i for i in range(len(passages)) if i == number - 1] + [i for i in range(len(passages)) if i != number - 1]
    only_barred: Citation | None = None
    for i in order:
        places = find_all(quote, passages[i])
        allowed = [place for place in places if not within(place, barred)]
        if allowed:
            return CheckedQuote(number, quote, "supported" if i == number - 1 else "misattributed", allowed[0])
        only_barred = only_barred or (places[0] if places else None)
    return CheckedQuote(number, quote, "absent" if only_barred is None else "barred", only_barred)


def find_all(quote: str, passage: Citation) -> list[Citation]:
    """Where the words stand in the passage, with the places in its document."""
    words = as_read(quote)
    if len(words) < _LEAST and not _whole_line(words, passage.quote):
        return []
    text = Text(passage.quote)
    return [part(passage, *text.span(place)) for place in text.places(words)]


def _whole_line(words: str, text: str) -> bool:
    return any(as_read(line) == words for line in text.splitlines())


def check_answer(text: str, passages: Sequence[Citation], barred: Sequence[Suspect] = ()) -> list[CheckedSentence]:
    """Splits a model's answer into sentences and checks the quotations of each.

    A marker belongs to the sentence it follows. Text after the last marker, and sentences without one, have no
    quotations and so are not supported.
    """
    checking = Checking(passages, barred)
    return [*checking.add(text), *checking.end()]


class Checking:
    """`check_answer` for an answer that is still being written: however it is cut, its sentences are the same."""

    def __init__(self, passages: Sequence[Citation], barred: Sequence[Suspect] = ()) -> None:
        self._passages = passages
        self._barred = barred
        self._said = ""
        """What was said since the last marker."""
        self._pending: list[str] = []
        self._quotes: list[CheckedQuote] = []

    def add(self, piece: str) -> list[CheckedSentence]:
        """The sentences that are whole, now that this was said: what follows their markers is known."""
        self._said += piece
        checked: list[CheckedSentence] = []
        while (match := MARKER.search(self._said)) is not None:
            between = self._said[: match.start()]
            if between.strip(_BETWEEN):
                checked += self._whole()
            self._pending.append(between)
            self._quotes.append(check_quote(int(match[1]), match[2], self._passages, self._barred))
            self._said = self._said[match.end() :]
        after = self._said.lstrip(_BETWEEN)
        if after and not _BEGUN.match(after):
            checked += self._whole()
        return checked

    def end(self) -> list[CheckedSentence]:
        """What is left once nothing more will be said."""
        checked = self._whole()
        rest = "".join([*self._pending, self._said])
        self._pending, self._said = [], ""
        return [*checked, CheckedSentence(rest.strip(), ())] if rest.strip(_BETWEEN) else checked

    def _whole(self) -> list[CheckedSentence]:
        if not self._quotes:
            return []
        *before, last = _sentences(self._pending, self._quotes)
        self._pending, self._quotes = [], []
        return [*before, replace(last, foreign=self._foreign(last))]

    def _foreign(self, sentence: CheckedSentence) -> list[str]:
        """A true quotation must not lend its credit to an address that somebody else put in."""
        named = [match.group() for match in _ADDRESS.finditer(sentence.text)]
        cited = [p for n, p in enumerate(self._passages, start=1) if any(n == q.passage for q in sentence.quotes)]
        known = " ".join(without(passage, self._barred) for passage in cited).lower() if named else ""
        return [address for address in named if address.lower() not in known]


def _sentences(pieces: Sequence[str], quotes: Sequence[CheckedQuote]) -> list[CheckedSentence]:
    """Sentences of the text before some markers: the markers support the last one only."""
    text = "".join(pieces).strip().lstrip(".,; \n")
    spans = list(sentence_spans(text))
    unsupported = [CheckedSentence(text[a:b], ()) for a, b in spans[:-1]]
    last = text[spans[-1][0] : spans[-1][1]] if spans else ""
    return [*unsupported, CheckedSentence(last, tuple(quotes))]

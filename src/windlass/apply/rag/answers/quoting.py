"""Answers without a language model: the sentences of the best passages that fit the question, quoted verbatim."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from windlass.apply.rag.answers.claims import content
from windlass.apply.rag.answers.untrusted import Suspect, part, within
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.indexes.searchable import Searchable
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.errors import InputError
from windlass.core.protocols import Hit
from windlass.core.values import Citation

_FURNITURE = re.compile(
    r"(?:(?:#{1,6}[ \t][^\n]*"  # a heading
    r"|\([\w.:-]+\)=|\.\. _[^\n]*:"  # a label to link to, in MyST and reStructuredText
    r"|!\[[^\]\n]*\]\([^)\n]*\)|\[!\[[^\]\n]*\]\([^)\n]*\)\]\([^)\n]*\)"  # pictures, such as badges
    r")\s*)+"
    r"|(?:[^\n]+\n)?([=\-~^\"'*+#`:.])\1{2,}"  # a heading that is underlined, or the line alone
)
"""What stands in a document and says nothing by itself."""
_UNDERLINE = re.compile(r"\n([=\-~^\"'*+#`:.])\1{2,}[ \t]*(?:\n|$)")
"""After a heading that ends as a sentence does."""


@dataclass(frozen=True, slots=True)
class QuoteSettings:
    """How much is quoted. Lengths are characters."""

    quotes: int = 3
    """At most so many, each from another passage."""
    passages: int = 3
    """The best passages whose sentences are read."""
    length: int = 320
    """A quotation grows by the sentences around the best one until it is this long."""
    near: float = 0.75
    """A further passage is quoted when its best sentence scores at least this share of the first one's."""
    lexical: float = 0.4
    """Weight of shared rare words against the likeness of meaning, when sentences are compared."""

    def __post_init__(self) -> None:
        if self.quotes < 1 or self.passages < 1 or self.length < 1 or not 0 <= self.lexical <= 1:
            raise InputError("Quote settings need quotes, passages and length of at least 1, and 0 <= lexical <= 1.")


def quote(
    index: Searchable,
    question: str,
    hits: Sequence[Hit],
    settings: QuoteSettings,
    vector: np.ndarray | None = None,
    barred: Sequence[Suspect] = (),
) -> tuple[list[Citation], int]:
    """Quotations that answer `question`, from `hits` in their order, and the tokens embedded for choosing them.

    The best passage is always quoted; what to quote from it is the sentence that fits best, with its neighbours. A
    heading says nothing by itself: where it fits best, the sentence below it is meant. Passages of headings alone are
    passed over while others say something. `vector` is the question's own, when it is known already. Sentences that
    are `barred` are not quoted.
    """
    hits = hits[: settings.passages]
    runs = [_runs(hit.citation, barred) for hit in hits]
    spans = [[span for run in some for span in run] for some in runs]
    says = [[_says(hit.citation.quote, a, b) for a, b in some] for hit, some in zip(hits, spans, strict=True)]
    kept = [n for n, some in enumerate(says) if any(some)] or [n for n, some in enumerate(spans) if some]
    hits, runs = [hits[n] for n in kept], [runs[n] for n in kept]
    spans, says = [spans[n] for n in kept], [says[n] for n in kept]
    where = [[run for run in some for _ in run] for some in runs]
    sentences = [hit.citation.quote[a:b] for hit, some in zip(hits, spans, strict=True) for a, b in some]
    if not sentences:
        return [], 0
    if vector is None:
        vector = index.embedder.embed([question], "query").vectors[0]
    embedded = index.embedder.embed(sentences, "passage")
    likeness = np.maximum(embedded.vectors @ vector, 0.0)
    scores = (1 - settings.lexical) * likeness + settings.lexical * _shared(index, question, sentences)
    chosen: list[tuple[float, Citation]] = []
    at = 0
    for hit, some, around, saying in zip(hits, spans, where, says, strict=True):
        mine = scores[at : at + len(some)]
        at += len(some)
        best = _meant(mine, saying)
        run = around[best]
        chosen.append((float(mine[best]), _grown(hit.citation, run, run.index(some[best]), settings.length)))
    least = chosen[0][0] * settings.near
    further = sorted((c for c in chosen[1:] if c[0] >= least), key=lambda c: -c[0])
    return [chosen[0][1], *(citation for _, citation in further[: settings.quotes - 1])], embedded.tokens


def _says(text: str, start: int, end: int) -> bool:
    return _FURNITURE.fullmatch(text, start, end) is None and _UNDERLINE.match(text, end) is None


def _meant(scores: np.ndarray, says: Sequence[bool]) -> int:
    """The best sentence; where that is a heading, the first below it that says something, else the best that does."""
    best = int(np.argmax(scores))
    if not any(says):
        return best
    below = (number for number in range(best, len(says)) if says[number])
    return next(below, int(np.argmax(np.where(says, scores, -np.inf))))


def _runs(passage: Citation, barred: Sequence[Suspect]) -> list[list[tuple[int, int]]]:
    """The sentences that may be quoted; those with nothing between them that may not stand together."""
    runs: list[list[tuple[int, int]]] = [[]]
    for start, end in sentence_spans(passage.quote):
        if barred and within(part(passage, start, end), barred):
            runs.append([])
        else:
            runs[-1].append((start, end))
    return [run for run in runs if run]


def _grown(passage: Citation, spans: Sequence[tuple[int, int]], best: int, length: int) -> Citation:
    """The best sentence and its neighbours, the next one first, as far as `length` allows and no heading parts them."""
    heads = [not _says(passage.quote, start, end) for start, end in spans]
    first = last = best
    while True:
        if last + 1 < len(spans) and not heads[last + 1] and spans[last + 1][1] - spans[first][0] <= length:
            last += 1
        elif first > 0 and not heads[first] and spans[last][1] - spans[first - 1][0] <= length:
            first -= 1
        else:
            break
    start, end = spans[first][0], spans[last][1]
    return replace(passage, start=passage.start + start, end=passage.start + end, quote=passage.quote[start:end])


def _shared(index: Searchable, question: str, sentences: Sequence[str]) -> np.ndarray:
    """Share of the question's terms, weighted by rarity, in each sentence. How rare they are in all of the documents
    tells the embedded index only; with others, how rare they are in these sentences."""
    if isinstance(index, HybridIndex):
        asked, *found = index.lexical.tokenizer.terms([question, *sentences])
        weights = {term: index.lexical.postings(term).idf for term in asked}
    else:
        asked, *found = ([stem for stem, _ in content(text)] for text in (question, *sentences))
        held = Counter(term for terms in found for term in set(terms))
        weights = {term: math.log1p(len(sentences) / (1 + held[term])) for term in asked}
    total = sum(weights.values())
    if not total:
        return np.zeros(len(sentences))
    return np.array([sum(weights[term] for term in weights.keys() & set(terms)) / total for terms in found])

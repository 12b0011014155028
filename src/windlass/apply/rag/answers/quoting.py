"""Answers without a language model: the sentences of the best passages that fit the question, quoted verbatim."""

from __future__ import annotations

import math
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

    The best passage is always quoted; what to quote from it is the sentence that fits best, with its neighbours.
    `vector` is the question's own, when it is known already. Sentences that are `barred` are not quoted.
    """
    hits = hits[: settings.passages]
    runs = [_runs(hit.citation, barred) for hit in hits]
    hits = [hit for hit, some in zip(hits, runs) if some]
    spans = [[span for run in some for span in run] for some in runs if some]
    where = [[run for run in some for _ in run] for some in runs if some]
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
    for hit, some, around in zip(hits, spans, where, strict=True):
        mine = scores[at : at + len(some)]
        at += len(some)
        best = int(np.argmax(mine))
        run = around[best]
        chosen.append((float(mine[best]), _grown(hit.citation, run, run.index(some[best]), settings.length)))
    least = chosen[0][0] * settings.near
    further = sorted((c for c in chosen[1:] if c[0] >= least), key=lambda c: -c[0])
    return [chosen[0][1], *(citation for _, citation in further[: settings.quotes - 1])], embedded.tokens


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
    heads = [passage.quote.startswith("#", start) for start, _ in spans]
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

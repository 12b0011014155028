"""Searching again with what was found: the best passages say more of the subject than the question did.

The vector of the question is moved towards the mean of those of the best passages (Rocchio, 1971; for dense vectors: Li
et al., arXiv 2108.11044), the words that set these passages apart from the others found are added to its own (RM3:
Abdul-Jaleel et al., TREC 2004), and that is searched. No model is asked. It helps where many passages bear on a
question; a question that a single passage answers it can only harm, if that was not found first. The weights are
therefore small: titles, as questions for the texts below them, lose nothing by it beyond doubt (docs/lab.md).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from windlass.apply.rag.indexes.terms import FUNCTION_WORDS
from windlass.apply.rag.retrieving.mmr import VectorsOf, embedded
from windlass.apply.rag.retrieving.step import Asked, Step, about
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

_FOUND = 50
"""Hits of the first search, against which it is judged which words are rare."""
_MOST = 40
"""Words that are added, at most."""
_TIMES = 8
"""How often each word of the question is said: all that an index knows of a word's weight is how often it is said."""
_LONG = 100
"""Words of a question that says enough by itself."""

_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = frozenset(FUNCTION_WORDS.split())


class Feedback(Step):
    name = "feedback"

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        vectors: VectorsOf | None = None,
        count: int = 2,
        *,
        weight: float = 0.3,
        words: float = 0.1,
        recorder: Recorder | None = None,
    ) -> None:
        """`embedder`: the index's own. `vectors`: where those of hits are found (`mmr.stored`); left out, the embedder
        makes them. `count`: passages that are believed. `weight`: of their mean, against 1 of the question. `words`: of
        their words, against 1 of the question's; 0: none are added."""
        super().__init__(index, recorder)
        if count < 1 or not 0 < weight < float("inf") or not 0 <= words < float("inf"):
            raise InputError(
                f"count is {count}, weight {weight} and words {words}, but must be at least 1, above 0, and 0 or more."
            )
        self.embedder, self.count, self.weight, self.words = embedder, count, weight, words
        self._vectors = vectors or embedded(embedder)

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        own = asked.vector
        if own is None:
            own = self.embedder.embed([asked.query], "query").vectors[0]
        asked = replace(asked, vector=own)
        found = replace(asked, k=max(self.count, _FOUND)).on(self.index)
        believed = found[: self.count]
        span["windlass.believed"] = [hit.passage for hit in believed]
        vectors = self._helped(span, lambda: self._vectors(believed)) if believed else None
        if vectors is None:
            return asked.on(self.index)
        moved = own + self.weight * vectors.mean(0)
        query = self._with_words(asked.query, found)
        return replace(asked, query=query, vector=(moved / np.linalg.norm(moved)).astype(np.float32)).on(self.index)

    def _with_words(self, query: str, found: Sequence[Hit]) -> str:
        """The question said several times, and each word of the believed passages as often as it weighs."""
        asked = len(query.split())
        if asked > _LONG:
            return query
        times = {word: round(_TIMES * self.words * asked * share) for word, share in telling(found, self.count).items()}
        added = [word for word, count in times.items() for _ in range(count)]
        return " ".join([query] * _TIMES + added) if added else query


def telling(found: Sequence[Hit], believed: int, most: int = _MOST) -> Mapping[str, float]:
    """The words of the first `believed` hits that tell them from the others found, with their shares, the largest
    first: how often a passage says a word, by how few of all hits do. The shares add up to 1, over at most so many."""
    said = [Counter(_words(about(hit))) for hit in found]
    holding = Counter(word for counts in said for word in counts)
    weights: dict[str, float] = {}
    for counts in said[:believed]:
        for word, count in counts.items():
            rarity = math.log((1 + len(said)) / holding[word])
            weights[word] = weights.get(word, 0.0) + count / counts.total() * rarity
    best = sorted(weights.items(), key=lambda one: (-one[1], one[0]))[:most]
    total = sum(weight for _, weight in best)
    return {word: weight / total for word, weight in best} if total else {}


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.casefold()) if word not in _COMMON]

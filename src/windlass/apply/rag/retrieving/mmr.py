"""Hits that do not repeat each other: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).

Chosen is, again and again, the passage with the most of `relevance` x how well it fits - (1 - relevance) x how like it
is to those chosen before. How well it fits is the search's own score, brought to [0, 1] over the candidates, so that
with a relevance of 1 the order is the search's; how like two passages are is the cosine of their vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.retrieving.step import Asked, Step, about
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

VectorsOf = Callable[[Sequence[Hit]], NDArray[np.float32]]
"""The vectors of hits, one row of unit length for each."""


class Diverse(Step):
    name = "mmr"

    def __init__(
        self,
        index: Index,
        vectors: VectorsOf | Embedder,
        relevance: float = 0.7,
        *,
        depth: int = 30,
        recorder: Recorder | None = None,
    ) -> None:
        """`vectors`: where the vectors of hits are found, such as `stored(index)`, or an embedder that makes them.
        `depth`: hits among which is chosen (at least k)."""
        super().__init__(index, recorder)
        if not 0 <= relevance <= 1 or depth < 1:
            raise InputError(f"relevance is {relevance} and depth {depth}, but must be from 0 to 1, and at least 1.")
        self.relevance, self.depth = relevance, depth
        self._vectors: VectorsOf = embedded(vectors) if isinstance(vectors, Embedder) else vectors

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        hits = asked.deep(self.depth).on(self.index)
        span["windlass.candidates"] = len(hits)
        if self.relevance == 1 or len(hits) < 2:
            return hits[: asked.k]
        vectors = self._helped(span, lambda: self._vectors(hits))
        if vectors is None:
            return hits[: asked.k]
        fits = scaled([hit.score for hit in hits])
        return [hits[place] for place in chosen(fits, vectors, asked.k, self.relevance)]


def chosen(fits: NDArray[np.float64], vectors: NDArray[np.float32], k: int, relevance: float) -> list[int]:
    """The positions of `k` candidates in the order in which they are chosen; of equals the first."""
    likeness = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    nearest = np.zeros(len(fits))
    left, order = np.ones(len(fits), np.bool_), []
    for _ in range(min(k, len(fits))):
        worth = np.where(left, relevance * fits - (1 - relevance) * nearest, -np.inf)
        best = int(np.argmax(worth))
        order.append(best)
        left[best] = False
        nearest = np.maximum(nearest, likeness[best]) if len(order) > 1 else likeness[best].copy()
    return order


def scaled(scores: Sequence[float]) -> NDArray[np.float64]:
    """Scores brought to [0, 1]; all 1 where they are the same."""
    values = np.asarray(scores, np.float64)
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return (values - low) / (high - low) if high > low else np.ones(len(values))


class Keeping(Protocol):
    """An index that tells the vectors of its passages."""

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]: ...


def stored(index: Keeping) -> VectorsOf:
    """The vectors that the index holds already."""
    return lambda hits: index.vectors_of([hit.passage for hit in hits])


def embedded(embedder: Embedder) -> VectorsOf:
    """Vectors made of the hits' texts: for an index that does not give its own."""
    return lambda hits: embedder.embed([about(hit) for hit in hits], "passage").vectors

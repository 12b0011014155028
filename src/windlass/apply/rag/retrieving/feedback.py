"""Searching again with what was found: the best passages say more of the subject than the question did.

The vector of the question is moved towards the mean of those of the best passages (Rocchio, 1971; for dense vectors: Li
et al., arXiv 2108.11044), and that is searched. No model is asked. It helps where many passages bear on a question; a
question that a single passage answers it can only harm, if that was not found first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from windlass.apply.rag.retrieving.mmr import VectorsOf, embedded
from windlass.apply.rag.retrieving.step import Asked, Step
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder, Hit, Index
from windlass.core.trace import Recorder, Span


class Feedback(Step):
    name = "feedback"

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        vectors: VectorsOf | None = None,
        count: int = 2,
        *,
        weight: float = 1.0,
        recorder: Recorder | None = None,
    ) -> None:
        """`embedder`: the index's own. `vectors`: where those of hits are found (`mmr.stored`); left out, the embedder
        makes them. `count`: passages that are believed. `weight`: of their mean, against 1 of the question."""
        super().__init__(index, recorder)
        if count < 1 or not 0 < weight < float("inf"):
            raise InputError(f"count is {count} and weight {weight}, but must be at least 1, and above 0.")
        self.embedder, self.count, self.weight = embedder, count, weight
        self._vectors = vectors or embedded(embedder)

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        own = asked.vector
        if own is None:
            own = self.embedder.embed([asked.query], "query").vectors[0]
        asked = replace(asked, vector=own)
        believed = replace(asked, k=self.count).on(self.index)
        span["windlass.believed"] = [hit.passage for hit in believed]
        vectors = self._helped(span, lambda: self._vectors(believed)) if believed else None
        if vectors is None:
            return asked.on(self.index)
        moved = own + self.weight * vectors.mean(0)
        return replace(asked, vector=(moved / np.linalg.norm(moved)).astype(np.float32)).on(self.index)

"""A second look at the best hits: a reranker reads each of them together with the question.

A cross-encoder sees how words of the two bear on each other, which vectors made apart cannot (Nogueira & Cho, arXiv
1901.04085), but costs a pass of the model a hit. Its scores and the search's, both brought to [0, 1] over the hits, are
mixed: what two judges with different faults agree on is surer than either.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from windlass.apply.rag.retrieving.mmr import scaled
from windlass.apply.rag.retrieving.step import Asked, Step, about
from windlass.core import semconv
from windlass.core.errors import InputError, ProviderError
from windlass.core.protocols import Hit, Index, Relevance, Reranker
from windlass.core.spans import Span
from windlass.core.trace import Recorder


class Reranked(Step):
    name = "rerank"

    def __init__(
        self,
        index: Index,
        reranker: Reranker,
        depth: int = 20,
        *,
        weight: float = 1.0,
        recorder: Recorder | None = None,
    ) -> None:
        """`depth`: hits that are read; what is asked for beyond them follows in the order of the search. `weight`: of
        the reranker, against the search's own score."""
        super().__init__(index, recorder)
        if not 0 <= weight <= 1 or depth < 1:
            raise InputError(f"weight is {weight} and depth {depth}, but must be from 0 to 1, and at least 1.")
        self.reranker, self.depth, self.weight = reranker, depth, weight

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        found = asked.deep(self.depth).on(self.index)
        hits, rest = found[: self.depth], found[self.depth :]
        span[semconv.REQUEST_MODEL] = self.reranker.name
        if self.reranker.digest is not None:
            span[semconv.MODEL_DIGEST] = self.reranker.digest
        span["windlass.candidates"] = len(hits)
        relevance = self._helped(span, lambda: self._relevance(asked.query, hits)) if hits else None
        if relevance is None:
            return found[: asked.k]
        span[semconv.INPUT_TOKENS] = relevance.tokens
        if relevance.truncated:
            span["windlass.truncated"] = relevance.truncated
        mixed = self.weight * scaled(relevance.scores) + (1 - self.weight) * scaled([hit.score for hit in hits])
        read = [
            replace(hits[i], score=float(mixed[i]), parts={**hits[i].parts, "rerank": float(relevance.scores[i])})
            for i in np.argsort(-mixed, kind="stable")
        ]
        below = scaled([hit.score for hit in rest]) - 1  # at most 0, which is the least score of those that were read
        return [*read, *(replace(hit, score=float(s)) for hit, s in zip(rest, below, strict=True))][: asked.k]

    def _relevance(self, query: str, hits: list[Hit]) -> Relevance:
        relevance = self.reranker.rank(query, [about(hit) for hit in hits])
        if len(relevance.scores) != len(hits) or not np.isfinite(relevance.scores).all():
            raise ProviderError(f"{self.reranker.name} did not give each of {len(hits)} passages a number.")
        return relevance

"""Two rankings into one: reciprocal rank fusion, or a weighted sum of normalised scores.

`weighted` follows Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2023): each score is
brought to [0, 1] between its smallest possible value (-1 for a cosine, 0 for BM25) and the largest that was found, and
the two are mixed. It uses how sure each retriever is, which ranks throw away. `rrf` is Cormack, Clarke and Büttcher
(2009); it needs no scale at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a hybrid index ranks. `dense` is the weight of the vectors, 1 - `dense` that of BM25."""

    fusion: Literal["weighted", "rrf"] = "weighted"
    dense: float = 0.7
    context_weight: float = 1.0
    """How much an occurrence of a word in title or heading counts in BM25, against 1 in the text."""
    rrf_k: int = 60
    depth: int = 100
    """Each retriever's own ranking is taken this deep (at least k)."""

    def __post_init__(self) -> None:
        if not 0 <= self.dense <= 1 or self.context_weight < 0 or self.rrf_k < 1 or self.depth < 1:
            raise InputError("Search settings need 0 <= dense <= 1, context_weight >= 0, rrf_k >= 1 and depth >= 1.")
        if self.fusion not in ("weighted", "rrf"):
            raise InputError(f"Unknown fusion '{self.fusion}'.", "Use 'weighted' or 'rrf'.")


@dataclass(frozen=True, slots=True)
class Ranked:
    """The result of one query, best first. Ranks count from 1; 0 means: not among the retriever's best `depth`."""

    rows: Rows
    score: Scores
    dense: Scores
    bm25: Scores
    dense_rank: Rows
    bm25_rank: Rows

    def moved(self, to: Rows) -> Ranked:
        """The same result when candidate i is row `to[i]` of the index."""
        return replace(self, rows=to[self.rows])


def fuse(dense: Scores, bm25: Scores, k: int, settings: SearchSettings) -> Ranked:
    """The best `k` of the candidates, whose scores stand in two arrays of one length; all of them if fewer."""
    k = min(k, len(dense))
    depth = min(max(settings.depth, k), len(dense))
    by_dense, by_bm25 = best(dense, depth), worded(bm25, depth)
    candidates = np.union1d(by_dense, by_bm25)
    dense_rank, bm25_rank = _ranks(by_dense, candidates), _ranks(by_bm25, candidates)
    if settings.fusion == "rrf":
        score = settings.dense * _reciprocal(dense_rank, settings.rrf_k)
        score += (1 - settings.dense) * _reciprocal(bm25_rank, settings.rrf_k)
    else:
        score = settings.dense * _scaled(dense[candidates], -1.0)
        score += (1 - settings.dense) * _scaled(bm25[candidates], 0.0)
    order = np.lexsort((candidates, -score))[:k]
    rows = candidates[order]
    return Ranked(rows, score[order].astype(np.float32), dense[rows], bm25[rows], dense_rank[order], bm25_rank[order])


def alone(dense: Sequence[float], settings: SearchSettings) -> list[float]:
    """What `fuse` makes of a ranking by vectors, best first, where no passage holds a word."""
    if settings.fusion == "rrf":
        return [settings.dense / (settings.rrf_k + rank) for rank in range(1, len(dense) + 1)]
    most = max(dense, default=-1.0) + 1
    return [settings.dense * (one + 1) / most if most > 0 else 0.0 for one in dense]


def best(scores: Scores, k: int) -> Rows:
    """Positions of the `k` largest, largest first; of equals the first."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores > least)
        chosen = np.concatenate([chosen, np.flatnonzero(scores == least)[: k - len(chosen)]])
    else:
        chosen = np.arange(len(scores))
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def worded(bm25: Scores, k: int) -> Rows:
    """As `best`, of those that hold a word of the query: mostly few, and none is negative."""
    found = np.flatnonzero(bm25)
    return found[best(bm25[found], k)]


def _ranks(order: Rows, candidates: Rows) -> Rows:
    ranks = np.zeros(len(candidates), np.int64)
    ranks[np.searchsorted(candidates, order)] = np.arange(1, len(order) + 1)
    return ranks


def _reciprocal(ranks: Rows, k: int) -> NDArray[np.float64]:
    return np.where(ranks > 0, 1.0 / (k + ranks), 0.0)


def _scaled(scores: Scores, least: float) -> NDArray[np.float64]:
    most = float(scores.max(initial=least))
    return (scores.astype(np.float64) - least) / (most - least) if most > least else np.zeros(len(scores))

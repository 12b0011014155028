"""How well a ranking puts what is relevant on top: recall, precision, hit rate, reciprocal rank, nDCG, MAP.

`judge` turns rankings and judgements into one small value; the metrics are functions of it that return one number
per item, ready for a paired comparison. Definitions as in trec_eval; nDCG with linear gain, as in trec_eval and
scikit-learn (Jarvelin & Kekalainen, TOIS 20, 2002), or with 2^gain - 1 (Burges et al. 2005).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

Gain = Literal["linear", "exponential"]


@dataclass(frozen=True, slots=True)
class Judged:
    """Rankings with their judgements. Item i's ranking has gains[i], its best possible one has ideal[i]."""

    gains: NDArray[np.float64]
    """Shape (items, depth): relevance of what stands at each rank, 0 where not relevant or past the end."""
    ideal: NDArray[np.float64]
    """Shape (items, most relevant documents of any item): relevances in falling order, then 0."""
    relevant: NDArray[np.int64]
    """Shape (items,): how many documents are relevant."""

    def __len__(self) -> int:
        return len(self.gains)


def judge(rankings: Sequence[Sequence[str]], relevances: Sequence[Mapping[str, float]]) -> Judged:
    """Looks up the relevance of every ranked document.

    rankings: per item, document ids, best first; it may be empty (nothing found scores 0). relevances: per item,
    id -> relevance; ids that are absent or 0 are not relevant. Raises `InputError` for no items, an item without
    anything relevant (a recall of 0/0: such questions belong to the abstention metrics), a document ranked twice,
    and relevances that are negative or not finite.
    """
    if not rankings:
        raise InputError("There are no rankings to score.", "Check that the dataset is not empty.")
    if len(rankings) != len(relevances):
        raise InputError(f"There are {len(rankings)} rankings but {len(relevances)} judgements.")
    positive: list[list[float]] = []
    for number, (ranking, relevance) in enumerate(zip(rankings, relevances), start=1):
        bad = [(key, value) for key, value in relevance.items() if not math.isfinite(value) or value < 0]
        if bad:
            raise InputError(f"Item {number}: the relevance of '{bad[0][0]}' is {bad[0][1]}.")
        if len(set(ranking)) != len(ranking):
            raise InputError(
                f"Item {number}: a document is ranked more than once and would count twice.",
                "Rank each document where its best passage stands.",
            )
        positive.append(sorted((value for value in relevance.values() if value > 0), reverse=True))
        if not positive[-1]:
            raise InputError(f"Item {number} has no relevant document.", "Score it with the abstention metrics.")
    gains = np.zeros((len(rankings), max(1, max(map(len, rankings)))))
    ideal = np.zeros((len(rankings), max(map(len, positive))))
    for row, (ranking, relevance) in enumerate(zip(rankings, relevances)):
        gains[row, : len(ranking)] = [relevance.get(document, 0.0) for document in ranking]
        ideal[row, : len(positive[row])] = positive[row]
    return Judged(gains, ideal, np.array([len(values) for values in positive]))


def judged_ranks(ranks: NDArray[np.int64], depth: int) -> Judged:
    """The fast path for one relevant document per item: `ranks` from 1, 0 for 'not among the first `depth`'."""
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.size == 0 or (ranks < 0).any():
        raise InputError("Ranks are a list of whole numbers from 0 (not found) up, and not empty.")
    gains = np.zeros((ranks.size, depth))
    found = np.flatnonzero((ranks > 0) & (ranks <= depth))
    gains[found, ranks[found] - 1] = 1.0
    return Judged(gains, np.ones((ranks.size, 1)), np.ones(ranks.size, dtype=np.int64))


def recall(judged: Judged, k: int) -> NDArray[np.float64]:
    """Share of an item's relevant documents among its first k."""
    found: NDArray[np.float64] = np.sum(_top(judged, k) > 0, axis=1) / judged.relevant
    return found


def precision(judged: Judged, k: int) -> NDArray[np.float64]:
    """Share of the first k that is relevant; a ranking that ends before is filled up with what is not."""
    found: NDArray[np.float64] = np.sum(_top(judged, k) > 0, axis=1) / k
    return found


def r_precision(judged: Judged) -> NDArray[np.float64]:
    """Share of relevant documents among the first R, R being how many there are of the item."""
    among = np.arange(judged.gains.shape[1]) < judged.relevant[:, None]
    found: NDArray[np.float64] = np.sum((judged.gains > 0) & among, axis=1) / judged.relevant
    return found


def average_precision(judged: Judged) -> NDArray[np.float64]:
    """Mean over all relevant documents of the precision where each stands, 0 for one that was not found. Its mean is
    the MAP."""
    relevant = judged.gains > 0
    precisions = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    found: NDArray[np.float64] = np.sum(precisions * relevant, axis=1) / judged.relevant
    return found


def hit(judged: Judged, k: int) -> NDArray[np.float64]:
    """1.0 where at least one relevant document is among the first k. Its mean is the hit rate (success@k)."""
    found: NDArray[np.float64] = np.any(_top(judged, k) > 0, axis=1).astype(np.float64)
    return found


def reciprocal_rank(judged: Judged, k: int | None = None) -> NDArray[np.float64]:
    """1 / rank of the first relevant document, 0 where there is none (among the first k). Its mean is the MRR."""
    top = judged.gains > 0 if k is None else _top(judged, k) > 0
    return np.where(top.any(axis=1), 1.0 / (1.0 + top.argmax(axis=1)), 0.0)


def ndcg(judged: Judged, k: int, gain: Gain = "linear") -> NDArray[np.float64]:
    """Discounted cumulative gain of the first k, as a share of the best possible one."""
    share: NDArray[np.float64] = _dcg(_top(judged, k), gain) / _dcg(judged.ideal[:, :k], gain)
    return share


def _dcg(gains: NDArray[np.float64], gain: Gain) -> NDArray[np.float64]:
    values = np.exp2(gains) - 1.0 if gain == "exponential" else gains
    discounted: NDArray[np.float64] = values @ (1.0 / np.log2(np.arange(2, gains.shape[1] + 2)))
    return discounted


def _top(judged: Judged, k: int) -> NDArray[np.float64]:
    if k < 1:
        raise InputError(f"A cut-off of k = {k} leaves nothing to score.", "Use k = 1 or more.")
    return judged.gains[:, :k]

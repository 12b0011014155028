"""How well predictions agree with what is right: plain functions of arrays, each held against scikit-learn or SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
"""Of 95 %."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), which holds for small counts and near 0 and 1 too."""
    share, denominator = right / count, 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / denominator
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / denominator
    return max(0.0, middle - half), min(1.0, middle + half)


def macro_f1(right: NDArray[np.int64], found: NDArray[np.int64], classes: int) -> float:
    """Mean F1 of the classes that occur on either side."""
    scores = []
    for one in range(classes):
        both, either = int(((right == one) & (found == one)).sum()), int((right == one).sum() + (found == one).sum())
        if either:
            scores.append(2 * both / either)
    return float(np.mean(scores))


def several_f1(right_NL: NDArray[np.bool_], found_NL: NDArray[np.bool_]) -> tuple[float, float]:
    """Micro and macro F1 of labels that do not exclude each other; labels that occur nowhere do not count."""
    both_L, either_L = (right_NL & found_NL).sum(0), right_NL.sum(0) + found_NL.sum(0)
    there = either_L > 0
    if not there.any():
        return 1.0, 1.0
    return float(2 * both_L.sum() / either_L.sum()), float((2 * both_L[there] / either_L[there]).mean())


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Linear correlation; 0 where one side is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlation of ranks, equal values sharing their mean rank."""
    return pearson(_ranks(a), _ranks(b))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def reciprocal_rank(gains: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """1 / rank of the first relevant document; others of equal score count as standing before it."""
    if not (gains > 0).any():
        return 0.0
    return 1 / (1 + int((scores[gains <= 0] >= scores[gains > 0].max()).sum()))


def ndcg(gains: NDArray[np.float64], scores: NDArray[np.float64], depth: int = 10) -> float:
    """Discounted gain of the first `depth` documents, as a share of the best possible one (Järvelin & Kekäläinen 2002).

    Equal scores are ordered as badly as they may be.
    """
    order = np.lexsort((gains, -scores))[:depth]
    discount = 1 / np.log2(np.arange(2, len(order) + 2))
    best = np.sort(gains)[::-1][: len(order)]
    ideal = float((best * discount).sum())
    return float((gains[order] * discount).sum()) / ideal if ideal else 0.0


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Kind, first and last word of what BIO or IOB2 tags mark; an I without a beginning begins one."""
    found, kind, start = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        goes_on = prefix == "I" and kind == name
        if kind and not goes_on:
            found.add((kind, start, place - 1))
            kind = ""
        if prefix in ("B", "I") and not goes_on:
            kind, start = name, place
    return found

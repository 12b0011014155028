"""Whether two series go together: Pearson's, Spearman's and Kendall's correlation, from -1 to 1.

For a judge beside people, for a cheap metric beside an expensive one. Their intervals: `statistics.bootstrap` over
indices. All raise `InputError` for fewer than 2 pairs, for NaN, and for a side that never changes: nothing can be said.
"""

from __future__ import annotations

from bisect import bisect_right, insort

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.arrays import as_many, numbers


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """How near the pairs lie to a straight line."""
    return _line(*_pairs(x, y))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's of the ranks, equal values sharing the middle of theirs: any rising curve is as good as a line."""
    a, b = _pairs(x, y)
    return _line(_ranks(a), _ranks(b))


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Tau-b: pairs of pairs in the same order less those in opposite order, as a share of those that have an order
    (Kendall, Biometrika 33 (1945)). One pass over the sorted pairs, not over all pairs of pairs (Knight, 1966)."""
    a, b = _pairs(x, y)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    seen: list[float] = []
    opposite = 0
    for place, value in enumerate(b.tolist()):
        opposite += place - bisect_right(seen, value)
        insort(seen, value)
    every = a.size * (a.size - 1) // 2
    ties_a, ties_b, ties = _ties(a), _ties(b), _ties(a + 1j * b)
    same = every - ties_a - ties_b + ties - opposite
    return float((same - opposite) / np.sqrt(float(every - ties_a)) / np.sqrt(float(every - ties_b)))


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = numbers("values of the first series", x), numbers("values of the second series", y)
    as_many(values_of_the_first_series=a, values_of_the_second_series=b)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InputError("A series that never changes goes together with nothing.", "Give at least 2 different values.")
    return a, b


def _line(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # squares of large numbers would pass what a float can hold
    return float(np.clip(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b), -1, 1))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]


def _ties(values: NDArray[np.float64] | NDArray[np.complex128]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())

"""Several tests at once: corrections of their p-values.

`holm` when a single false alarm is one too many and nothing is known of how the tests depend on each other, which is
the gate's case. `hochberg` finds a little more where they are independent or move together. `benjamini_hochberg` is
for looking around: of the findings, at most the stated share is false on average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import finite


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values, in the order given: rejecting those <= alpha keeps the chance of any false rejection
    at or below alpha, however the tests depend on each other (Holm 1979)."""
    p = _checked(p_values)
    return _stepped_down(p, np.arange(p.size, 0.0, -1.0))


def hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values as `holm`'s and never larger, for tests that are independent or positively dependent
    (Hochberg, Biometrika 75, 1988)."""
    p = _checked(p_values)
    return _stepped_up(p, np.arange(p.size, 0.0, -1.0))


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values: of those <= q, a share of at most q is false on average, for tests that are independent or
    positively dependent (Benjamini & Hochberg, JRSS B 57, 1995). For exploration; a gate needs `holm`."""
    p = _checked(p_values)
    return _stepped_up(p, p.size / np.arange(1, p.size + 1))


def _checked(p_values: ArrayLike) -> NDArray[np.float64]:
    p = finite(p_values, "p-values")
    if ((p < 0) | (p > 1)).any():
        raise InputError("A p-value lies between 0 and 1.")
    return p


def _stepped_down(p: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the smallest on: what was refused once is refused for all larger ones."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def _stepped_up(p: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """From the largest on: what was found once is found for all smaller ones."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate((p[order] * factors)[::-1])[::-1], 1.0)
    return adjusted

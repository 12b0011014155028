"""Two systems on the same items by a statistic of the whole set: corpus BLEU, F1 over all labels, an AUROC.

Such a statistic is no mean of scores of items, so nothing can be subtracted item by item. Both systems are computed on
the same resample instead, and the difference kept (Koehn, "Statistical significance tests for machine translation
evaluation", EMNLP 2004; the interval is Efron's BCa over items or clusters). Scores of sums over items, as BLEU is of
its counts, are much faster by `bootstrap.bootstrap_sums`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import bootstrap
from windlass.evaluate.statistics.checks import Clusters
from windlass.evaluate.statistics.intervals import Interval

Statistic = Callable[[NDArray[np.float64]], float]
"""Of the rows of some items (repeats included): shape (items, parts), parts being what an item adds to the whole, such
as its matching and possible n-grams. NaN where it is not defined."""


@dataclass(frozen=True, slots=True)
class CorpusDifference:
    before: float
    after: float
    difference: Interval


def paired_bootstrap(
    statistic: Statistic,
    before: ArrayLike,
    after: ArrayLike,
    clusters: Clusters | None = None,
    *,
    seed: int,
    resamples: int = 1999,
    level: float = 0.95,
) -> CorpusDifference:
    """The statistic of both systems and the interval of after - before.

    before, after: one row per item in the same order, shape (items,) or (items, parts). Raises `InputError` when they
    do not match, hold NaN, or the statistic is undefined on more than 1 % of the resamples.
    """
    a, b = _rows(before, "incumbent"), _rows(after, "candidate")
    if a.shape != b.shape:
        raise InputError(
            f"The incumbent's rows have shape {a.shape}, the candidate's {b.shape}.", "Compare them on the same items."
        )

    def difference(chosen: NDArray[np.intp]) -> float:
        return float(statistic(b[chosen])) - float(statistic(a[chosen]))

    found = bootstrap(difference, a.shape[0], clusters, seed=seed, resamples=resamples, level=level)
    return CorpusDifference(float(statistic(a)), float(statistic(b)), found)


def _rows(values: ArrayLike, whose: str) -> NDArray[np.float64]:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise InputError(f"The rows of the {whose} have shape {rows.shape}; (items, parts) is needed.")
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InputError(f"Row {bad + 1} of the {whose} is not finite.", "Leave out, and count, items without a score.")
    return rows

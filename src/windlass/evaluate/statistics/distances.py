"""A sum of distances from 0, such as a calibration error: chance makes it larger, so that it has no plain bootstrap.

Of perfectly calibrated answers the expected calibration error of a sample is above 0, that of its resamples further
still, and an interval of those may leave out the truth. The signed parts have no such bias: by the triangle
inequality the sum of distances is off by at most the sum of what its parts are off by, whose quantile is resampled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import times_drawn
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, level_checked
from windlass.evaluate.statistics.intervals import Interval


def distance_interval(
    parts: ArrayLike,
    clusters: Clusters | None = None,
    *,
    less: ArrayLike | None = None,
    seed: int,
    resamples: int = 1999,
    level: float = 0.95,
) -> Interval:
    """The sum over columns of the distance of their means from 0; never too narrow, and mostly too wide.

    parts: shape (items, columns). less: another one's parts, of the same items, whose sum is taken from it.
    """
    level_checked(level)
    tables = [np.asarray(one, dtype=np.float64) for one in (parts, less) if one is not None]
    n = len(tables[0])
    codes, groups = cluster_codes(clusters, n)
    if groups < 2:
        raise InputError("One cluster does not tell how others would differ.", "Give items of at least 2.")
    sizes = np.bincount(codes, minlength=groups).astype(np.float64)
    means = [table.mean(axis=0) for table in tables]
    sums = [np.zeros((groups, table.shape[1])) for table in tables]
    for table, total in zip(tables, sums):
        np.add.at(total, codes, table)
    rng = np.random.default_rng(seed)
    off: list[NDArray[np.float64]] = []
    for times in times_drawn(rng, groups, resamples):
        drawn = (times @ sizes)[:, None]
        off.append(sum(np.abs(times @ total / drawn - mean).sum(axis=1) for total, mean in zip(sums, means)))
    reach = float(np.quantile(np.concatenate(off), level))
    distances = [float(np.abs(mean).sum()) for mean in means]
    estimate = distances[0] - sum(distances[1:])
    low = estimate - reach if less is not None else max(0.0, estimate - reach)
    return Interval(estimate, low, estimate + reach, level, n, groups, "bootstrap of its parts")

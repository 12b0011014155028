"""Two separate groups, as the arms of a canary are: differences of means and of shares.

Where both systems can be given the same items, pair them (`paired`): that needs several times fewer.
"""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from windlass.evaluate.statistics.checks import Clusters, level_checked
from windlass.evaluate.statistics.distributions import t_quantile
from windlass.evaluate.statistics.intervals import Interval, mean_error, wilson_interval


def difference_of_means(
    before: ArrayLike,
    after: ArrayLike,
    clusters: tuple[Clusters | None, Clusters | None] = (None, None),
    level: float = 0.95,
) -> Interval:
    """mean(after) - mean(before) with Welch's interval, cluster-robust where clusters are given.

    Source: Welch, Biometrika 34 (1947), with Satterthwaite's degrees of freedom.
    """
    level_checked(level)
    a, b = mean_error(before, clusters[0]), mean_error(after, clusters[1])
    estimate = b.mean - a.mean
    variance = a.error**2 + b.error**2
    half = 0.0
    if math.isinf(variance):
        half = math.inf
    elif variance > 0.0:
        freedom = variance**2 / (a.error**4 / a.freedom + b.error**4 / b.freedom)
        half = t_quantile(0.5 + level / 2, freedom) * math.sqrt(variance)
    robust = any(labels is not None for labels in clusters)
    method = "Welch, cluster-robust (CR2)" if robust else "Welch"
    return Interval(estimate, estimate - half, estimate + half, level, a.n + b.n, a.clusters + b.clusters, method)


def difference_of_shares(before: tuple[int, int], after: tuple[int, int], level: float = 0.95) -> Interval:
    """Share after minus share before, each as (successes, trials) of independent trials.

    Newcombe's hybrid of two Wilson intervals ("Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17, 1998, method 10): stays within -1 and 1, and is right for rare events.
    """
    a, b = wilson_interval(*before, level), wilson_interval(*after, level)
    estimate = b.estimate - a.estimate
    low = estimate - math.hypot(b.estimate - b.low, a.high - a.estimate)
    high = estimate + math.hypot(b.high - b.estimate, a.estimate - a.low)
    n = before[1] + after[1]
    return Interval(estimate, low, high, level, n, n, "Newcombe")

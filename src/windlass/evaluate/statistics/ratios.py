"""Ratios of means: how many times as expensive, as slow, as good.

By Fieller's theorem ("Some problems in interval estimation", JRSS B 16, 1954): the ratio r is not refuted as long as
the mean of `numerator - r * denominator` may be 0. No logarithm is taken and nothing is divided item by item.
"""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, finite, level_checked
from windlass.evaluate.statistics.distributions import t_quantile
from windlass.evaluate.statistics.intervals import Interval, MeanError, mean_error


def paired_ratio(
    denominator: ArrayLike, numerator: ArrayLike, clusters: Clusters | None = None, level: float = 0.95
) -> Interval:
    """mean(numerator) / mean(denominator) over the same items in the same order, cluster-robust with clusters.

    Without bounds where the denominator's mean may be 0. Raises `InputError` where it is 0.
    """
    below, above = finite(denominator, "values of the incumbent"), finite(numerator, "values of the candidate")
    if below.size != above.size:
        raise InputError(
            f"The incumbent has {below.size} values, the candidate {above.size}.", "Compare them on the same items."
        )
    bottom, top, both = (mean_error(x, clusters) for x in (below, above, below + above))
    covariance = (both.error**2 - bottom.error**2 - top.error**2) / 2 if math.isfinite(both.error) else math.nan
    method = "Fieller, paired" if clusters is None else "Fieller, paired, cluster-robust (CR2)"
    return _fieller(bottom, top, covariance, min(bottom.freedom, top.freedom), level, method)


def independent_ratio(
    denominator: ArrayLike,
    numerator: ArrayLike,
    clusters: tuple[Clusters | None, Clusters | None] = (None, None),
    level: float = 0.95,
) -> Interval:
    """mean(numerator) / mean(denominator) of two separate groups, for example the two arms of a canary."""
    bottom, top = mean_error(denominator, clusters[0]), mean_error(numerator, clusters[1])
    return _fieller(bottom, top, 0.0, min(bottom.freedom, top.freedom), level, "Fieller, independent")


def _fieller(
    bottom: MeanError, top: MeanError, covariance: float, freedom: float, level: float, method: str
) -> Interval:
    """The r with (top - r bottom)^2 <= t^2 Var(top - r bottom): between the roots of a quadratic in r."""
    level_checked(level)
    if bottom.mean == 0.0:
        raise InputError("The incumbent's mean is 0, so nothing is a multiple of it.", "Use an absolute margin.")
    estimate, n = top.mean / bottom.mean, bottom.n
    clusters = min(bottom.clusters, top.clusters)
    nothing = Interval(estimate, -math.inf, math.inf, level, n, clusters, method)
    if not (math.isfinite(bottom.error) and math.isfinite(top.error)):
        return nothing
    t2 = t_quantile(0.5 + level / 2, freedom) ** 2
    a = bottom.mean**2 - t2 * bottom.error**2
    if a <= 0.0:  # the denominator may be 0: no ratio can be excluded on one side at least
        return nothing
    b = top.mean * bottom.mean - t2 * covariance
    c = top.mean**2 - t2 * top.error**2
    root = math.sqrt(max(0.0, b * b - a * c))
    low, high = (b - root) / a, (b + root) / a
    return Interval(estimate, min(low, estimate), max(high, estimate), level, n, clusters, method)

"""Means of skewed values and their ratios: what a call costs, how long it takes.

A few expensive calls make the mean. Samples without enough of them have a low mean and, at once, a small spread, so
that Student's interval lies too low too often: its upper end misses the mean of 100 log-normal values (sigma 1) in 8 %
of samples instead of 2.5 %. Hall's transformation of t takes the skewness out ("On the removal of skewness by
transformation", JRSS B 54, 1992). Of few values the skewness is itself uncertain, so each end of an interval is taken
from whichever of the two, transformed or plain, lies further out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite, level_checked
from windlass.evaluate.statistics.distributions import t_cdf, t_quantile
from windlass.evaluate.statistics.intervals import Interval, exceeds_p, mean_error, mean_interval
from windlass.evaluate.statistics.roots import bracket, crossing

_DOUBLINGS = 40
"""A ratio that is not refuted 2^40 half-widths from the estimate is not bounded."""


def skewed_mean_interval(values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """The t interval of a mean, each end moved out to where Hall's transformation puts it, never in."""
    x = finite(values)
    plain, found = mean_interval(x, clusters, level), mean_error(x, clusters)
    if not 0.0 < found.error < math.inf:
        return plain  # nothing varies, or nothing bounds it
    codes, groups = cluster_codes(clusters, x.size)
    sums = np.bincount(codes, weights=x - found.mean, minlength=groups).astype(np.float64)
    low, high = _ends(found.mean, found.error, t_quantile(0.5 + level / 2, found.freedom), sums)
    return Interval(plain.estimate, low, high, level, plain.n, plain.clusters, f"{plain.method}, skewness (Hall)")


def skewed_exceeds_p(values: ArrayLike, bar: float, clusters: Clusters | None = None) -> float:
    """One-sided p-value of "the mean is at most `bar`": at most (1 - level) / 2 where `skewed_mean_interval` lies above
    the bar, and only there."""
    x = finite(values)
    found = mean_error(x, clusters)
    plain = exceeds_p(found, bar)
    if not 0.0 < found.error < math.inf:
        return plain
    codes, groups = cluster_codes(clusters, x.size)
    sums = np.bincount(codes, weights=x - found.mean, minlength=groups).astype(np.float64)
    t = _transformed((found.mean - bar) / found.error, _skewness(sums), groups)
    return max(plain, t_cdf(-t, found.freedom))


def skewed_paired_ratio(
    denominator: ArrayLike, numerator: ArrayLike, clusters: Clusters | None = None, level: float = 0.95
) -> Interval:
    """mean(numerator) / mean(denominator) over the same items: the ratios r for which the interval of
    mean(numerator - r denominator), by `skewed_mean_interval`, holds 0.

    Ends that nothing bounds are infinite. Raises `InputError` unless the denominator's mean is above 0.
    """
    level_checked(level)
    below, above = finite(denominator, "values of the incumbent"), finite(numerator, "values of the candidate")
    if below.size != above.size:
        raise InputError(
            f"The incumbent has {below.size} values, the candidate {above.size}.", "Compare them on the same items."
        )
    bottom, top = mean_error(below, clusters), mean_error(above, clusters)
    if bottom.mean <= 0.0:
        raise InputError(
            f"The incumbent's mean is {bottom.mean:g}, so no ratio can be taken.", "Use an absolute margin."
        )
    estimate, n = top.mean / bottom.mean, below.size
    codes, groups = cluster_codes(clusters, n)
    method = "Fieller, paired, skewness (Hall)"
    if groups < 2:
        return Interval(estimate, -math.inf, math.inf, level, n, groups, method)
    sizes = np.bincount(codes, minlength=groups)
    sums = [
        np.bincount(codes, weights=x - mean, minlength=groups) for x, mean in ((below, bottom.mean), (above, top.mean))
    ]
    quantile = t_quantile(0.5 + level / 2, min(bottom.freedom, top.freedom))

    def interval(ratio: float) -> tuple[float, float]:
        residual = sums[1] - ratio * sums[0]
        error = math.sqrt(float(np.sum(residual * residual / (1.0 - sizes / n)))) / n
        mean = top.mean - ratio * bottom.mean
        if error == 0.0:
            mean = mean if abs(mean) > 1e-12 * abs(top.mean) else 0.0
            return mean, mean
        return _ends(mean, error, quantile, residual)

    around = interval(estimate)
    if around[0] == around[1]:  # every value is the same multiple
        return Interval(estimate, estimate, estimate, level, n, groups, method)
    step = max(1e-6 * abs(estimate), 1e-9, (around[1] - around[0]) / (2.0 * bottom.mean))
    # The ratio rises, the mean of what it leaves falls: its lower end passes 0 first, its upper end last.
    low = _end(lambda ratio: -interval(ratio)[0], estimate, step, -1.0)
    high = _end(lambda ratio: -interval(ratio)[1], estimate, step, 1.0)
    return Interval(estimate, low, high, level, n, groups, method)


def _ends(mean: float, error: float, quantile: float, sums: NDArray[np.float64]) -> tuple[float, float]:
    """The plain and the transformed interval together; `sums` are the clusters' sums of residuals."""
    skewness = _skewness(sums)
    studentised = (quantile, -quantile, *(_back(t, skewness, sums.size) for t in (quantile, -quantile)))
    return mean - error * max(studentised), mean - error * min(studentised)


def _skewness(sums: NDArray[np.float64]) -> float:
    """Of the clusters' sums, shrunk by half of what their jackknife variance accounts for (as James and Stein shrink).

    Clusters of very different size look skewed by chance, and a correction for all of that would widen intervals for
    nothing; shrinking by the whole of it takes few large losses for chance. Half was chosen by simulation.
    """
    n, scale = sums.size, float(np.abs(sums).max())
    if scale == 0.0:
        return 0.0
    x = sums / scale
    second = x * x
    third = second * x
    seen = float(third.mean() / second.mean() ** 1.5)
    if seen == 0.0:
        return 0.0
    # Central moments of all but one, which have a mean of their own; nothing is skewed where nothing else varies.
    mean, rest = -x / (n - 1), (second.sum() - second) / (n - 1)
    spread = rest - mean * mean
    varies = spread > 1e-8 * second.mean()
    cubes = (third.sum() - third) / (n - 1) - 3.0 * mean * rest + 2.0 * mean * mean * mean
    spread = np.where(varies, spread, 1.0)
    without = np.where(varies, cubes / (spread * np.sqrt(spread)), 0.0)
    variance = (n - 1) / n * float(np.sum((without - without.mean()) ** 2))
    return seen * max(0.0, 1.0 - 0.5 * variance / seen**2)


def _back(t: float, skewness: float, n: int) -> float:
    """The studentised value whose transform is `t`: the inverse of g(T) = T + a T^2 + a^2 T^3 / 3 + b."""
    a = skewness / (3.0 * math.sqrt(n))
    if abs(a) < 1e-9:
        return t
    inner = 1.0 + 3.0 * a * (t - a / 2.0)  # b = a / 2
    return (math.copysign(abs(inner) ** (1.0 / 3.0), inner) - 1.0) / a


def _transformed(studentised: float, skewness: float, n: int) -> float:
    """g(T), which is nearly normal where T is skewed."""
    a = skewness / (3.0 * math.sqrt(n))
    return studentised + a * studentised**2 + a * a * studentised**3 / 3.0 + a / 2.0


def _end(rising: Callable[[float], float], estimate: float, step: float, side: float) -> float:
    """Where `rising` passes 0 on one side of the estimate; infinite where nothing refutes however far one goes."""
    least, most = estimate - step * 2.0**_DOUBLINGS, estimate + step * 2.0**_DOUBLINGS
    low, high = bracket(rising, estimate, step, *((least, estimate) if side < 0 else (estimate, most)))
    if low == high:
        return estimate if low == estimate else side * math.inf
    return crossing(rising, low, high, 1e-9 * step)[0 if side < 0 else 1]

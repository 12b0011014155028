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
from windlass.evaluate.statistics.distributions import t_quantile
from windlass.evaluate.statistics.intervals import Interval, mean_error, mean_interval

_DOUBLINGS = 40
"""A ratio that is not refuted at 2^40 times a thousandth of it is not bounded; as many halvings find where it is."""


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

    def held(ratio: float) -> bool:
        residual = sums[1] - ratio * sums[0]
        error = math.sqrt(float(np.sum(residual * residual / (1.0 - sizes / n)))) / n
        mean = top.mean - ratio * bottom.mean
        if error == 0.0:
            return abs(mean) <= 1e-12 * abs(top.mean)
        low, high = _ends(mean, error, quantile, residual)
        return low <= 0.0 <= high

    low, high = (_edge(held, estimate, side) for side in (-1.0, 1.0))
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
    second, third = x**2, x**3
    seen = float(third.mean() / second.mean() ** 1.5)
    if seen == 0.0:
        return 0.0
    # Central moments of all but one, which have a mean of their own; nothing is skewed where nothing else varies.
    mean, rest = -x / (n - 1), (second.sum() - second) / (n - 1)
    spread = rest - mean**2
    varies = spread > 1e-8 * second.mean()
    cubes = (third.sum() - third) / (n - 1) - 3.0 * mean * rest + 2.0 * mean**3
    without = np.where(varies, cubes / np.where(varies, spread, 1.0) ** 1.5, 0.0)
    variance = (n - 1) / n * float(np.sum((without - without.mean()) ** 2))
    return seen * max(0.0, 1.0 - 0.5 * variance / seen**2)


def _back(t: float, skewness: float, n: int) -> float:
    """The studentised value whose transform is `t`: the inverse of g(T) = T + a T^2 + a^2 T^3 / 3 + b."""
    a = skewness / (3.0 * math.sqrt(n))
    if abs(a) < 1e-9:
        return t
    inner = 1.0 + 3.0 * a * (t - a / 2.0)  # b = a / 2
    return (math.copysign(abs(inner) ** (1.0 / 3.0), inner) - 1.0) / a


def _edge(held: Callable[[float], bool], start: float, side: float) -> float:
    """The outermost value held on one side of `start`, where all between the two are."""
    step = max(abs(start), 1e-9) * 1e-3
    inside = start
    for _ in range(_DOUBLINGS):
        outside = start + side * step
        if not held(outside):
            break
        inside, step = outside, 2.0 * step
    else:
        return side * math.inf
    for _ in range(_DOUBLINGS):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if held(middle) else (inside, middle)
    return inside

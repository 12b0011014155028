"""Quantiles, such as the latency that 95 % of the calls do not exceed: their intervals, and their paired
differences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import bootstrap
from windlass.evaluate.statistics.checks import Clusters, finite, level_checked
from windlass.evaluate.statistics.distributions import binomial_cdf
from windlass.evaluate.statistics.intervals import Interval, mean_error
from windlass.evaluate.statistics.paired import differences


def quantile(values: ArrayLike, share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (no interpolation)."""
    x = np.sort(finite(values))
    return float(x[min(x.size - 1, math.ceil(_share_checked(share) * x.size - 1e-9) - 1)])


def quantile_interval(
    values: ArrayLike, share: float, clusters: Clusters | None = None, level: float = 0.95
) -> Interval:
    """Between two of the values themselves, whatever their distribution; an end that too few values support is open.

    How many values lie below the true quantile is binomial, so it stands between two of them whose ranks the binomial
    distribution gives. Values of one cluster are alike and count as the effective number that their spread leaves
    (Woodruff, "Confidence intervals for medians and other position measures", JASA 47, 1952; Korn & Graubard, Survey
    Methodology 24, 1998).
    """
    level_checked(level)
    x = finite(values)
    estimate = quantile(x, share)
    groups, effective = x.size, x.size
    if clusters is not None:
        found = mean_error(np.asarray(x <= estimate, dtype=np.float64), clusters)
        groups = found.clusters
        effective = _effective(share, found.error, x.size, groups)
    tail = (1.0 - level) / 2
    first, last = _rank(effective, share, tail) - 1, _rank(effective, share, 1.0 - tail)
    ordered = np.sort(x)
    # Ranks among as many independent values, carried over to those that there are, outwards.
    first, last = math.floor(first * x.size / effective), math.ceil(last * x.size / effective)
    low = float(ordered[first - 1]) if first >= 1 else -math.inf
    high = float(ordered[last - 1]) if last <= x.size else math.inf
    method = "order statistics" if clusters is None else "order statistics, effective n"
    return Interval(estimate, min(low, estimate), max(high, estimate), level, x.size, groups, method)


def paired_quantile_difference(
    incumbent: ArrayLike,
    candidate: ArrayLike,
    share: float,
    clusters: Clusters | None = None,
    *,
    seed: int,
    resamples: int = 1999,
    level: float = 0.95,
    relative: bool = False,
) -> Interval:
    """Quantile of the candidate minus that of the incumbent, by a seeded BCa bootstrap of whole items or clusters.

    relative: as a share of the incumbent's. Raises `InputError` where too few items lie beyond the quantile for a
    bootstrap to know anything (fewer than 10).
    """
    differences(incumbent, candidate)  # refuses what does not belong together
    a, b = finite(incumbent), finite(candidate)
    beyond = min(share, 1.0 - _share_checked(share)) * a.size
    if beyond < 10:
        raise InputError(
            f"Of {a.size} items only {beyond:.3g} lie beyond the {100 * share:g} % quantile; a comparison needs 10.",
            f"Take {math.ceil(10 / min(share, 1 - share)):,} items, or a quantile nearer to the middle.",
        )
    if np.array_equal(a, b):
        return Interval(0.0, 0.0, 0.0, level, a.size, _groups(clusters, a.size), "bootstrap (BCa)")
    place = math.ceil(share * a.size - 1e-9) - 1

    def statistic(chosen: NDArray[np.intp]) -> float:
        # The size of a resample of clusters varies; so does the place of its quantile.
        at = place if chosen.size == a.size else math.ceil(share * chosen.size - 1e-9) - 1
        old, new = (float(np.partition(x[chosen], at)[at]) for x in (a, b))
        if not relative:
            return new - old
        return new / old - 1.0 if old != 0.0 else math.nan

    return bootstrap(statistic, a.size, clusters, seed=seed, resamples=resamples, level=level)


def _share_checked(share: float) -> float:
    if not 0 < share < 1:
        raise InputError(f"A quantile lies between 0 and 1, not at {share}.", "Use 0.95 for p95.")
    return share


def _effective(share: float, error: float, n: int, groups: int) -> int:
    if not 0.0 < error < math.inf:
        return groups
    return max(1, min(n, math.floor(share * (1.0 - share) / error**2)))


def _rank(n: int, share: float, p: float) -> int:
    """The smallest rank r, from 1 to n + 1, so that fewer than r of n values lie below the quantile with P >= p."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_cdf(middle - 1, n, share) >= p else (middle, high)
    return high


def _groups(clusters: Clusters | None, n: int) -> int:
    return n if clusters is None else len(set(clusters))

"""Looking as often as you like: confidence sequences and p-values that stay valid at every look.

A 95 % interval looked at twenty times while data come in excludes the truth at some look in a quarter of all A/A tests.
A confidence sequence holds it at all looks at once, in 95 % of all repetitions, so a test may be stopped at any of
them.

The boundary is Robbins' normal mixture ("Statistical methods related to the law of the iterated logarithm", 1970): the
likelihood ratio, averaged over effects drawn from N(0, tau^2), is a martingale. With the variance estimated it is the
asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of Statistics 52, 2024) and
the mixture sequential probability ratio test of Johari et al. (Operations Research 70, 2022). It needs no bounds of the
values; `betting` needs bounds and no large numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, level_checked
from windlass.evaluate.statistics.intervals import Interval, mean_error
from windlass.evaluate.statistics.paired import differences

FIRST_LOOK = 30
"""Fewer values, or clusters, bound nothing: their variance is not known well enough for an asymptotic method."""


def mixture_variance(error: float, alpha: float) -> float:
    """The tau^2 that makes the boundary narrowest where the standard error is `error` (Howard et al., Annals of
    Statistics 49, 2021, eq. 3.9): choose the error you expect about half-way through."""
    if not 0 < error < math.inf or not 0 < alpha < 1:
        raise InputError(f"No mixture is best for a standard error of {error} at {alpha}.")
    return error**2 * (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha) + 1.0))


def mixture_half_width(error: float, tau2: float, alpha: float) -> float:
    """Half the width of the two-sided sequence at an estimate with this standard error, at miss rate `alpha`."""
    if math.isinf(error):
        return math.inf
    if error == 0.0:
        return 0.0
    variance = error**2
    total = variance + tau2
    return math.sqrt(variance * total / tau2 * (2.0 * math.log(1.0 / alpha) + math.log(total / variance)))


def always_valid_p(estimate: float, error: float, tau2: float) -> float:
    """Two-sided p-value of "the effect is 0" that may be looked at any time; the smallest seen so far is valid too."""
    if math.isinf(error):
        return 1.0
    if error == 0.0:
        return 1.0 if estimate == 0.0 else 0.0
    variance = error**2
    log_ratio = 0.5 * math.log(variance / (variance + tau2)) + tau2 * estimate**2 / (2 * variance * (variance + tau2))
    return min(1.0, math.exp(-log_ratio)) if log_ratio < 700 else 0.0


def mean_sequence(
    values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95, *, planned: int
) -> Interval:
    """The confidence sequence of a mean after the values so far: call it at every look, with all values each time.

    planned: about how many values you mean to collect. The sequence is valid for any number and narrowest around half
    of it; it must not change between looks. With clusters their sums are what comes in one by one.
    """
    found = mean_error(values, clusters)
    return _interval(found.mean, found.error, found.n, found.clusters, level, planned)


def tally_sequence(n: int, mean: float, variance: float, level: float = 0.95, *, planned: int) -> Interval:
    """The same from the number of independent values so far, their mean and their variance."""
    error = math.sqrt(variance / n) if n > 1 else math.inf
    return _interval(mean, error, n, n, level, planned)


def paired_sequence(
    incumbent: ArrayLike,
    candidate: ArrayLike,
    clusters: Clusters | None = None,
    level: float = 0.95,
    *,
    planned: int,
) -> Interval:
    """The confidence sequence of candidate - incumbent on the same items, after those so far (see `mean_sequence`)."""
    return mean_sequence(differences(incumbent, candidate), clusters, level, planned=planned)


def arms_sequence(
    before: tuple[int, float, float], after: tuple[int, float, float], level: float = 0.95, *, planned: int
) -> Interval:
    """The confidence sequence of mean(after) - mean(before) of two arms, each as (n, mean, variance) so far.

    planned: about how many values both arms together are to have.
    """
    for n, _, variance in (before, after):
        if n < 0 or variance < 0:
            raise InputError(f"An arm has {n} values with a variance of {variance}.")
    n, fewer = before[0] + after[0], min(before[0], after[0])
    error = math.sqrt(before[2] / before[0] + after[2] / after[0]) if fewer > 1 else math.inf
    found = _interval(after[1] - before[1], error, n, fewer, level, planned)
    return replace(found, clusters=n, method=f"{found.method}, two arms")


def running(intervals: Sequence[Interval]) -> Interval:
    """All looks so far together: the truth lies in every one of a sequence's intervals, so in their intersection.

    Empty where they contradict each other, which a true sequence does in at most 1 - level of all repetitions; then the
    latest stands.
    """
    if not intervals:
        raise InputError("There was no look yet.")
    last = intervals[-1]
    low, high = max(one.low for one in intervals), min(one.high for one in intervals)
    if not low <= last.estimate <= high:
        return last
    return Interval(last.estimate, low, high, last.level, last.n, last.clusters, last.method)


def _interval(estimate: float, error: float, n: int, clusters: int, level: float, planned: int) -> Interval:
    alpha = 1.0 - level_checked(level)
    if planned < 2:
        raise InputError(f"A sequence planned for {planned} values looks at nothing.")
    if clusters < FIRST_LOOK or math.isinf(error) or error == 0.0:
        half = math.inf  # what has not varied yet may do so at the next look
    else:
        # The error there will be half-way, from the values so far: in the limit a constant, as the method needs.
        half_way = error * math.sqrt(n / (planned / 2))
        half = mixture_half_width(error, mixture_variance(half_way, alpha), alpha)
    return Interval(estimate, estimate - half, estimate + half, level, n, clusters, "normal mixture sequence")

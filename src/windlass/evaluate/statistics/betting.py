"""The mean of bounded values by betting: valid for any number of values, at any look, whatever their distribution.

Somebody who thinks that the mean is m would accept bets on the next value that are fair under m. Whoever bets against
them and grows a stake of 1 to 1 / alpha has refuted m: under m that happens with probability at most alpha, ever
(Ville's inequality). The interval holds the means that are not refuted.

Source: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), with the
predictable plug-in bets of their section 4 (eq. 26) for a sequence, and of their appendix for a fixed number.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import finite, level_checked
from windlass.evaluate.statistics.intervals import Interval

_CAP = 0.75
"""At most this part of the stake may be lost with one value."""
_STEPS = 45
"""Halvings of the range when a bound is searched; to some 14 digits."""


def betting_interval(values: ArrayLike, bounds: tuple[float, float] = (0.0, 1.0), level: float = 0.95) -> Interval:
    """Interval of the mean of independent values, all decided to be looked at once. Use them in random order."""
    x = _unit(values, bounds)
    return _found(x, _bets(x, level, sequence=False), bounds, level, "betting")


def betting_sequence(values: ArrayLike, bounds: tuple[float, float] = (0.0, 1.0), level: float = 0.95) -> Interval:
    """The confidence sequence after the values so far, in the order in which they came: look as often as you like.

    What any earlier look has refuted stays refuted (the running intersection).
    """
    x = _unit(values, bounds)
    return _found(x, _bets(x, level, sequence=True), bounds, level, "betting sequence")


def betting_p(values: ArrayLike, mean: float, bounds: tuple[float, float] = (0.0, 1.0)) -> float:
    """Always-valid one-sided p-value of "the mean is at most `mean`": one over the largest stake so far."""
    x = _unit(values, bounds)
    bar = (mean - bounds[0]) / (bounds[1] - bounds[0])
    if not 0.0 < bar < 1.0:
        raise InputError(f"The mean {mean:g} does not lie between the bounds {bounds[0]:g} and {bounds[1]:g}.")
    largest = _log_stakes(x, _bets(x, 0.9, sequence=True), bar).max(initial=0.0)
    return math.exp(-largest)


def _unit(values: ArrayLike, bounds: tuple[float, float]) -> NDArray[np.float64]:
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"Betting needs finite bounds of the values, not {low} and {high}.", "Use `mean_sequence`.")
    x = finite(values)
    outside = np.flatnonzero((x < low) | (x > high))
    if outside.size:
        raise InputError(f"Value number {outside[0] + 1} is {x[outside[0]]:g}, not between {low:g} and {high:g}.")
    return (x - low) / (high - low)


def _bets(x: NDArray[np.float64], level: float, *, sequence: bool) -> NDArray[np.float64]:
    """How much to bet on each value, from the spread of those before it: nobody bets on what they have seen."""
    alpha = 1.0 - level_checked(level)
    n = x.size
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    before = np.append(0.25, spread[:-1])
    horizon = count * np.log1p(count) if sequence else np.full(n, float(n))
    bets: NDArray[np.float64] = np.sqrt(2.0 * math.log(2.0 / alpha) / (before * horizon))
    return bets


def _log_stakes(x: NDArray[np.float64], bets: NDArray[np.float64], m: float) -> NDArray[np.float64]:
    """The log of the stake after each value of somebody who bets that the mean is above m."""
    gains: NDArray[np.float64] = np.cumsum(np.log1p(np.minimum(bets, _CAP / m) * (x - m)))
    return gains


def _found(
    x: NDArray[np.float64], bets: NDArray[np.float64], bounds: tuple[float, float], level: float, method: str
) -> Interval:
    target = math.log(2.0 / (1.0 - level))  # each side at half the miss rate
    low, high = _lower(x, bets, target), 1.0 - _lower(1.0 - x, bets, target)
    scale, estimate = bounds[1] - bounds[0], float(x.mean())
    low, high, estimate = (bounds[0] + scale * v for v in (min(low, estimate), max(high, estimate), estimate))
    return Interval(estimate, low, high, level, x.size, x.size, method)


def _lower(x: NDArray[np.float64], bets: NDArray[np.float64], target: float) -> float:
    """The smallest mean that is not refuted from below. The stake falls with m at every value, so halving finds it."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if middle <= 0.0 or middle >= 1.0:
            break
        refuted = bool(_log_stakes(x, bets, middle).max() >= target)
        low, high = (middle, high) if refuted else (low, middle)
    return low

"""How often a rule promotes, as an exact sum over all samples: for right or wrong on independent items.

A sample of n items says how many the candidate won and how many it lost. Both are drawn from a trinomial distribution,
so that the chance of every sample is known, and nothing is left to draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from windlass.evaluate.statistics.distributions import normal_cdf, normal_quantile

Statistic = Callable[[NDArray[np.int_], NDArray[np.int_]], NDArray[np.float64]]
"""Of many samples, each as items won and lost."""
_REACH = 8.0
"""Standard deviations of the number of items that differ, beyond which samples are left out."""


@dataclass(frozen=True, slots=True)
class Chances:
    """Of one item."""

    n: int
    won: float
    lost: float


@lru_cache
def of_latent(n: int, before: float, after: float, correlation: float) -> Chances:
    """Two systems that are right where a normal score of theirs lies below that of the share they get right; the two
    scores correlate. By the trapezoid rule over what both have in common."""
    s = np.linspace(-9.0, 9.0, 4001)
    weight = np.exp(-s * s / 2) * (s[1] - s[0]) / math.sqrt(2 * math.pi)
    old, new = (
        np.array(
            [normal_cdf((normal_quantile(p) - math.sqrt(correlation) * x) / math.sqrt(1 - correlation)) for x in s]
        )
        for p in (before, after)
    )
    return Chances(n, float(np.sum(weight * (1 - old) * new)), float(np.sum(weight * old * (1 - new))))


def promoted(chances: Chances, rule: Callable[[int, int], bool]) -> float:
    """The chance that the rule says yes to (items won, items lost), where a win more never changes that to a no."""
    n, differ = chances.n, chances.won + chances.lost
    table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, n + 1)))])
    total, least = 0.0, 0  # a place to begin: with an item more that differs the bar moves by one at most
    for m in _likely(n, differ):
        least = min(least, m + 1)
        while least <= m and not rule(least, m - least):
            least += 1
        while least > 0 and rule(least - 1, m - least + 1):
            least -= 1
        won = np.arange(least, m + 1)
        total += float(np.sum(_chance(won, m - won, chances, table)))
    return total


def critical(chances: Chances, statistic: Statistic, rate: float, least: float) -> float:
    """The value, `least` at the lowest, which the statistic exceeds with a chance of at most `rate`."""
    value, chance = _samples(chances, statistic)
    order = np.argsort(-value, kind="stable")
    value, above = value[order], np.cumsum(chance[order])
    ends = np.append(value[1:] < value[:-1] - 1e-12, True)  # samples of one value are promoted together or not at all
    allowed = ends & (above <= rate)
    # The largest set that is rare enough is exceeded from the value just beyond it on.
    beyond = int(np.flatnonzero(allowed)[-1]) + 1 if allowed.any() else 0
    return max(least, float(value[min(beyond, value.size - 1)]))


def exceeded(chances: Chances, statistic: Statistic, bar: float) -> float:
    """The chance that the statistic exceeds the bar."""
    value, chance = _samples(chances, statistic)
    return float(np.sum(chance[value > bar + 1e-12]))


def _samples(chances: Chances, statistic: Statistic) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = chances.n
    table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, n + 1)))])
    pairs = [(won, m - won) for m in _likely(n, chances.won + chances.lost) for won in range(m + 1)]
    won, lost = np.array(pairs).T
    return statistic(won, lost), _chance(won, lost, chances, table)


def _likely(n: int, differ: float) -> range:
    spread = _REACH * math.sqrt(n * differ * (1 - differ)) + 12
    return range(max(0, math.floor(n * differ - spread)), min(n, math.ceil(n * differ + spread)) + 1)


def _chance(
    won: NDArray[np.int_], lost: NDArray[np.int_], chances: Chances, table: NDArray[np.float64]
) -> NDArray[np.float64]:
    same, n = chances.n - won - lost, chances.n
    logs = table[n] - table[won] - table[lost] - table[same]
    for count, p in ((won, chances.won), (lost, chances.lost), (same, 1.0 - chances.won - chances.lost)):
        logs = logs + (count * math.log(p) if p > 0.0 else np.where(count > 0, -np.inf, 0.0))
    found: NDArray[np.float64] = np.exp(logs)
    return found

"""Right or wrong on the same independent items: an interval of the difference that never errs more often than it says.

Methods for large samples err in 2.6 % where they say 2.5, and in 12 % where losses are rare. Here the chance is summed
over all samples that n items can give. A sample of n says how many items were won and how many lost, so the chance of
each is known but for two numbers: the difference d, and the share q of items on which the systems differ at all.

- Which samples count as more in the candidate's favour than the one seen: those whose lower end by Tango's score test
  (`paired_shares`, 95 %) lies higher. They are a fixed set, whatever d and the error rate.
- The lower end is the d at which that set has just the chance allowed (Buehler, JASA 52, 1957; for pairs Lloyd &
  Moldovan, Statistics in Medicine 26, 2007). The chance rises with d, so that there is one such d, and a gate that asks
  whether the end lies above a bar has made the exact test at that bar.
- Of q the worst is taken, but only among those that agree with the items seen (Berger & Boos, JASA 89, 1994): a
  thousandth of the error rate pays for the q left out.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import level_checked
from windlass.evaluate.statistics.distributions import normal_cdf, normal_quantile
from windlass.evaluate.statistics.paired_shares import score_interval, score_statistic
from windlass.evaluate.statistics.risk import upper_limit
from windlass.evaluate.statistics.roots import bracket, crossing

MOST = 20_000
"""Where the systems differ on more items than this, the score interval is as good: it errs by less than a millionth."""
_FOR_SHARES = 0.001
"""Part of the error rate that is spent on the shares left out."""
_SHARES = 24
_NEAR = 1e-9
_REACH = 7.0
"""Standard deviations of the number of items that differ, beyond which samples are left out: a chance of 1e-12."""
_TINY, _MOST_RATE = 1e-8, 0.49
"""Below it a p-value is the score test's, above it 1: nobody decides there."""

Array = NDArray[np.float64]


@lru_cache(maxsize=65536)
def exact_interval(better: int, worse: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The ends of the interval of (better - worse) / n, after so many items won and lost of n.

    Each end lies beyond the true difference in at most (1 - level) / 2 of all samples, whatever the share of items on
    which the two systems differ. Raises `InputError` for numbers that cannot be.
    """
    _counted(better, worse, n)
    if better + worse > MOST:
        return score_interval(better, worse, n, level)
    error_rate = (1.0 - level_checked(level)) / 2
    return _lower_end(better, worse, n, error_rate), -_lower_end(worse, better, n, error_rate)


@lru_cache(maxsize=65536)
def exact_exceeds_p(better: int, worse: int, n: int, bar: float = 0.0) -> float:
    """One-sided p-value of "the difference is at most `bar`": the error rate at which the lower end of `exact_interval`
    reaches the bar, found by going from one rate to the next as only the shares considered depend on it."""
    _counted(better, worse, n)
    if not -1.0 < bar < 1.0:
        return 1.0 if bar >= 1.0 else 0.0
    rate = normal_cdf(-score_statistic(better, worse, n, bar))
    if rate < _TINY or better + worse > MOST:
        return rate
    for _ in range(20):
        before, rate = rate, min(rate, _MOST_RATE)
        rate = _Favourable(better, worse, n, rate).most_likely(bar) + _FOR_SHARES * rate
        if rate >= _MOST_RATE:
            return 1.0
        if abs(rate - before) <= 1e-9 * rate:
            break
    return rate


def _counted(better: int, worse: int, n: int) -> None:
    if not (n > 0 and better >= 0 and worse >= 0 and better + worse <= n):
        raise InputError(f"{better} items won and {worse} lost of {n} cannot be.")


def _lower_end(better: int, worse: int, n: int, error_rate: float) -> float:
    """Rather a hair below than above. On the normal scale the chance is nearly a line, so few steps find it."""
    if worse == n:
        return -1.0
    favourable, estimate = _Favourable(better, worse, n, error_rate), (better - worse) / n
    allowed = normal_quantile((1.0 - _FOR_SHARES) * error_rate)

    def excess(difference: float) -> float:
        return normal_quantile(min(max(favourable.most_likely(difference), 1e-15), 1.0 - 1e-15)) - allowed

    start = score_interval(better, worse, n, 1.0 - 2.0 * error_rate)[0]
    low, high = bracket(excess, start, 0.02 * (estimate - start) + 1e-6, -1.0, estimate)
    return low if low == high else crossing(excess, low, high, _NEAR)[0]


class _Favourable:
    """The samples that favour the candidate at least as much as the one seen, as numbers of items won.

    With m items that differ they are those with `won[m]` or more of them won. One item more that differs asks for as
    many or for one more, since a win never harms and a loss never helps.
    """

    def __init__(self, better: int, worse: int, n: int, error_rate: float) -> None:
        seen, beyond = better + worse, _FOR_SHARES * error_rate / 2
        self.n = n
        self.shares = (1.0 - upper_limit(n - seen, n, beyond), upper_limit(seen, n, beyond))
        low, high = (n * q + side * (_REACH * math.sqrt(n * q * (1 - q)) + 12) for q, side in zip(self.shares, (-1, 1)))
        self.differ = np.arange(max(0, math.floor(low)), min(n, math.ceil(high)) + 1)
        self.end = score_interval(better, worse, n)[0]
        self.won = _least_won(self.differ, n, self.end, score_statistic(better, worse, n, self.end))
        self.won[self.differ == seen] = better
        # Whatever the rounding: with a sample all that have more won or fewer lost.
        self.won = self.differ - np.maximum.accumulate(self.differ - self.won)
        self.won = np.minimum.accumulate(self.won[::-1])[::-1]

    def most_likely(self, difference: float) -> float:
        """Their chance where the systems differ so, for the share of items that differ which makes it largest."""
        low, high = max(self.shares[0], abs(difference), 1e-12), self.shares[1]
        if low > high:
            return 0.0  # no share that agrees with the items seen gives such a difference
        q = np.linspace(low, high, _SHARES)[:, None]
        theta = np.clip(0.5 * (1.0 + difference / q), 1e-13, 1.0 - 1e-13)
        chances = _binomial(self.differ, self.n, np.minimum(q, 1.0 - 1e-13)) * self._won_enough(theta)
        return float(chances.sum(axis=1).max())

    def _won_enough(self, theta: Array) -> Array:
        """P(at least `won[m]` of m items are won), each with chance `theta`: for the first m by its sum, then on from
        m to m + 1, which changes it by one term."""
        m, k = self.differ, self.won
        first = np.arange(k[0], m[0] + 1)
        start = _binomial(first, int(m[0]), theta).sum(axis=1, keepdims=True)
        more = k[1:] > k[:-1]
        at = np.where(more, k[:-1], k[:-1] - 1)
        possible = (at >= 0) & (at <= m[:-1])
        term = _binomial(np.where(possible, at, 0), m[:-1], theta) * possible
        return np.concatenate([start, start + np.cumsum(np.where(more, -(1.0 - theta), theta) * term, axis=1)], axis=1)


def _least_won(differ: NDArray[np.intp], n: int, difference: float, least: float) -> NDArray[np.intp]:
    """For each number of items that differ, how many must be won for a score statistic of at least so much."""
    never, always = np.full(differ.size, -1), differ + 1
    while (always - never > 1).any():
        middle = (never + always + 1) // 2
        enough = _score(middle, differ - middle, n, difference) >= least - 1e-9
        never, always = np.where(enough, never, middle), np.where(enough, middle, always)
    return always


def _score(better: NDArray[np.intp], worse: NDArray[np.intp], n: int, d: float) -> Array:
    """`paired_shares.score_statistic` of many samples."""
    b = -better - worse + (2.0 * n - better + worse) * d
    root = np.sqrt(np.maximum(0.0, b * b + 8.0 * n * worse * d * (1.0 - d)))
    lost = np.maximum(max(0.0, -d), (root - b) / (4.0 * n))
    spread = n * (2.0 * lost + d * (1.0 - d))
    above = better - worse - n * d
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(spread > 0.0, above / np.sqrt(spread), np.where(above == 0.0, 0.0, above * np.inf))
    return found


def _binomial(k: NDArray[np.intp], n: int | NDArray[np.intp], p: Array) -> Array:
    """P(k of n), a row for each p."""
    table = _log_factorials(1 << int(np.max(n)).bit_length())
    found: Array = np.exp(table[n] - table[k] - table[n - k] + k * np.log(p) + (n - k) * np.log1p(-p))
    return found


@lru_cache(maxsize=4)
def _log_factorials(most: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, most + 1)))])

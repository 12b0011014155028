"""Right or wrong on the same items: the interval of the difference of two shares, by Tango's score test.

The t interval takes its variance from the items seen. Where the candidate loses 10 % of the items and wins none, 50
items show so few losses in a ninth of all samples that it lies above -10 %. The score test asks of each difference d
how the items seen would spread *if d were true*, and errs as often as it says for few items and rare events too. At d =
0 it is McNemar's test.

Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
design", Statistics in Medicine 17 (1998).
"""

from __future__ import annotations

import math

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import level_checked
from windlass.evaluate.statistics.distributions import normal_quantile

_HALVINGS = 50


def score_interval(better: float, worse: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The ends of the interval of (better - worse) / n, after so many items won and lost of n.

    The numbers may be fractions: effective ones, of items that come in clusters. Raises `InputError` for numbers that
    cannot be.
    """
    z = normal_quantile(0.5 + level_checked(level) / 2)
    if not (n > 0 and better >= 0 and worse >= 0 and better + worse <= n * (1 + 1e-9)):
        raise InputError(f"{better:g} items won and {worse:g} lost of {n:g} cannot be.")
    return -_end(worse, better, n, z), _end(better, worse, n, z)


def score_statistic(better: float, worse: float, n: float, difference: float) -> float:
    """How many standard deviations the items seen lie above a true `difference`: normal, if that is the true one."""
    above = better - worse - n * difference
    spread = n * (2.0 * _lost(better, worse, n, difference) + difference * (1.0 - difference))
    if spread <= 0.0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(spread)


def _lost(better: float, worse: float, n: float, d: float) -> float:
    """The likeliest share of items lost, where the share won is `d` more: the root of a quadratic (Tango's q21)."""
    b = -better - worse + (2.0 * n - better + worse) * d
    c = -worse * d * (1.0 - d)
    root = math.sqrt(max(0.0, b * b - 8.0 * n * c))
    return max(0.0, -d, (root - b) / (4.0 * n))


def _end(better: float, worse: float, n: float, z: float) -> float:
    """The largest difference from which the items seen lie less than z below."""
    low, high = (better - worse) / n, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if score_statistic(better, worse, n, middle) > -z else (low, middle)
    return high

"""Sample-ratio mismatch: did traffic arrive in the shares it was meant to?

When a canary that is to get 10 % of the calls gets 8 %, something loses calls: a crash, a redirect, a cache, a filter.
What is lost is seldom a random part, so the comparison of the arms is worth nothing until that is found. A check at a
strict rate (0.001 is usual) finds it early (Fabijan et al., "Diagnosing sample ratio mismatch in online controlled
experiments", KDD 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.distributions import chi2_cdf

STRENGTH = 1_000.0
"""Of the other shares that are held to be possible. Where one of two equal arms loses half of its traffic, a fifth, a
twentieth or a fiftieth, that is found at a rate of 0.001 after 435, 1,900, 27,000 or 188,000 units; with ten times the
strength after 1,200, 4,000, 31,000 or 173,000."""


def ratio_mismatch_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """p-value of "units arrive in these shares", for one look: Pearson's chi-square test."""
    seen, expected = _checked(counts, shares)
    total = seen.sum()
    if total == 0:
        return 1.0
    statistic = float(np.sum((seen - total * expected) ** 2 / (total * expected)))
    return 1.0 - chi2_cdf(statistic, seen.size - 1)


def sequential_mismatch_p(counts: Sequence[int], shares: Sequence[float], strength: float = STRENGTH) -> float:
    """The same, valid at every look: stop the experiment whenever it falls below your rate. The smallest seen so far is
    valid too.

    One over the Bayes factor of other shares, spread around the meant ones as a Dirichlet distribution with `strength`
    pseudo-counts, against the meant ones; it is a martingale under them (Lindon & Malek, "Anytime-valid inference for
    multinomial count data", NeurIPS 2022).
    """
    return periods_mismatch_p([(counts, shares)], strength)


def periods_mismatch_p(periods: Sequence[tuple[Sequence[int], Sequence[float]]], strength: float = STRENGTH) -> float:
    """The same where shares changed on the way: (counts, shares) of each period. A product of martingales, one after
    the other, is one as well."""
    if not 0 < strength < math.inf:
        raise InputError(f"The strength must be above 0, not {strength}.")
    return min(1.0, math.exp(min(0.0, -math.fsum(_log_factor(*one, strength) for one in periods))))


def _log_factor(counts: Sequence[int], shares: Sequence[float], strength: float) -> float:
    """Bayes factor of other shares against the meant ones."""
    seen, expected = _checked(counts, shares)
    prior = strength * expected
    found = math.lgamma(strength) - math.lgamma(strength + float(seen.sum()))
    for count, before, share in zip(seen.tolist(), prior.tolist(), expected.tolist()):
        found += math.lgamma(before + count) - math.lgamma(before) - count * math.log(share)
    return found


def _checked(counts: Sequence[int], shares: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    seen, expected = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if seen.ndim != 1 or seen.shape != expected.shape or seen.size < 2:
        raise InputError(f"There are {seen.size} counts and {expected.size} shares; two arms or more have one of each.")
    if not np.isfinite(seen).all() or (seen < 0).any() or (seen % 1 != 0).any():
        raise InputError(f"Counts are whole numbers from 0, not {list(counts)}.")
    if not np.isfinite(expected).all() or (expected <= 0).any() or abs(expected.sum() - 1.0) > 1e-6:
        raise InputError(f"The shares {list(shares)} are not above 0 with a sum of 1.")
    return seen, expected / expected.sum()

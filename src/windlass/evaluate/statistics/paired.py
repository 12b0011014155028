"""Two systems on the same questions: the difference item by item, its interval and its tests.

Most questions are easy or hard for both systems; pairing removes that common part of the spread, which is why a
paired comparison needs several times fewer questions than two separate scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite
from windlass.evaluate.statistics.distributions import t_cdf
from windlass.evaluate.statistics.intervals import Interval, MeanError, mean_error, mean_interval
from windlass.evaluate.statistics.paired_shares import score_interval
from windlass.evaluate.statistics.skewed import skewed_mean_interval

_EXACT = 16
"""Up to this many clusters all 2^G sign patterns are tried."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Candidate minus incumbent."""

    difference: Interval
    error: float
    """Standard error of the difference, cluster-robust when clusters were given."""
    p_value: float
    """Two-sided, of the t test that matches the interval: below 1 - level when 0 is outside."""
    better: int
    """Items on which the candidate scored higher."""
    worse: int
    same: int
    freedom: float
    """Degrees of freedom that the error is judged with."""


def paired_difference(
    incumbent: ArrayLike, candidate: ArrayLike, clusters: Clusters | None = None, level: float = 0.95
) -> PairedDifference:
    """Mean of candidate - incumbent over the same items in the same order, with a (cluster-robust) t interval.

    Each end stands further out where the t interval is known to fail: for right or wrong where the score test puts it
    (`paired_shares`), else where Hall's transformation for skewed values does (`skewed`). Of losses that are rare or
    large a sample without one knows nothing, and without these corrections a gate would take it for proof.
    """
    difference = differences(incumbent, candidate)
    better, worse = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    same = difference.size - better - worse
    found = mean_error(difference, clusters)
    if same < difference.size and np.isin(difference, (-1.0, 0.0, 1.0)).all():
        interval = _of_shares(mean_interval(difference, clusters, level), found, better, worse)
    else:
        interval = skewed_mean_interval(difference, clusters, level)
    return PairedDifference(interval, found.error, _two_sided_p(found), better, worse, same, found.freedom)


def _of_shares(plain: Interval, found: MeanError, better: int, worse: int) -> Interval:
    """The t and the score interval together; with clusters of as many independent items as would spread as much."""
    n, alone = float(found.n), (better + worse) / found.n - found.mean**2
    if 0.0 < found.error < math.inf:
        n = max(1.0, min(n, alone / found.error**2 if plain.clusters < plain.n else n))
    share = n / found.n
    low, high = score_interval(better * share, worse * share, n, plain.level)
    return replace(
        plain, low=max(-1.0, min(plain.low, low)), high=min(1.0, max(plain.high, high)), method=f"{plain.method}, score"
    )


def _two_sided_p(found: MeanError) -> float:
    if found.error == 0.0:
        return 1.0 if found.mean == 0.0 else 0.0
    if math.isinf(found.error):
        return 1.0
    return 2.0 * t_cdf(-abs(found.mean / found.error), found.freedom)


def differences(incumbent: ArrayLike, candidate: ArrayLike) -> NDArray[np.float64]:
    """candidate - incumbent. Raises `InputError` when the two are not of the same length or not finite."""
    a, b = finite(incumbent, "scores of the incumbent"), finite(candidate, "scores of the candidate")
    if a.size != b.size:
        raise InputError(
            f"The incumbent has {a.size} scores, the candidate {b.size}.", "Compare them on the same items."
        )
    return b - a


def sign_flip_p(
    difference: ArrayLike, clusters: Clusters | None = None, *, seed: int = 0, permutations: int = 4_999
) -> float:
    """Two-sided p-value of 'the systems are exchangeable': under it every cluster's difference may flip its sign.

    Exact up to 16 clusters; beyond, `permutations` seeded draws, counted with the observed one among them so that
    the test keeps its level (Phipson & Smyth, "Permutation p-values should never be zero", 2010).
    """
    x = finite(difference, "differences")
    codes, groups = cluster_codes(clusters, x.size)
    sums = np.bincount(codes, weights=x, minlength=groups)
    observed = abs(float(sums.sum()))
    # A hair below, so that patterns equal to the observed one but for rounding count as equal.
    threshold = observed - 1e-9 * max(1.0, float(np.abs(sums).sum()))
    if groups <= _EXACT:
        patterns = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1
        return float(np.mean(np.abs((2.0 * patterns - 1.0) @ sums) >= threshold))
    rng = np.random.default_rng(seed)
    reached, step = 0, max(1, 4_000_000 // groups)
    for start in range(0, permutations, step):
        rows = min(step, permutations - start)
        signs = rng.integers(0, 2, size=(rows, groups), dtype=np.int8).astype(np.float64) * 2.0 - 1.0
        reached += int(np.sum(np.abs(signs @ sums) >= threshold))
    return (reached + 1) / (permutations + 1)


def mcnemar_p(incumbent: ArrayLike, candidate: ArrayLike) -> float:
    """Two-sided exact McNemar test for right/wrong scores of independent items (McNemar, Psychometrika 12, 1947).

    Of the items on which the two disagree, either should win half; never below its level, and often far above it:
    `mcnemar_mid_p` wastes less.
    """
    discordant, fewer = _discordant(incumbent, candidate)
    return min(1.0, 2.0 * math.fsum(_half_chance(k, discordant) for k in range(fewer + 1)))


def mcnemar_mid_p(incumbent: ArrayLike, candidate: ArrayLike) -> float:
    """Two-sided mid-p McNemar test for right/wrong scores of independent items.

    The mid-p counts the observed split half, which undoes most of the exact test's conservatism (Fagerland, Lydersen
    & Laake, BMC Med Res Methodol 13:91, 2013).
    """
    discordant, fewer = _discordant(incumbent, candidate)
    if 2 * fewer == discordant:
        return 1.0
    tail = math.fsum(_half_chance(k, discordant) for k in range(fewer)) + 0.5 * _half_chance(fewer, discordant)
    return min(1.0, 2.0 * tail)


def _discordant(incumbent: ArrayLike, candidate: ArrayLike) -> tuple[int, int]:
    """(items on which the two disagree, those of them that the less lucky one won)."""
    difference = differences(incumbent, candidate)
    if not np.isin(difference, (-1.0, 0.0, 1.0)).all():
        raise InputError("McNemar's test takes scores of 0 and 1 only.", "Use `sign_flip_p` for graded scores.")
    better, worse = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    return better + worse, min(better, worse)


def _half_chance(k: int, n: int) -> float:
    """P(k of n) of a fair coin."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0))

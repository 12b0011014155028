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
from windlass.evaluate.statistics.distributions import normal_cdf
from windlass.evaluate.statistics.intervals import Interval, MeanError, exceeds_p, mean_error, mean_interval
from windlass.evaluate.statistics.paired_exact import exact_exceeds_p, exact_interval
from windlass.evaluate.statistics.paired_shares import score_interval, score_statistic
from windlass.evaluate.statistics.skewed import skewed_exceeds_p, skewed_mean_interval

_EXACT = 16
"""Up to this many clusters all 2^G sign patterns are tried."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Candidate minus incumbent."""

    difference: Interval
    error: float
    """Standard error of the difference, cluster-robust when clusters were given."""
    p_value: float
    """Two-sided, of the test behind the interval: below 1 - level where 0 is outside, and only there."""
    better: int
    """Items on which the candidate scored higher."""
    worse: int
    same: int
    freedom: float
    """Degrees of freedom that the error is judged with."""


def paired_difference(
    incumbent: ArrayLike, candidate: ArrayLike, clusters: Clusters | None = None, level: float = 0.95
) -> PairedDifference:
    """Mean of candidate - incumbent over the same items in the same order, with an interval that suits the values.

    Right or wrong, independent: exact (`paired_exact`). Right or wrong in clusters: cluster-robust t, each end moved
    out to where the score test puts it (`paired_shares`). All else: t, cluster-robust with clusters, each end moved
    out to where Hall's transformation for skewed values puts it (`skewed`). Of losses that are rare or large a sample
    without one knows nothing; t alone would let a gate take it for proof.
    """
    difference = differences(incumbent, candidate)
    better, worse = _counts(difference)
    interval, found = paired_interval(difference, clusters, level), mean_error(difference, clusters)
    p = 2.0 * paired_exceeds_p(difference if found.mean > 0.0 else -difference, 0.0, clusters)
    same = difference.size - better - worse
    return PairedDifference(interval, found.error, min(1.0, p), better, worse, same, found.freedom)


def paired_interval(difference: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """The interval of `paired_difference`, from the differences of the items."""
    x = finite(difference, "differences")
    better, worse = _counts(x)
    if better + worse == 0 or not _of_shares(x):
        return skewed_mean_interval(x, clusters, level)
    plain, found = mean_interval(x, clusters, level), mean_error(x, clusters)
    if found.clusters == found.n:
        low, high = exact_interval(better, worse, found.n, level)
        return replace(plain, low=low, high=high, method="exact, by Tango's score")
    n = _effective(found, better, worse)
    low, high = score_interval(better * n / found.n, worse * n / found.n, n, level)
    low, high = max(-1.0, min(plain.low, low)), min(1.0, max(plain.high, high))
    return replace(plain, low=low, high=high, method=f"{plain.method}, score")


def paired_exceeds_p(difference: ArrayLike, bar: float, clusters: Clusters | None = None) -> float:
    """One-sided p-value of "the mean of the paired differences is at most `bar`": at most (1 - level) / 2 where the
    interval of `paired_difference` lies above the bar, and only there."""
    x = finite(difference, "differences")
    better, worse = _counts(x)
    if better + worse == 0 or not _of_shares(x):
        return skewed_exceeds_p(x, bar, clusters)
    found = mean_error(x, clusters)
    if found.clusters == found.n:
        return exact_exceeds_p(better, worse, found.n, bar)
    n = _effective(found, better, worse)
    score = score_statistic(better * n / found.n, worse * n / found.n, n, bar)
    return max(exceeds_p(found, bar), normal_cdf(-score))


def _counts(difference: NDArray[np.float64]) -> tuple[int, int]:
    """Items won and lost."""
    return int(np.sum(difference > 0)), int(np.sum(difference < 0))


def _of_shares(difference: NDArray[np.float64]) -> bool:
    return bool(np.isin(difference, (-1.0, 0.0, 1.0)).all())


def _effective(found: MeanError, better: int, worse: int) -> float:
    """How many independent items would spread as much as these do in their clusters."""
    alone = (better + worse) / found.n - found.mean**2
    if not 0.0 < found.error < math.inf:
        return float(found.n)
    return max(1.0, min(float(found.n), alone / found.error**2))


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

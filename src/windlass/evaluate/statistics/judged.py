"""Means of what people would say, from what a judge says of many items and people of few.

A judge errs, so the mean of its scores is not that of the people whom it stands in for. Two corrections, each with the
uncertainty of the calibration in its interval, and each with its own assumption:

- Rogan & Gladen (Am J Epidemiol 107, 1978) for right or wrong: the judge errs on these items as often as on the
  labelled ones *of the same class*. The labelled items may come from elsewhere, with another share of right ones.
- Prediction-powered inference (Angelopoulos et al., Science 382, 2023; PPI++, arXiv 2311.01453) for any score: the
  labelled items are a *random sample* of the same items. The judge may err in any way; a bad one only costs width.

All are of independent items, or of clusters where these are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite, level_checked
from windlass.evaluate.statistics.distributions import normal_quantile, t_quantile
from windlass.evaluate.statistics.intervals import Interval, mean_error, wilson_interval
from windlass.evaluate.statistics.paired import differences, paired_difference

_RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How a judge's pass and fail stand to those of people, on labelled items."""

    sensitivity: Interval
    """Of the items that people pass, the share that it passes."""
    specificity: Interval
    """Of the items that people fail, the share that it fails."""

    @property
    def informedness(self) -> float:
        """Sensitivity + specificity - 1 (Youden's J): 1 never errs, 0 says the same of right and wrong."""
        return self.sensitivity.estimate + self.specificity.estimate - 1.0


def error_rates(human: ArrayLike, judge: ArrayLike, level: float = 0.95) -> ErrorRates:
    """Sensitivity and specificity with Wilson's intervals. Raises `InputError` unless people pass and fail some."""
    truth, said = _zero_one(human, "labels of people"), _zero_one(judge, "judgements of labelled items")
    if truth.size != said.size:
        raise InputError(f"{truth.size} labels stand against {said.size} judgements.", "Compare them on common items.")
    passed, failed = int(truth.sum()), int(truth.size - truth.sum())
    if not passed or not failed:
        raise InputError(
            f"People pass {passed} of the {truth.size} labelled items and fail {failed}.",
            "Label items of both kinds: of the other one, nothing tells how the judge errs.",
        )
    hits, rejections = int(np.sum((truth == 1) & (said == 1))), int(np.sum((truth == 0) & (said == 0)))
    return ErrorRates(wilson_interval(hits, passed, level), wilson_interval(rejections, failed, level))


def rogan_gladen(
    judged: ArrayLike,
    human: ArrayLike,
    judge: ArrayLike,
    *,
    clusters: Clusters | None = None,
    method: Literal["delta", "bootstrap"] = "delta",
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The share of items that people would pass, from a judge's `judged` (0 or 1), corrected for how it errs.

    human, judge: labels and judgements of the labelled items, in one order; they are none of `judged`.
    clusters: of `judged`.
    method: "delta" is Lang & Reiczigel's (Prev Vet Med 113, 2014), which holds its level also where the judge made no
        error on few labels; "bootstrap" draws all three shares anew.

    Raises `InputError` for a judge that cannot be told from one that guesses, as no correction exists for it, and for
    judgements that its error rates cannot explain.
    """
    x, rates = _zero_one(judged, "judgements"), error_rates(human, judge, level)
    z = normal_quantile(0.5 + level_checked(level) / 2)
    se, m1 = _shrunk(rates.sensitivity)
    sp, m0 = _shrunk(rates.specificity)
    _tells(rates, se, m1, sp, m0, z)
    point = min(1.0, max(0.0, (float(x.mean()) + rates.specificity.estimate - 1.0) / rates.informedness))
    found = mean_error(x, clusters)
    size = _effective(x, found.error)
    if method == "bootstrap":
        rng = np.random.default_rng(seed)
        # The sizes that clusters leave need not be whole; the draws are, and the share is of them.
        n = max(1, round(size))
        q = rng.binomial(n, (x.mean() * n + 0.5) / (n + 1), _RESAMPLES) / n
        drawn_se, drawn_sp = rng.binomial(m1, se, _RESAMPLES) / m1, rng.binomial(m0, sp, _RESAMPLES) / m0
        informed = drawn_se + drawn_sp - 1.0
        kept = informed > 0
        replicates = (q + drawn_sp - 1.0)[kept] / informed[kept]
        low, high = np.quantile(replicates, [0.5 - level / 2, 0.5 + level / 2])
    else:
        n_ = size + z * z
        q_ = (size * float(x.mean()) + z * z / 2) / n_
        informed_ = se + sp - 1.0
        p = (q_ + sp - 1.0) / informed_
        a, b = se * (1 - se) / m1, sp * (1 - sp) / m0
        shift = 2 * z * z * (p * a - (1 - p) * b)
        half = z * math.sqrt(q_ * (1 - q_) / n_ + p * p * a + (1 - p) ** 2 * b) / informed_
        low, high = p + shift - half, p + shift + half
    if low > 1.0 or high < 0.0:
        raise InputError(
            f"The judge passes {float(x.mean()):.3f} of the items, which no share of right ones explains: with these "
            f"error rates it passes from {1 - rates.specificity.estimate:.3f} to {rates.sensitivity.estimate:.3f}.",
            "It errs otherwise on these items than on the labelled ones: label some of these.",
        )
    low, high = min(max(float(low), 0.0), point), max(min(float(high), 1.0), point)
    name = f"Rogan-Gladen ({'Lang-Reiczigel' if method == 'delta' else 'bootstrap'}), {m1 + m0 - 4} labels"
    return Interval(point, low, high, level, x.size, found.clusters, name)


def rogan_gladen_difference(
    before: ArrayLike,
    after: ArrayLike,
    human: ArrayLike,
    judge: ArrayLike,
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
) -> Interval:
    """How many more of the same items people would pass `after`, from one judge's view of both (0 or 1 each).

    Holds where the judge errs on both systems alike; a judge that favours one of them, say its own family, is a case
    for `prediction_powered` on differences. By the delta method: the difference of the shares divided by the judge's
    informedness, which stands in both and makes the interval wider in proportion to the difference.
    """
    a, b = _zero_one(before, "judgements before"), _zero_one(after, "judgements after")
    rates = error_rates(human, judge, level)
    z = normal_quantile(0.5 + level_checked(level) / 2)
    se, m1 = _shrunk(rates.sensitivity)
    sp, m0 = _shrunk(rates.specificity)
    _tells(rates, se, m1, sp, m0, z)
    found = mean_error(differences(a, b), clusters)
    informed = se + sp - 1.0
    point = found.mean / rates.informedness
    variance = found.error**2 + point**2 * (se * (1 - se) / m1 + sp * (1 - sp) / m0)
    if math.isinf(found.error):
        return Interval(point, -1.0, 1.0, level, a.size, found.clusters, "Rogan-Gladen (delta)")
    half = max(z, t_quantile(0.5 + level / 2, found.freedom)) * math.sqrt(variance) / informed
    # Of losses that are rare the judge's own interval knows more than its standard error does.
    own = paired_difference(a, b, clusters, level).difference
    low, high = min(point - half, own.low / informed), max(point + half, own.high / informed)
    name = f"Rogan-Gladen difference (delta), {m1 + m0 - 4} labels"
    return Interval(point, low, high, level, a.size, found.clusters, name).within(-1.0, 1.0)


def prediction_powered(
    judged: ArrayLike,
    human: ArrayLike,
    judge: ArrayLike,
    *,
    clusters: Clusters | None = None,
    labelled_clusters: Clusters | None = None,
    weight: float | None = None,
    level: float = 0.95,
) -> Interval:
    """The mean of what people would say: their mean on the labelled items, moved by what the judge says of the others.

    judged: the judge's scores of items without labels; human, judge: of the labelled ones, a random sample of all.
    For two systems under one judge give the differences of each item's scores, and the result is that of the means.
    weight: how far the judge is trusted, from 0 (labels alone) to 1; by default as makes the interval shortest (PPI++,
        equation 8). Whatever it is, the interval is right; a wrong one is only wider.

    The spread of the two sets adds up, with Welch's degrees of freedom, as labels are few. A weight that was fitted on
    them follows them: then their spread is what the result varies by when each is left out in turn and the weight
    fitted anew (the jackknife), where that is more.
    """
    f_other = finite(judged, "judgements of items without labels")
    y, f = finite(human, "labels of people"), finite(judge, "judgements of labelled items")
    if y.size != f.size:
        raise InputError(f"{y.size} labels stand against {f.size} judgements.", "Compare them on common items.")
    if y.size < 2:
        raise InputError("One label tells nothing of how the judge errs.", "Label some 50 items or more.")
    trust = _best_weight(y, f, f_other) if weight is None else weight
    left = mean_error(y - trust * f, labelled_clusters)
    if weight is None:
        error = max(left.error, _error_with_weight(y, f, f_other, labelled_clusters))
        left = replace(left, error=error, freedom=max(1.0, left.freedom - 1.0))
    moved = mean_error(trust * f_other, clusters)
    variance = left.error**2 + moved.error**2
    point = left.mean + moved.mean
    name = f"prediction-powered (weight {trust:.2f}), {y.size} labels"
    n, groups = y.size + f_other.size, left.clusters + moved.clusters
    if not math.isfinite(variance):
        return Interval(point, -math.inf, math.inf, level, n, groups, name)
    if variance == 0:  # nothing varied among the labelled items: of so many that is known, and of no others
        return Interval(point, point, point, level, y.size, left.clusters, name)
    parts = [(one.error**2, one.freedom) for one in (left, moved) if one.error > 0]
    freedom = variance**2 / sum(v * v / free for v, free in parts)
    half = t_quantile(0.5 + level_checked(level) / 2, freedom) * math.sqrt(variance)
    return Interval(point, point - half, point + half, level, n, groups, name)


def _best_weight(y: NDArray[np.float64], f: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    spread = float(np.var(np.concatenate([f, other]), ddof=1))
    if spread == 0:
        return 0.0
    together = float(np.cov(y, f)[0, 1])
    return min(1.0, max(0.0, together / (spread * (1.0 + y.size / other.size))))


def _error_with_weight(
    y: NDArray[np.float64], f: NDArray[np.float64], other: NDArray[np.float64], clusters: Clusters | None
) -> float:
    """Standard error of the labelled part by leaving out each cluster of labels in turn (Quenouille; Tukey 1958)."""
    codes, groups = cluster_codes(clusters, y.size)
    if groups < 3:
        return 0.0

    def without(x: NDArray[np.float64]) -> NDArray[np.float64]:
        rest: NDArray[np.float64] = x.sum() - np.bincount(codes, weights=x, minlength=groups)
        return rest

    n, y_sum, f_sum = without(np.ones(y.size)), without(y), without(f)
    all_n, all_sum = n + other.size, f_sum + other.sum()
    spread = (without(f * f) + float(other @ other) - all_sum**2 / all_n) / (all_n - 1.0)
    together = (without(y * f) - y_sum * f_sum / n) / np.maximum(n - 1.0, 1.0)
    best = together / np.where(spread > 0, spread * (1.0 + n / other.size), np.inf)
    trust = np.clip(best, 0.0, 1.0)
    found = y_sum / n + trust * (other.mean() - f_sum / n)
    return math.sqrt((groups - 1) / groups * float(np.sum((found - found.mean()) ** 2)))


def _zero_one(values: ArrayLike, what: str) -> NDArray[np.float64]:
    x = finite(values, what)
    if not np.isin(x, (0.0, 1.0)).all():
        raise InputError(f"The {what} are not all 0 or 1.", "Say which scores pass, or use `prediction_powered`.")
    return x


def _shrunk(share: Interval) -> tuple[float, int]:
    """A share with one success and one failure more (Agresti & Coull), and of how many it is then: a judge that made no
    error on few labels is not one that makes none."""
    return (share.estimate * share.n + 1.0) / (share.n + 2.0), share.n + 2


def _effective(x: NDArray[np.float64], error: float) -> float:
    """How many independent items would give the share of `x` this standard error."""
    share = float(x.mean())
    if not 0 < share < 1 or error <= 0:
        return float(x.size)
    return share * (1 - share) / error**2 if math.isfinite(error) else 1.0


def _tells(rates: ErrorRates, se: float, m1: int, sp: float, m0: int, z: float) -> None:
    informed = se + sp - 1.0
    if rates.informedness <= 0 or informed <= z * math.sqrt(se * (1 - se) / m1 + sp * (1 - sp) / m0):
        raise InputError(
            f"The judge cannot be told from one that guesses: sensitivity {rates.sensitivity}, "
            f"specificity {rates.specificity}.",
            "Improve the judge, or label more items; nothing corrects the mean of such scores.",
        )

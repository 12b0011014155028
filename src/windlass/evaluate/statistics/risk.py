"""A threshold that keeps a promise: of the answers given, at most so many are wrong, with so much confidence.

Selection with guaranteed risk (Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017,
arXiv 1705.08500, algorithm 1): a binary search for the threshold with most answers, each of its looks bounded by the
exact upper limit of a share (Clopper & Pearson 1934) at a part of the allowed error, so that looking often is paid for.
Questions of one source are alike and prove less than their number; they count as the effective number that their
spread over sources leaves (Korn & Graubard, Survey Methodology 24, 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite, level_checked
from windlass.evaluate.statistics.distributions import beta_quantile
from windlass.evaluate.statistics.intervals import mean_error


@dataclass(frozen=True, slots=True)
class Guarantee:
    """Answers with a confidence of at least `threshold`: at most the share `bound` of them is wrong, at `level`."""

    threshold: float
    bound: float
    risk: float
    """The share that was wrong on the questions it was chosen by."""
    coverage: float
    """The share of them that is answered."""
    level: float
    n: int
    """Questions it was chosen by."""
    effective: float
    """How many independent ones they are worth."""


def upper_limit(wrong: float, n: float, delta: float) -> float:
    """The share that is exceeded with a chance of at most `delta`, after `wrong` of `n` (Clopper & Pearson).

    Both may be fractions: effective numbers.
    """
    if n <= 0 or not 0 <= wrong <= n:
        raise InputError(f"{wrong:g} of {n:g} is no share.")
    return 1.0 if wrong >= n else beta_quantile(1.0 - delta, wrong + 1.0, n - wrong)


def guaranteed(
    confidence: ArrayLike,
    wrong: ArrayLike,
    risk: float,
    level: float = 0.95,
    clusters: Clusters | None = None,
) -> Guarantee | None:
    """The lowest threshold found for which `risk` is kept with confidence `level`; None where these questions do not
    prove it for any.

    `wrong`: whether the answer to each question, given, would be wrong. Use questions that nothing was fitted on.
    """
    level_checked(level)
    values, losses = finite(confidence, "confidences"), finite(wrong, "losses")
    if not 0 < risk < 1:
        raise InputError(f"A risk lies between 0 and 1, not at {risk}.", "Use 0.1 for one wrong answer in ten.")
    if values.size != losses.size or not np.isin(losses, (0, 1)).all():
        raise InputError("Confidences and losses must be as many, and a loss is 0 or 1.")
    order = np.argsort(-values, kind="stable")
    values, losses = values[order], losses[order]
    ends = np.flatnonzero(np.append(values[1:] < values[:-1], True)) + 1  # answers given, for each threshold
    share = 1.0 / _design_effect(losses, None if clusters is None else [clusters[i] for i in order])
    lost = np.cumsum(losses)
    delta = (1.0 - level) / math.ceil(math.log2(ends.size) + 1)
    low, high, best = 0, ends.size - 1, None
    while low <= high:
        middle = (low + high) // 2
        answered = int(ends[middle])
        bad = float(lost[answered - 1])
        bound = upper_limit(bad * share, answered * share, delta)
        if bound <= risk:
            n = values.size
            best = Guarantee(
                float(values[answered - 1]), bound, bad / answered, answered / n, level, n, round(n * share, 1)
            )
            low = middle + 1
        else:
            high = middle - 1
    return best


def _design_effect(losses: NDArray[np.float64], clusters: Clusters | None) -> float:
    """By how much questions of one cluster repeat each other: variance of the mean, as a multiple of that of
    independent ones, and at least 1."""
    if clusters is None:
        return 1.0
    _, groups = cluster_codes(clusters, losses.size)
    plain = losses.mean() * (1 - losses.mean()) / losses.size
    if groups < 2:
        return float(losses.size)
    return max(1.0, mean_error(losses, clusters).error ** 2 / plain) if plain > 0 else losses.size / groups

"""A share of right answers, safe answers, refusals: its exact interval, which holds for rare events too."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.betting import betting_interval
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite, level_checked
from windlass.evaluate.statistics.intervals import Interval, mean_error, mean_interval
from windlass.evaluate.statistics.risk import upper_limit


def score_interval(values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """The mean of scores: exactly where all of them are zeros and ones, as `share_interval`, else as `mean_interval`.

    Student's interval of a system that is right on all 30 items is [1, 1], which 30 items do not show.
    """
    x = finite(values)
    if not np.isin(x, (0.0, 1.0)).all():
        return mean_interval(x, clusters, level)
    alone = clusters is None or cluster_codes(clusters, x.size)[1] == x.size
    return share_interval(x, None if alone else clusters, level)


def bounded_interval(
    values: ArrayLike, bounds: tuple[float, float], clusters: Clusters | None = None, level: float = 0.95
) -> Interval:
    """The mean of scores that lie between bounds: as `score_interval`; where all are the same, by betting, since of a
    hundred ties Student's interval is [0.5, 0.5], and no hundred items show that. Of clusters each bets once."""
    x = finite(values)
    if np.ptp(x) > 0 or not np.isfinite(bounds).all() or np.isin(x, (0.0, 1.0)).all():
        return score_interval(x, clusters, level).within(*bounds)
    groups = cluster_codes(clusters, x.size)[1]
    return replace(betting_interval(x[:groups], bounds, level), n=x.size, clusters=groups)


def share_interval(values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """The share of ones among zeros and ones, by Clopper and Pearson (Biometrika 26, 1934): never below its level.

    With clusters by the effective number of values (Korn & Graubard, Survey Methodology 24, 1998): the number of
    independent ones whose share would spread as much. To that spread one more cluster is counted in which all is the
    rarer way: few events do not tell whether the next comes alone. Raises `InputError` for values other than 0 and 1.
    """
    level_checked(level)
    x = finite(values)
    if not np.isin(x, (0.0, 1.0)).all():
        raise InputError("A share is of zeros and ones.", "Use `mean_interval` for graded scores.")
    share, tail = float(x.mean()), (1.0 - level) / 2
    groups, effective = x.size, float(x.size)
    if clusters is not None:
        codes, groups = cluster_codes(clusters, x.size)
        rarer = np.full(max(1, round(x.size / groups)), float(share < 0.5))
        more = np.append(x, rarer)
        error = mean_error(more, np.append(codes, np.full(rarer.size, groups))).error
        likely = float(more.mean())
        # Of the clusters that there are, without the one more.
        independent = likely * (1.0 - likely) / error**2 * x.size / more.size if 0.0 < error < math.inf else 1.0
        effective = min(float(x.size), max(1.0, independent))
    low = 1.0 - upper_limit((1.0 - share) * effective, effective, tail)
    high = upper_limit(share * effective, effective, tail)
    if clusters is not None and 0.0 < share < 1.0:  # a sample with one failure is no better evidence than without
        low = min(low, share_interval(np.ones(x.size), clusters, level).low)
        high = max(high, share_interval(np.zeros(x.size), clusters, level).high)
    method = "Clopper-Pearson" if clusters is None else "Clopper-Pearson, effective n"
    return Interval(share, min(low, share), max(high, share), level, x.size, groups, method)

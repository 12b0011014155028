"""Two arms of live traffic, looked at as often as you like: is the candidate better, harmful, or can it not be told
yet?

A fixed-sample interval that is looked at every hour promotes a candidate that is no better far more often than it says.
Here every interval is a confidence sequence (`statistics.sequences`), so that GO and NO-GO are as reliable at any look
as at the last, and a canary may be promoted or rolled back at the first look that tells. Traffic is checked first: arms
that do not get their shares are not compared (`statistics.srm`).

Arms are kept as tallies (number, mean, variance), which add up: no value has to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.gate import Limit, Rule, Verdict, decide, decide_limit, together
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.checks import finite
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.sequences import FIRST_LOOK, arms_sequence, tally_sequence
from windlass.evaluate.statistics.srm import periods_mismatch_p

MISMATCH = 0.001
"""Below this p-value arms do not get the shares that they are meant to get."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The values of one metric in one arm so far."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances from the mean."""

    @property
    def variance(self) -> float:
        """Of the values. Zeros and ones are taken with one of each more (Agresti & Coull): that none of thirty calls
        failed does not mean that none can."""
        if self.n and 0.0 <= self.mean <= 1.0:
            ones = self.n * self.mean
            if abs(self.squares - ones * (1.0 - self.mean)) <= 1e-9 * self.n:
                share = (ones + 1.0) / (self.n + 2.0)
                return share * (1.0 - share)
        return self.squares / (self.n - 1) if self.n > 1 else 0.0

    def __add__(self, other: Tally) -> Tally:
        """Both together (Chan, Golub & LeVeque 1979)."""
        n = self.n + other.n
        if n == 0:
            return self
        shift = other.mean - self.mean
        return Tally(n, self.mean + shift * other.n / n, self.squares + other.squares + shift**2 * self.n * other.n / n)

    @classmethod
    def of(cls, values: ArrayLike) -> Tally:
        """Raises `InputError` for NaN. No values are an empty tally."""
        if np.size(values) == 0:
            return cls()
        x = finite(values)
        return cls(x.size, float(x.mean()), float(np.sum((x - x.mean()) ** 2)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Arm = Mapping[str, Tally]
"""Metric -> its values so far."""
Period = tuple[tuple[int, int], tuple[float, float]]
"""How many units came to (incumbent, candidate), and the shares that they were to get meanwhile."""


def look(
    policy: Policy,
    incumbent: Arm,
    candidate: Arm,
    *,
    planned: int,
    units: tuple[int, int] | None = None,
    shares: tuple[float, float] = (0.5, 0.5),
    periods: Sequence[Period] | None = None,
) -> Verdict:
    """The verdict on both arms as they are now; call it as often as you like.

    planned: about how many values both arms together are to have; it must not change between looks (`sequences`).
    units: how many users or calls went to (incumbent, candidate), checked against the `shares` that were meant;
    without, the primary metric's numbers. `periods`: in the place of both, where shares changed on the way. Values of
    one user are alike: tally one value per user. Raises `InputError` for a metric that an arm lacks and for rules on
    quantiles, which tallies do not hold.
    """
    policy.check_metrics(set(incumbent) & set(candidate))
    arrived = units or (incumbent[policy.primary].n, candidate[policy.primary].n)
    held = [(arrived, shares)] if periods is None else periods
    p = periods_mismatch_p(held)
    if p < MISMATCH:
        meant = [sum(sum(counts) * parts[side] for counts, parts in held) / sum(arrived) for side in (0, 1)]
        return Verdict(
            "INCONCLUSIVE",
            f"The arms got {arrived[0]:,} and {arrived[1]:,} units, but were to get {meant[0]:.3g} and "
            f"{meant[1]:.3g} of all (sample-ratio mismatch, p {p:.1g}). Something loses units of one arm; find it "
            "before you compare.",
        )
    checks = [
        (metric, _compared(metric, rule, incumbent[metric], candidate[metric], planned))
        for metric, rule in {policy.primary: policy.rule, **policy.guards}.items()
    ]
    for limit in policy.limits:
        _only_means(limit.metric, limit)
        one = candidate[limit.metric]
        found = tally_sequence(one.n, one.mean, one.variance, limit.level, planned=max(2, planned // 2))
        name = f"{limit.metric}, {'ceiling' if limit.at_least is None else 'floor'}"
        checks.append((name, decide_limit(found, limit=limit)))
    return together(checks)


def check_live(policy: Policy) -> None:
    """Raises `InputError` for what a policy asks that tallies of live traffic do not hold: quantiles, and slices."""
    for metric, rule in {policy.primary: policy.rule, **policy.guards}.items():
        _only_means(metric, rule)
    for limit in policy.limits:
        _only_means(limit.metric, limit)
    if policy.slices is not None:
        raise InputError(
            f"The policy asks for slices by {', '.join(policy.slices.by)}, which live traffic does not carry.",
            "Leave [slices] out, or compare on a dataset: windlass compare.",
        )


def _compared(metric: str, rule: Rule, before: Tally, after: Tally, planned: int) -> Verdict:
    _only_means(metric, rule)
    found = _sequence(before, after, rule.level, planned)
    if rule.relative and before.mean <= 0.0:
        raise InputError(f"{metric} of the incumbent is {before.mean:g}, so nothing is a share of it.")
    if math.isinf(found.low):
        return _unbounded(metric, before, after, found)
    if not rule.relative:
        return decide(found, rule=rule, metric=metric)
    # after / before - 1 >= r is mean(after) - (1 + r) mean(before) >= 0, of which there is a sequence: each end of the
    # relative difference is the r where that sequence lets go of 0.
    ends = [_ratio_end(before, after, rule.level, planned, side) for side in (-1.0, 1.0)]
    relative = Interval(
        after.mean / before.mean - 1.0, ends[0], ends[1], found.level, found.n, found.clusters, f"{found.method}, ratio"
    )
    return decide(relative, rule=rule, metric=metric)


def _unbounded(metric: str, before: Tally, after: Tally, found: Interval) -> Verdict:
    """Nothing bounds the difference yet: a number of items that would settle it is not known either."""
    fewer = min(before.n, after.n)
    if fewer < FIRST_LOOK:
        which = "candidate" if after.n == fewer else "incumbent"
        why = f"the {which} has {fewer:,} values so far, and the first interval takes {FIRST_LOOK}"
    else:
        why = "no value has differed from another one yet"
    return Verdict("INCONCLUSIVE", f"{metric}: it cannot be told yet; {why}.", interval=found)


def _ratio_end(before: Tally, after: Tally, level: float, planned: int, side: float) -> float:
    estimate = after.mean / before.mean

    def held(ratio: float) -> bool:
        found = _sequence(before, after, level, planned, ratio)
        return found.low <= 0.0 <= found.high

    inside, step = estimate, 0.01
    while held(inside + side * step):
        inside, step = inside + side * step, 2.0 * step
        if step > 1e9:
            return side * math.inf
    outside = inside + side * step
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if held(middle) else (inside, middle)
    return inside - 1.0


def _sequence(before: Tally, after: Tally, level: float, planned: int, ratio: float = 1.0) -> Interval:
    """Of mean(after) - ratio * mean(before)."""
    return arms_sequence(
        (before.n, ratio * before.mean, ratio**2 * before.variance),
        (after.n, after.mean, after.variance),
        level,
        planned=planned,
    )


def _only_means(metric: str, rule: Rule | Limit) -> None:
    if rule.statistic != "mean":
        raise InputError(
            f"The policy asks for {rule.statistic} of {metric}, but live arms are kept as means.",
            "Ask for the mean, or compare recorded values with `evaluate.deciding`.",
        )

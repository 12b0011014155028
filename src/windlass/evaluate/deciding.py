"""From a policy and the values of two systems to a verdict: which interval each rule gets, and what errors mean.

| asked of | values | interval |
|---|---|---|
| difference of means | zeros and ones | exact (Buehler's limits in the order of Tango's score) |
| | zeros and ones in clusters | cluster-robust t and Tango's score interval, whichever is wider |
| difference of means | others | paired t with Hall's correction for skewed values; cluster-robust |
| relative difference of means | | Fieller's ratio, with Hall's correction |
| difference of quantiles | | BCa bootstrap of items or clusters |
| the candidate's own mean | zeros and ones | Clopper and Pearson, effective number of values with clusters |
| the candidate's own mean | between bounds | betting; with clusters Hall's t |
| the candidate's own mean | unbounded | Hall's t |
| the candidate's own quantile | | order statistics |

Where a judge gave the values, intervals that were corrected for its mistakes take their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.gate import Limit, Rule, Statistic, Verdict, decide_limit, together
from windlass.evaluate.gate import decide as decide_difference
from windlass.evaluate.policy import Policy, SliceRule
from windlass.evaluate.slices import SliceDifference, slice_differences
from windlass.evaluate.statistics.betting import betting_interval
from windlass.evaluate.statistics.checks import Clusters, finite
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import differences, paired_interval
from windlass.evaluate.statistics.quantiles import paired_quantile_difference, quantile_interval
from windlass.evaluate.statistics.shares import share_interval
from windlass.evaluate.statistics.skewed import skewed_mean_interval, skewed_paired_ratio

SHARES: Mapping[Statistic, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Pairs:
    """One metric of two systems on the same items, in one order."""

    before: ArrayLike
    after: ArrayLike
    clusters: Clusters | None = None
    """One label per item; items of one source are alike. Repeats of one item belong to one cluster."""
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Dimension -> the slice of each item, for example `language` -> en, de, ..."""
    bounds: tuple[float, float] = _UNBOUNDED
    """Between which every value lies, where that is known."""
    failed: int = 0
    """Items left out because a system or the scorer failed on them."""
    difference: Interval | None = None
    """Of the means, corrected for a judge's mistakes; takes the place of that of the values."""
    candidate: Interval | None = None
    """The candidate's own mean, corrected in the same way."""


def decide(policy: Policy, pairs: Mapping[str, Pairs], *, seed: int = 0) -> Verdict:
    """The verdict on every check of the policy, in its order: GO if all pass.

    pairs: metric -> its values. seed: of the bootstrap that compares quantiles. Raises `InputError` for a metric that
    is not among them (with the nearest name), values that are NaN, and items that do not match.
    """
    policy.check_metrics(pairs)
    checks: list[tuple[str, Verdict]] = []
    for metric, rule in {policy.primary: policy.rule, **policy.guards}.items():
        found = _unusable(metric, pairs[metric], policy) or _weigh(metric, pairs[metric], rule, seed)
        checks.append((metric, found))
    for limit in policy.limits:
        one = pairs[limit.metric]
        verdict = _unusable(limit.metric, one, policy) or decide_limit(candidate_interval(one, limit), limit=limit)
        which = limit.metric if limit.statistic == "mean" else f"{limit.statistic} of {limit.metric}"
        checks.append((f"{which}, {'ceiling' if limit.at_least is None else 'floor'}", verdict))
    if policy.slices is not None:
        metric = policy.slices.metric or policy.primary
        checks.extend(
            (f"{metric} by {name}", _sliced(metric, pairs[metric], name, policy)) for name in policy.slices.by
        )
    return together(checks)


def difference_interval(pairs: Pairs, rule: Rule, *, seed: int = 0) -> Interval:
    """The interval of candidate - incumbent that the rule is decided on (see the table above)."""
    if rule.statistic != "mean":
        return paired_quantile_difference(
            pairs.before, pairs.after, SHARES[rule.statistic], pairs.clusters,
            seed=seed, level=rule.level, relative=rule.relative,
        )  # fmt: skip
    if rule.relative:
        ratio = skewed_paired_ratio(pairs.before, pairs.after, pairs.clusters, rule.level)
        return replace(ratio, estimate=ratio.estimate - 1, low=ratio.low - 1, high=ratio.high - 1)
    if pairs.difference is not None:
        return pairs.difference
    return paired_interval(differences(pairs.before, pairs.after), pairs.clusters, rule.level)


def candidate_interval(pairs: Pairs, limit: Limit) -> Interval:
    """The interval of the candidate's own value that a limit is decided on (see the table above)."""
    values = finite(pairs.after, "scores of the candidate")
    if limit.statistic != "mean":
        return quantile_interval(values, SHARES[limit.statistic], pairs.clusters, limit.level)
    if pairs.candidate is not None:
        return pairs.candidate
    if pairs.bounds == (0.0, 1.0) and np.isin(values, (0.0, 1.0)).all():
        return share_interval(values, pairs.clusters, limit.level)
    if not _bounded(pairs.bounds):
        return skewed_mean_interval(values, pairs.clusters, limit.level)
    low, high = pairs.bounds
    if pairs.clusters is None:
        return betting_interval(values, pairs.bounds, limit.level)
    found = skewed_mean_interval(values, pairs.clusters, limit.level)
    if np.ptp(values) == 0.0 and found.clusters > 1:
        # Values that never varied may yet: as in `gate`, a cluster in 1 - error_rate^(1/G) may be at either bound.
        unseen = 1 - limit.error_rate ** (1 / found.clusters)
        ends = (bound * unseen + found.estimate * (1 - unseen) for bound in (low, high))
        found = replace(found, **dict(zip(("low", "high"), ends)))
    return found.within(low, high)


def _weigh(metric: str, pairs: Pairs, rule: Rule, seed: int) -> Verdict:
    try:
        found = difference_interval(pairs, rule, seed=seed)
    except InputError as error:
        if rule.statistic == "mean":
            raise
        return Verdict("INCONCLUSIVE", f"{rule.statistic} of {metric}: {error.message} {error.hint}".rstrip())
    span = pairs.bounds[1] - pairs.bounds[0] if _bounded(pairs.bounds) else _spread(pairs)
    return decide_difference(found, rule=rule, metric=metric, span=span)


def _unusable(metric: str, pairs: Pairs, policy: Policy) -> Verdict | None:
    """INCONCLUSIVE where there are no values, or so few that what is missing may matter."""
    n = np.size(pairs.after)
    if pairs.failed < 0:
        raise InputError(f"{pairs.failed} items failed on {metric}; that is no number of items.")
    total = n + pairs.failed
    if n == 0:
        why = f"on all {total} a system or its scorer failed" if total else "there is none"
        return Verdict("INCONCLUSIVE", f"No item has a value of {metric}, which the policy asks for: {why}.")
    if pairs.failed > policy.error_limit * total:
        return Verdict(
            "INCONCLUSIVE",
            f"{pairs.failed} of {total} items have no value of {metric} because a system or its scorer failed on them; "
            f"at most {100 * policy.error_limit:g} % may, as what fails is seldom a random part. Mend the failures and "
            "compare again.",
        )
    return None


def _sliced(metric: str, pairs: Pairs, dimension: str, policy: Policy) -> Verdict:
    rule = policy.slices
    assert rule is not None
    unusable = _unusable(metric, pairs, policy)
    if unusable is not None:
        return unusable
    if dimension not in pairs.slices:
        known = ", ".join(pairs.slices) or "none"
        raise InputError(f"The items of {metric} have no slice '{dimension}'.", f"They have: {known}.")
    found = slice_differences(
        pairs.before, pairs.after, pairs.slices[dimension], pairs.clusters,
        margin=rule.margin, better=rule.better, min_items=rule.min_items, level=1 - 2 * rule.error_rate,
    )  # fmt: skip
    if rule.kind == "non-inferiority":
        each = Rule(
            "non-inferiority", rule.margin, rule.better, rule.error_rate,
            min_items=rule.min_items, min_clusters=policy.rule.min_clusters,
        )  # fmt: skip
        return together(
            [
                (name, decide_difference(one.difference, rule=each, metric=f"{metric} of {dimension} {name}"))
                for name, one in found.items()
            ]
        )
    return _no_harm(metric, dimension, found, rule)


def _no_harm(metric: str, dimension: str, found: Mapping[str, SliceDifference], rule: SliceRule) -> Verdict:
    parts = []
    for name, one in found.items():
        d = one.difference
        facts = (
            f"{metric} of {dimension} {name} changes by {d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {d.n:,} items"
        )
        if one.p_holm is None:
            parts.append((name, Verdict("INCONCLUSIVE", f"{facts}: too few to test.", interval=d)))
        elif one.p_holm <= rule.error_rate:
            worse = f"worse by more than {rule.margin:g}" if rule.margin else "worse"
            parts.append((name, Verdict("NO-GO", f"{facts}: it is {worse} (p {one.p_holm:.2g}, Holm).", interval=d)))
        else:
            parts.append((name, Verdict("GO", f"{facts}: no harm is shown.", interval=d)))
    harmed = [part.reason for _, part in parts if part.decision == "NO-GO"]
    if harmed:
        return Verdict("NO-GO", " ".join(harmed), None, tuple(parts))
    tested = sum(part.decision == "GO" for _, part in parts)
    if not tested:
        return Verdict(
            "INCONCLUSIVE",
            f"No slice by {dimension} has {rule.min_items} items, so none was tested.",
            None,
            tuple(parts),
        )
    left = f", {len(parts) - tested} too small to test" if tested < len(parts) else ""
    return Verdict(
        "GO", f"In no slice by {dimension} is {metric} shown to be worse ({tested} tested{left}).", None, tuple(parts)
    )


def _bounded(bounds: tuple[float, float]) -> bool:
    return math.isfinite(bounds[0]) and math.isfinite(bounds[1])


def _spread(pairs: Pairs) -> float:
    """By how much an item can differ, as far as the values tell; at least by 1, where they tell nothing."""
    both: NDArray[np.float64] = np.concatenate([finite(pairs.before), finite(pairs.after)])
    return float(np.ptp(both)) or 1.0

"""The pawl: GO, NO-GO or INCONCLUSIVE, decided on the interval of a difference and never on its point.

A difference is candidate minus incumbent, paired item by item. A two-sided interval of level 1 - 2a lies wholly
above the true value in at most a share `a` of all repetitions, so a candidate that is no better than the incumbent
is promoted with probability at most `a`, the rule's one-sided `error_rate` (0.025 belongs to a 95 % interval).

A rule speaks of that difference: superior, non-inferior within a margin, equivalent within one (two one-sided tests;
Schuirmann 1987). A limit speaks of the candidate alone: its cost at most this, its safety at least that.

Several checks at once are a fixed sequence: the primary metric first, then the guards in the order given, each at
its full error rate, and GO only if all pass. No correction is due: promoting wrongly needs a check whose own claim
is false to pass, whatever the others do (intersection-union test; Berger, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windlass.core.errors import InputError
from windlass.evaluate.statistics.distributions import normal_quantile
from windlass.evaluate.statistics.intervals import Interval

Decision = Literal["GO", "NO-GO", "INCONCLUSIVE"]
Statistic = Literal["mean", "p50", "p90", "p95", "p99"]
"""Of a metric's values over the items; `p95` is the value that 95 % of the items do not exceed."""
_BEYOND_REASON = 10_000_000
"""More items than this is not advice; the reason then says that the two are as good as equal."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a difference must show. Make one with `superiority`, `non_inferiority` or `equivalence`."""

    kind: Literal["superiority", "non-inferiority", "equivalence"]
    margin: float = 0.0
    """How much worse (equivalence: how different) is still acceptable, in units of the metric."""
    better: Literal["higher", "lower"] = "higher"
    error_rate: float = 0.025
    """Chance, at most, of a GO for a candidate that does not deserve it (one-sided)."""
    power: float = 0.8
    """With how much certainty the number of items still needed should settle the question."""
    min_items: int = 50
    min_clusters: int = 10
    """Below these the interval's own assumptions are doubtful and nothing is decided."""
    statistic: Statistic = "mean"
    relative: bool = False
    """The difference and the margin are shares of the incumbent's value: 0.1 is a tenth of it."""

    def __post_init__(self) -> None:
        if self.kind == "superiority" and self.margin != 0:
            raise InputError("A superiority rule has no margin.", "Use `non_inferiority(margin)`.")
        if self.kind != "superiority" and not 0 < self.margin < math.inf:
            article = "An" if self.kind == "equivalence" else "A"
            raise InputError(f"{article} {self.kind} rule needs a margin above 0, not {self.margin}.")
        _rates_checked(self.error_rate, self.power)

    @property
    def level(self) -> float:
        """The two-sided level an interval must have for this rule."""
        return 1 - 2 * self.error_rate


@dataclass(frozen=True, slots=True)
class Limit:
    """What the candidate itself must keep: a ceiling (`at_most`) for cost and latency, a floor (`at_least`) for
    safety. It is kept only when the interval of the candidate's own value shows it."""

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    statistic: Statistic = "mean"
    error_rate: float = 0.025
    power: float = 0.8
    min_items: int = 50
    min_clusters: int = 10

    def __post_init__(self) -> None:
        given = [bound for bound in (self.at_most, self.at_least) if bound is not None]
        if len(given) != 1 or not math.isfinite(given[0]):
            raise InputError(f"The limit of {self.metric} needs one number: `at_most` or `at_least`.")
        _rates_checked(self.error_rate, self.power)

    @property
    def level(self) -> float:
        return 1 - 2 * self.error_rate


def _rates_checked(error_rate: float, power: float) -> None:
    if not 0 < error_rate < 0.5:
        raise InputError(f"The error rate lies between 0 and 0.5, not at {error_rate}.")
    if not 0.5 <= power < 1:
        raise InputError(f"The power lies between 0.5 and 1, not at {power}.")


def superiority(
    *,
    better: Literal["higher", "lower"] = "higher",
    error_rate: float = 0.025,
    min_items: int = 50,
    min_clusters: int = 10,
) -> Rule:
    """GO when the candidate is shown to be better, by however little."""
    return Rule("superiority", better=better, error_rate=error_rate, min_items=min_items, min_clusters=min_clusters)


def non_inferiority(
    margin: float,
    *,
    better: Literal["higher", "lower"] = "higher",
    error_rate: float = 0.025,
    min_items: int = 50,
    min_clusters: int = 10,
) -> Rule:
    """GO when the candidate is shown to be at most `margin` worse."""
    return Rule("non-inferiority", margin, better, error_rate, min_items=min_items, min_clusters=min_clusters)


def equivalence(
    margin: float,
    *,
    error_rate: float = 0.025,
    min_items: int = 50,
    min_clusters: int = 10,
) -> Rule:
    """GO when the candidate is shown to differ by less than `margin` in either direction."""
    return Rule("equivalence", margin, error_rate=error_rate, min_items=min_items, min_clusters=min_clusters)


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    reason: str
    """Plain English, with the numbers it rests on."""
    n_needed: int | None = None
    """INCONCLUSIVE only: about how many items are still needed; None when no sensible number would settle it."""
    checks: Sequence[tuple[str, Verdict]] = ()
    """(metric, its own verdict) of a gate on several metrics."""
    interval: Interval | None = None
    """What a verdict on one metric rests on."""

    def to_json(self) -> dict[str, Any]:
        return {
            "decision": self.decision,
            "reason": self.reason,
            "n_needed": self.n_needed,
            "checks": [[metric, part.to_json()] for metric, part in self.checks],
            "interval": None if self.interval is None else self.interval.to_json(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Verdict:
        checks = tuple((metric, cls.from_json(part)) for metric, part in row["checks"])
        found = row.get("interval")
        return cls(
            row["decision"],
            row["reason"],
            row["n_needed"],
            checks,
            None if found is None else Interval.from_json(found),
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One metric of a gate: the difference of the two systems on it and the rule for that difference."""

    metric: str
    difference: Interval
    rule: Rule
    span: float = 1.0
    """By how much one item's score can differ at most."""


def decide(difference: Interval, *, rule: Rule, metric: str = "the score", span: float = 1.0) -> Verdict:
    """The verdict on one metric. Raises `InputError` for an interval that is no interval or of too low a level.

    span: by how much one item's score can differ at most. It counts where no item differs: that the next ones would
    not either is then not known, however narrow the interval.
    """
    _in_order(difference, metric, rule.error_rate, rule.level)
    gain = difference if rule.better == "higher" else -difference
    facts = _facts(difference, _called(metric, rule.statistic), rule.relative)
    if difference.n < rule.min_items or difference.clusters < rule.min_clusters:
        return _too_few(difference, rule, facts)
    if gain.low == gain.high == 0.0:
        return _no_item_differs(difference, rule, span, facts)
    if rule.kind == "equivalence":
        return _equivalent(difference, rule, facts)
    bar = -rule.margin if rule.kind == "non-inferiority" else 0.0
    if gain.low > bar:
        return Verdict("GO", f"{facts}, so the candidate is {_claim(rule)}.", interval=difference)
    if gain.high <= bar:
        return Verdict("NO-GO", f"{facts}, so the candidate is not {_claim(rule)}.", interval=difference)
    return _untold(facts, f"the candidate is {_claim(rule)}", _still_needed(gain, bar, rule.power), difference)


def decide_limit(found: Interval, *, limit: Limit) -> Verdict:
    """The verdict on a candidate's own value. Raises `InputError` as `decide` does."""
    _in_order(found, limit.metric, limit.error_rate, limit.level)
    name = _called(limit.metric, limit.statistic)
    facts = f"{name} is {found.estimate:.4g}, {_range(found, '.4g')}, over {_counted(found)}"
    if found.n < limit.min_items or found.clusters < limit.min_clusters:
        return _too_few(found, limit, facts)
    if limit.at_least is not None:
        room, bar, claim = found, limit.at_least, f"at least {limit.at_least:g}"
    else:
        assert limit.at_most is not None  # checked where the limit is made
        room, bar, claim = -found, -limit.at_most, f"at most {limit.at_most:g}"
    if room.low >= bar:
        return Verdict("GO", f"{facts}, so it is {claim}.", interval=found)
    if room.high < bar:
        return Verdict("NO-GO", f"{facts}, so it is not {claim}.", interval=found)
    return _untold(facts, f"it is {claim}", _still_needed(room, bar, limit.power), found)


def decide_all(checks: Sequence[Check]) -> Verdict:
    """The verdict on several metrics, the primary one first: GO if all pass, NO-GO if any fails."""
    return together(
        [
            (check.metric, decide(check.difference, rule=check.rule, metric=check.metric, span=check.span))
            for check in checks
        ]
    )


def together(checks: Sequence[tuple[str, Verdict]]) -> Verdict:
    """One verdict of (metric, its own verdict): GO if all pass, NO-GO if any fails."""
    if not checks:
        raise InputError("A gate without a check would let everything through.", "Name at least a primary metric.")
    parts = tuple(checks)
    for decision in ("NO-GO", "INCONCLUSIVE"):
        met = [part for _, part in parts if part.decision == decision]
        if met:
            needs = [part.n_needed for part in met]
            needed = None if decision == "NO-GO" or None in needs else max(n for n in needs if n is not None)
            return Verdict(decision, " ".join(part.reason for part in met), needed, parts)
    return Verdict("GO", " ".join(part.reason for _, part in parts), None, parts)


def _in_order(found: Interval, metric: str, error_rate: float, level: float) -> None:
    if any(map(math.isnan, (found.estimate, found.low, found.high))) or not (found.low <= found.estimate <= found.high):
        raise InputError(f"The interval of {metric}, {found}, is not in order.", "Check the scores for NaN.")
    if found.level < level - 1e-9:
        raise InputError(
            f"An error rate of {error_rate:g} needs an interval of level {level:g}; "
            f"that of {metric} has {found.level:g}.",
            f"Compute it with level={level:g}.",
        )


def _no_item_differs(difference: Interval, rule: Rule, span: float, facts: str) -> Verdict:
    """Nothing is gained where nothing differs; that no harm is done must still be shown.

    Of clusters that differ with probability p none is met among G with probability (1 - p)^G, so that p is at most
    1 - error_rate^(1/G) (Clopper & Pearson at zero; the "rule of three").
    """
    same = f"{facts}: the two score the same on every item"
    if rule.kind == "superiority":
        return Verdict("NO-GO", f"{same}, so nothing is gained.", interval=difference)
    unseen = 1 - rule.error_rate ** (1 / difference.clusters)
    if unseen * span < rule.margin:
        return Verdict("GO", f"{same}, so the candidate is {_claim(rule)}.", interval=difference)
    wish = None
    if rule.margin < span < math.inf:
        clusters = math.ceil(math.log(rule.error_rate) / math.log1p(-rule.margin / span))
        wish = max(1, math.ceil(difference.n * (clusters / difference.clusters - 1)))
    return _untold(
        f"{same}, but the next may differ (up to {100 * unseen:.1f} % of them)",
        f"the candidate is {_claim(rule)}",
        wish,
        difference,
    )


def _equivalent(difference: Interval, rule: Rule, facts: str) -> Verdict:
    margin, claim = rule.margin, _claim(rule)
    if -margin < difference.low and difference.high < margin:
        return Verdict("GO", f"{facts}, so the candidate is {claim}.", interval=difference)
    if difference.high <= -margin or difference.low >= margin:
        return Verdict("NO-GO", f"{facts}, so the candidate is not {claim}.", interval=difference)
    # The end that is nearer to its margin is the harder one to bring inside, or to show outside.
    nearer = difference if difference.estimate < 0 else -difference
    return _untold(facts, f"the candidate is {claim}", _still_needed(nearer, -margin, rule.power), difference)


def _untold(facts: str, claim: str, needed: int | None, found: Interval) -> Verdict:
    wish = f"about {needed:,} more items should tell" if needed else "no practical number of items would tell"
    return Verdict("INCONCLUSIVE", f"{facts}: it cannot be told yet whether {claim}; {wish}.", needed, interval=found)


def _still_needed(gain: Interval, bar: float, power: float) -> int | None:
    """Items beyond those there are, so that the interval would clear the bar with this power.

    The half-width shrinks with the root of the items. It must become so small that the bar lies outside not only
    for the estimate seen here but, in `power` of all repetitions, for the one that the new items will give.
    """
    distance = gain.estimate - bar
    if distance > 0 and gain.high == gain.estimate > gain.low:
        # At the edge of what can be, as 300 safe answers of 300 are: there the interval shrinks with the items.
        times = (gain.estimate - gain.low) / distance
        return None if times * gain.n >= _BEYOND_REASON else max(1, math.ceil(times * gain.n) - gain.n)
    half = gain.estimate - gain.low if distance > 0 else gain.high - gain.estimate
    narrower = half * (1 + normal_quantile(power) / normal_quantile(0.5 + gain.level / 2))
    if narrower >= abs(distance) * math.sqrt(_BEYOND_REASON / gain.n):
        return None
    return max(1, math.ceil(gain.n * (narrower / distance) ** 2) - gain.n)


def _too_few(found: Interval, rule: Rule | Limit, facts: str) -> Verdict:
    per_cluster = found.n / max(1, found.clusters)
    items = rule.min_items - found.n
    for_clusters = math.ceil(per_cluster * (rule.min_clusters - found.clusters))
    needed = max(items, for_clusters, 1)
    reason = (
        f"{facts}: too little to decide on (at least {rule.min_items} items in {rule.min_clusters} clusters); "
        f"at least {needed:,} more items are needed."
    )
    return Verdict("INCONCLUSIVE", reason, needed, interval=found)


def _claim(rule: Rule) -> str:
    if rule.kind == "superiority":
        return "better"
    margin = f"{100 * rule.margin:g} %" if rule.relative else f"{rule.margin:g}"
    return f"at most {margin} worse" if rule.kind == "non-inferiority" else f"within {margin} of the incumbent"


def _called(metric: str, statistic: Statistic) -> str:
    return metric if statistic == "mean" else f"{statistic} of {metric}"


def _facts(difference: Interval, metric: str, relative: bool) -> str:
    if not difference.n:
        return f"{metric} is known of no item yet"
    if relative:
        change, between = f"{100 * difference.estimate:+.1f} %", _range(difference, "+.1f", 100, " %")
    else:
        change, between = f"{difference.estimate:+.4f}", _range(difference, "+.4f")
    return f"{metric} changes by {change}, {between}, over {_counted(difference)}"


def _range(found: Interval, form: str, scale: float = 1, unit: str = "") -> str:
    low, high = f"{scale * found.low:{form}}", f"{scale * found.high:{form}}"
    return f"{100 * found.level:g} % interval {low} to {high}{unit}"


def _counted(found: Interval) -> str:
    where = f"{found.n:,} items"
    return where if found.clusters == found.n else f"{where} in {found.clusters:,} clusters"

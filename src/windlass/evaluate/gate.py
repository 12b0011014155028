"""The pawl: GO, NO-GO or INCONCLUSIVE, decided on the interval of a difference and never on its point.

A difference is candidate minus incumbent, paired item by item. A two-sided interval of level 1 - 2a lies wholly
above the true value in at most a share `a` of all repetitions, so a candidate that is no better than the incumbent
is promoted with probability at most `a`, the rule's one-sided `error_rate` (0.025 belongs to a 95 % interval).

Several checks at once are a fixed sequence: the primary metric first, then the guards in the order given, each at
its full error rate, and GO only if all pass. No correction is due: promoting wrongly needs a check whose own claim
is false to pass, whatever the others do (intersection-union test; Berger, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from windlass.core.errors import InputError
from windlass.evaluate.statistics.distributions import normal_quantile
from windlass.evaluate.statistics.intervals import Interval

Decision = Literal["GO", "NO-GO", "INCONCLUSIVE"]
_BEYOND_REASON = 10_000_000
"""More items than this is not advice; the reason then says that the two are as good as equal."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a difference must show. Make one with `superiority` or `non_inferiority`."""

    kind: Literal["superiority", "non-inferiority"]
    margin: float = 0.0
    """Non-inferiority only: how much worse, in units of the metric, is still acceptable."""
    better: Literal["higher", "lower"] = "higher"
    error_rate: float = 0.025
    """Chance, at most, of a GO for a candidate that does not deserve it (one-sided)."""
    power: float = 0.8
    """With how much certainty the number of items still needed should settle the question."""
    min_items: int = 50
    min_clusters: int = 10
    """Below these the interval's own assumptions are doubtful and nothing is decided."""

    def __post_init__(self) -> None:
        if self.kind == "superiority" and self.margin != 0:
            raise InputError("A superiority rule has no margin.", "Use `non_inferiority(margin)`.")
        if self.kind == "non-inferiority" and not 0 < self.margin < math.inf:
            raise InputError(f"A non-inferiority rule needs a margin above 0, not {self.margin}.")
        if not 0 < self.error_rate < 0.5:
            raise InputError(f"The error rate lies between 0 and 0.5, not at {self.error_rate}.")
        if not 0.5 <= self.power < 1:
            raise InputError(f"The power lies between 0.5 and 1, not at {self.power}.")

    @property
    def level(self) -> float:
        """The two-sided level an interval must have for this rule."""
        return 1 - 2 * self.error_rate


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


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    reason: str
    """Plain English, with the numbers it rests on."""
    n_needed: int | None = None
    """INCONCLUSIVE only: about how many items are still needed; None when no sensible number would settle it."""
    checks: Sequence[tuple[str, Verdict]] = ()
    """(metric, its own verdict) of a gate on several metrics."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Verdict:
        return cls(**{**row, "checks": tuple((metric, cls.from_json(part)) for metric, part in row["checks"])})


@dataclass(frozen=True, slots=True)
class Check:
    """One metric of a gate: the difference of the two systems on it and the rule for that difference."""

    metric: str
    difference: Interval
    rule: Rule


def decide(difference: Interval, *, rule: Rule, metric: str = "the score") -> Verdict:
    """The verdict on one metric. Raises `InputError` for an interval that is no interval or of too low a level."""
    if any(map(math.isnan, (difference.estimate, difference.low, difference.high))) or not (
        difference.low <= difference.estimate <= difference.high
    ):
        raise InputError(f"The interval of {metric}, {difference}, is not in order.", "Check the scores for NaN.")
    if difference.level < rule.level - 1e-9:
        raise InputError(
            f"An error rate of {rule.error_rate:g} needs an interval of level {rule.level:g}; "
            f"that of {metric} has {difference.level:g}.",
            f"Compute it with level={rule.level:g}.",
        )
    gain = difference if rule.better == "higher" else -difference
    bar = -rule.margin if rule.kind == "non-inferiority" else 0.0
    facts = _facts(difference, metric)
    if difference.n < rule.min_items or difference.clusters < rule.min_clusters:
        return _too_few(difference, rule, facts)
    if gain.low > bar:
        return Verdict("GO", f"{facts}, so the candidate is {_claim(rule)}.")
    if gain.high <= bar:
        if gain.low == gain.high == 0.0:
            return Verdict("NO-GO", f"{facts}: the two score the same on every item, so nothing is gained.")
        return Verdict("NO-GO", f"{facts}, so the candidate is not {_claim(rule)}.")
    needed = _still_needed(gain, bar, rule)
    wish = f"about {needed:,} more items should tell" if needed else "no practical number of items would tell"
    return Verdict(
        "INCONCLUSIVE", f"{facts}: it cannot be told yet whether the candidate is {_claim(rule)}; {wish}.", needed
    )


def decide_all(checks: Sequence[Check]) -> Verdict:
    """The verdict on several metrics, the primary one first: GO if all pass, NO-GO if any fails."""
    if not checks:
        raise InputError("A gate without a check would let everything through.", "Name at least a primary metric.")
    parts = tuple((check.metric, decide(check.difference, rule=check.rule, metric=check.metric)) for check in checks)
    for decision in ("NO-GO", "INCONCLUSIVE"):
        met = [part for _, part in parts if part.decision == decision]
        if met:
            needs = [part.n_needed for part in met]
            needed = None if decision == "NO-GO" or None in needs else max(n for n in needs if n is not None)
            return Verdict(decision, " ".join(part.reason for part in met), needed, parts)
    return Verdict("GO", " ".join(part.reason for _, part in parts), None, parts)


def _still_needed(gain: Interval, bar: float, rule: Rule) -> int | None:
    """Items beyond those there are, so that the interval would clear the bar with the rule's power.

    The half-width shrinks with the root of the items. It must become so small that the bar lies outside not only
    for the estimate seen here but, in `power` of all repetitions, for the one that the new items will give.
    """
    distance = gain.estimate - bar
    half = gain.estimate - gain.low if distance > 0 else gain.high - gain.estimate
    narrower = half * (1 + normal_quantile(rule.power) / normal_quantile(0.5 + gain.level / 2))
    if narrower >= abs(distance) * math.sqrt(_BEYOND_REASON / gain.n):
        return None
    return max(1, math.ceil(gain.n * (narrower / distance) ** 2) - gain.n)


def _too_few(difference: Interval, rule: Rule, facts: str) -> Verdict:
    per_cluster = difference.n / max(1, difference.clusters)
    items = rule.min_items - difference.n
    for_clusters = math.ceil(per_cluster * (rule.min_clusters - difference.clusters))
    needed = max(items, for_clusters, 1)
    reason = (
        f"{facts}: too little to decide on (at least {rule.min_items} items in {rule.min_clusters} clusters); "
        f"at least {needed:,} more items are needed."
    )
    return Verdict("INCONCLUSIVE", reason, needed)


def _claim(rule: Rule) -> str:
    if rule.kind == "superiority":
        return "better"
    return f"at most {rule.margin:g} worse"


def _facts(difference: Interval, metric: str) -> str:
    where = f"{difference.n:,} items"
    if difference.clusters != difference.n:
        where += f" in {difference.clusters:,} clusters"
    return (
        f"{metric} changes by {difference.estimate:+.4f}, "
        f"{100 * difference.level:g} % interval {difference.low:+.4f} to {difference.high:+.4f}, over {where}"
    )

"""What a gate looked at, check by check: the interval that each was decided on, and the line it had to pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.core.scale import Scale, scale
from windlass.evaluate.experiments.experiment import Comparison, Experiment
from windlass.evaluate.experiments.naming import label
from windlass.evaluate.experiments.reports import digits
from windlass.evaluate.gate import Limit, Rule, Verdict
from windlass.evaluate.policy import SliceRule
from windlass.evaluate.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    interval: Interval
    tone: str
    """Whose it is (incumbent, candidate), or what was decided on it."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Intervals on one scale."""

    scale: Scale
    lines: Sequence[Line]
    marks: Sequence[float]
    """Where the lines are that are to be passed."""
    signed: bool
    """Differences, with a line at 0."""
    digits: int


@dataclass(frozen=True, slots=True)
class Check:
    title: str
    claim: str
    """What must be shown."""
    decision: str
    panels: Sequence[Panel]
    """The last one is what was decided on."""
    why: str = ""
    """Where nothing could be drawn."""


def checks(experiment: Experiment) -> list[Check]:
    """In the order of the policy: differences, limits, slices. Where too many items failed none was decided; those of
    which there are values are drawn all the same."""
    policy = experiment.policy
    rules = {policy.primary: policy.rule, **policy.guards}
    wanted = len(rules) + len(policy.limits) + len(policy.slices.by if policy.slices else ())
    made = [part for _, part in experiment.verdict.checks]
    verdicts: list[Verdict | None] = [*made] if len(made) == wanted else [None] * wanted
    known = {one.metric: one for one in experiment.comparisons}
    found = [_difference(name, rule, known.get(name), verdicts.pop(0)) for name, rule in rules.items()]
    found += [_limit(limit, known.get(limit.metric), verdicts.pop(0)) for limit in policy.limits]
    if policy.slices is not None:
        metric = policy.slices.metric or policy.primary
        found += [_slices(f"{label(metric)} by {by}", policy.slices, verdicts.pop(0)) for by in policy.slices.by]
    return found


def _difference(name: str, rule: Rule, known: Comparison | None, verdict: Verdict | None) -> Check:
    plain = rule.statistic == "mean" and not rule.relative
    panels = []
    places = 3
    if known is not None and plain:
        places = digits(max(known.incumbent, known.candidate, key=lambda side: abs(side.estimate)))
        sides = [Line("incumbent", known.incumbent, "incumbent"), Line("candidate", known.candidate, "candidate")]
        panels.append(_panel(sides, (), places))
    interval = verdict.interval if verdict is not None else None
    if interval is None and known is not None and plain:
        interval = known.difference
    decision = "INCONCLUSIVE" if verdict is None else verdict.decision
    worse = rule.margin if rule.better == "lower" else -rule.margin
    marks = {"superiority": (0.0,), "non-inferiority": (worse,), "equivalence": (-rule.margin, rule.margin)}[rule.kind]
    if interval is not None:
        what = "difference, as a share" if rule.relative else "difference"
        panels.append(_panel([Line(what, interval, decision)], marks, places, signed=True))
    title = label(name) if rule.statistic == "mean" else f"{rule.statistic} of {label(name)}"
    return Check(title, _claim(rule), decision, panels, _why(verdict))


def _claim(rule: Rule) -> str:
    margin = f"{100 * rule.margin:g} %" if rule.relative else f"{rule.margin:g}"
    return {
        "superiority": "must be better",
        "non-inferiority": f"must be at most {margin} worse",
        "equivalence": f"must differ by less than {margin}",
    }[rule.kind]


def _limit(limit: Limit, known: Comparison | None, verdict: Verdict | None) -> Check:
    bound, words = (limit.at_most, "at most") if limit.at_least is None else (limit.at_least, "at least")
    assert bound is not None  # checked where the limit is made
    interval = None if verdict is None else verdict.interval
    if interval is None and known is not None and limit.statistic == "mean":
        interval = known.candidate
    decision = "INCONCLUSIVE" if verdict is None else verdict.decision
    lines = [] if interval is None else [Line("candidate", interval, decision)]
    title = label(limit.metric) if limit.statistic == "mean" else f"{limit.statistic} of {label(limit.metric)}"
    panels = [_panel(lines, (bound,), digits(lines[0].interval))] if lines else []
    return Check(title, f"must be {words} {bound:g}", decision, panels, _why(verdict))


def _slices(title: str, rule: SliceRule, verdict: Verdict | None) -> Check:
    parts = () if verdict is None else verdict.checks
    lines = [
        Line(name, part.interval, part.decision, f"{part.interval.n:,} items")
        for name, part in parts
        if part.interval is not None
    ]
    by = f" by more than {rule.margin:g}" if rule.margin else ""
    claim = f"must be worse{by} in none"
    if rule.kind == "non-inferiority":
        claim = f"must be at most {rule.margin:g} worse in each"
    worse = rule.margin if rule.better == "lower" else -rule.margin
    panels = [_panel(lines, (worse,), digits(lines[0].interval), signed=True)] if lines else []
    return Check(title, claim, "INCONCLUSIVE" if verdict is None else verdict.decision, panels, _why(verdict))


def _why(verdict: Verdict | None) -> str:
    return "It was not looked at." if verdict is None else verdict.reason


def _panel(lines: Sequence[Line], marks: Sequence[float], places: int, *, signed: bool = False) -> Panel:
    ends = [end for one in lines for end in (one.interval.low, one.interval.high, one.interval.estimate)]
    return Panel(scale([*ends, *marks, *([0.0] if signed else [])]), lines, marks, signed, places)

"""One experiment: candidate against incumbent on the same items, metric by metric, with a verdict that can be kept.

Pairs of which either side has no value leave the comparison of that metric, and are counted; when the gate's own
metrics lose too many, there is no verdict, because what failed is seldom a random part of the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from windlass.core.errors import InputError
from windlass.core.version import __version__
from windlass.evaluate.deciding import Pairs, decide
from windlass.evaluate.experiments import naming
from windlass.evaluate.experiments.judged import ByJudge, Judged, by_judges
from windlass.evaluate.experiments.pairing import Pair, Paired, Repeats, matched, paired
from windlass.evaluate.experiments.planning import Plan
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.experiments.slices import Slice, compared_slices
from windlass.evaluate.gate import Verdict
from windlass.evaluate.metrics.catalogue import Better
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.multiple import holm
from windlass.evaluate.statistics.paired import differences, paired_difference, sign_flip_p
from windlass.evaluate.statistics.shares import score_interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus incumbent on one metric, over the items of which both have a value."""

    metric: str
    label: str
    direction: Better
    incumbent: Interval
    candidate: Interval
    difference: Interval
    better: int
    """Items on which the candidate did better, whichever direction is better for the metric."""
    worse: int
    same: int
    p_value: float
    """Two-sided cluster sign-flip test: a second opinion that assumes no distribution."""
    p_holm: float
    """The same, corrected for the number of metrics in the experiment."""
    missing: int = 0
    """Pairs left out because a side has no value of it."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why they have none, the most frequent first."""
    repeats: Repeats | None = None
    judged: Judged | None = None
    """Of values that a judge gave. Where its calibration corrects them, the intervals are of what people would say."""


@dataclass(frozen=True, slots=True)
class Experiment:
    incumbent: Results
    candidate: Results
    comparisons: Sequence[Comparison]
    """The policy's metrics first, the primary one at the head."""
    slices: Sequence[Slice]
    """Of the primary metric."""
    verdict: Verdict
    policy: Policy
    seed: int = 0
    """Of the sign-flip tests."""
    plan: Plan | None = None
    """What was stated before the comparison."""
    code: Mapping[str, str] = field(default_factory=lambda: code_digests())
    """Module -> SHA-256 of the code that compared and decided."""
    version: str = __version__

    @property
    def dataset(self) -> str:
        return self.incumbent.dataset

    @property
    def excluded(self) -> int:
        """Pairs left out of the primary metric because a side has no value of it."""
        return next((one.missing for one in self.comparisons if one.metric == self.policy.primary), len(self.pairs))

    @property
    def pairs(self) -> list[Pair]:
        return matched(self.incumbent, self.candidate)

    def comparison(self, metric: str) -> Comparison:
        for comparison in self.comparisons:
            if comparison.metric == metric:
                return comparison
        raise InputError(f"The experiment did not compare '{metric}'.")


def compare(before: Results, after: Results, policy: Policy, *, seed: int = 0, plan: Plan | None = None) -> Experiment:
    """Compares the candidate `after` with the incumbent `before`, item by item, and decides by the policy.

    The verdict rests on the policy's metrics; the others are computed and shown. Raises `InputError` for results that
    cannot be compared (see `pairing.matched`), and for a policy on a metric that neither has.

    Of a metric that a calibrated judge gave, the difference is the one that people would find (`judges.correcting`).
    """
    pairs = matched(before, after)
    have = dict.fromkeys([*before.metrics, *after.metrics, *before.scorers, *after.scorers])
    policy.check_metrics(have)
    columns = {name: paired(pairs, name) for name in dict.fromkeys([*policy.metrics, *have])}
    judges = by_judges(before, after, pairs, policy.level)
    comparisons = [
        _as_people_would(one, judges[one.metric]) if one.metric in judges else one
        for one in _compared(columns, policy, seed)
    ]
    primary = columns[policy.primary]
    slices = compared_slices(pairs, primary, policy.level) if primary.items else ()
    verdict = _decided(policy, columns, pairs, judges, seed)
    return Experiment(before, after, tuple(comparisons), slices, verdict, policy, seed, plan)


def code_digests() -> dict[str, str]:
    """SHA-256 of every module whose change may change an interval or a verdict."""
    here = Path(__file__).parents[1]
    folders = ("experiments", "judges", "statistics")
    files = ("deciding.py", "gate.py", "policy.py", "slices.py", "metrics/catalogue.py")
    paths = sorted([*(path for one in folders for path in here.glob(f"{one}/*.py")), *(here / one for one in files)])
    return {p.relative_to(here).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _compared(columns: Mapping[str, Paired], policy: Policy, seed: int) -> tuple[Comparison, ...]:
    rules = {policy.primary: policy.rule, **policy.guards}
    found = []
    for name, column in columns.items():
        if not column.items:
            continue
        clusters, low, high = column.clusters, *naming.bounds(name)
        incumbent, candidate = (
            score_interval(one, clusters, policy.level).within(low, high) for one in (column.before, column.after)
        )
        pair = paired_difference(column.before, column.after, clusters, policy.level)
        direction = rules[name].better if name in rules else naming.direction(name)
        up, down = (pair.better, pair.worse) if direction == "higher" else (pair.worse, pair.better)
        p_value = sign_flip_p(differences(column.before, column.after), clusters, seed=seed)
        found.append(
            Comparison(
                name,
                naming.label(name),
                direction,
                incumbent,
                candidate,
                pair.difference,
                up,
                down,
                pair.same,
                p_value,
                p_value,
                column.missing,
                column.reasons,
                column.repeats,
            )
        )
    adjusted = holm([one.p_value for one in found]).tolist() if found else []
    return tuple(replace(one, p_holm=p) for one, p in zip(found, adjusted))


def _as_people_would(one: Comparison, judge: ByJudge) -> Comparison:
    people, judged = judge.people, judge.told(one.difference)
    return replace(
        one,
        incumbent=people.incumbent or one.incumbent,
        candidate=people.candidate or one.candidate,
        difference=people.difference or one.difference,
        judged=judged,
    )


def _decided(
    policy: Policy, columns: Mapping[str, Paired], pairs: Sequence[Pair], judges: Mapping[str, ByJudge], seed: int
) -> Verdict:
    for name in policy.metrics:
        column = columns[name]
        if column.missing > policy.error_limit * column.pairs:
            reason, often = next(iter(column.reasons.items()))
            return Verdict(
                "INCONCLUSIVE",
                f"{column.missing:,} of {column.pairs:,} items have no {name} ({often:,} times: {reason}); at most "
                f"{100 * policy.error_limit:g} % may. Mend the failures and compare again.",
            )
        if not column.items:
            return Verdict("INCONCLUSIVE", f"No item has the metric {name}, which the policy asks for.")
        if name in judges and judges[name].people.useless:
            why = judges[name].people.note
            return Verdict("INCONCLUSIVE", f"{name}: {why} Improve the judge, or label more items.")
    values = {name: _pairs(columns[name], pairs, name, policy, judges.get(name)) for name in policy.metrics}
    verdict = decide(policy, values, seed=seed)
    never = [name for name in policy.metrics if name in judges and judges[name].trust.calibration is None]
    if never:
        said = f"{verdict.reason} It rests on a judge that was NEVER CALIBRATED: {', '.join(never)}."
        verdict = replace(verdict, reason=said)
    return verdict


def _pairs(column: Paired, pairs: Sequence[Pair], name: str, policy: Policy, judge: ByJudge | None) -> Pairs:
    """As the gate takes them. Each item its own cluster is no clusters."""
    apart = len(set(column.clusters)) == len(column.clusters)
    slices: dict[str, list[str]] = {}
    if policy.slices is not None:
        of = {a.item: a.slices for a, _ in pairs}
        kinds = sorted({kind for item in column.items for kind in of[item]})
        slices = {kind: [of[item].get(kind, "(none)") for item in column.items] for kind in kinds}
    return Pairs(
        column.before,
        column.after,
        None if apart else column.clusters,
        slices=slices,
        bounds=naming.bounds(name),
        difference=None if judge is None else judge.people.difference,
        candidate=None if judge is None else judge.people.candidate,
    )

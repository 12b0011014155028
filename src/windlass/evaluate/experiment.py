"""Experiments: two systems on the same questions, compared item by item, with a verdict that can be kept.

Items on which either system failed leave the comparison as a pair. They are counted, and when they are too many there
is no verdict, because what failed is seldom a random part of the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass import __version__
from windlass.core.errors import InputError
from windlass.evaluate.gate import Check, Rule, Verdict, decide_all, non_inferiority, superiority
from windlass.evaluate.metrics.selective import Selective, aurc, auroc, selective
from windlass.evaluate.outcomes import METRICS, Columns, Outcome, columns
from windlass.evaluate.questions import ExamItem
from windlass.evaluate.statistics.bootstrap import bootstrap
from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.multiple import holm
from windlass.evaluate.statistics.paired import differences, paired_difference, sign_flip_p

SHOWN = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr@10", "right_decision", "right_outcome", "latency_ms")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a candidate must show: one primary metric, then guards, in this fixed order (see `gate`)."""

    primary: str = "ndcg@10"
    rule: Rule = field(default_factory=superiority)
    guards: Mapping[str, Rule] = field(default_factory=lambda: {"right_decision": non_inferiority(0.05)})
    error_limit: float = 0.02
    """Share of items on which a system may fail before the experiment decides nothing."""

    def __post_init__(self) -> None:
        for name in (self.primary, *self.guards):
            if name not in METRICS:
                raise InputError(f"The policy names a metric '{name}'.", f"Known: {', '.join(METRICS)}.")
        if self.primary in self.guards:
            raise InputError(f"'{self.primary}' is both the primary metric and a guard.")

    @property
    def level(self) -> float:
        """The level of intervals that satisfies every rule."""
        return max(rule.level for rule in (self.rule, *self.guards.values()))


@dataclass(frozen=True, slots=True)
class SystemReport:
    """How one system did on an exam."""

    name: str
    digest: str | None
    items: int
    """Scored."""
    errors: int
    """Not scored, because the system failed on them."""
    metrics: Mapping[str, Interval]
    selective: Selective | None
    """None when it failed on every item."""
    auroc: Interval | None
    """Of the confidence: does it tell questions with an answer from those without? None without confidences or
    without one of the two kinds."""
    aurc: float | None = None
    """Area under the risk-coverage curve of the confidence: less is better. None without confidences."""

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus incumbent on one metric."""

    metric: str
    difference: Interval
    better: int
    """Items on which the candidate did better, whichever direction is better for the metric."""
    worse: int
    same: int
    p_value: float
    """Two-sided cluster sign-flip test: a second opinion that assumes no distribution."""
    p_holm: float
    """The same, corrected for the number of metrics in the experiment."""


@dataclass(frozen=True, slots=True)
class Experiment:
    dataset: str
    """Digest of the exam."""
    split: str
    incumbent: SystemReport
    candidate: SystemReport
    comparisons: Sequence[Comparison]
    verdict: Verdict
    excluded: int
    """Items left out of the comparison because a system failed on them."""
    policy: Policy
    seed: int
    items: Sequence[ExamItem]
    outcomes: tuple[Sequence[Outcome], Sequence[Outcome]]
    """Of the incumbent and of the candidate, item by item."""
    scorers: Mapping[str, str] = field(default_factory=lambda: scorer_digests())
    """Module -> SHA-256 of the code that computed the scores."""
    version: str = __version__

    def comparison(self, metric: str) -> Comparison:
        for comparison in self.comparisons:
            if comparison.metric == metric:
                return comparison
        raise InputError(f"The experiment did not compare '{metric}'.")

    def to_json(self) -> dict[str, Any]:
        """A JSON object with one row per item; `from_json` reads it back."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("items", "outcomes")}
        row["items"] = [
            {**asdict(item), "answerable": item.answerable, "incumbent": asdict(a), "candidate": asdict(b)}
            for item, a, b in zip(self.items, *self.outcomes)
        ]
        plain: dict[str, Any] = _plain(row)
        return plain

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Experiment:
        names = [f.name for f in fields(ExamItem)]
        policy = {**row["policy"], "rule": Rule(**row["policy"]["rule"])}
        policy["guards"] = {name: Rule(**rule) for name, rule in row["policy"]["guards"].items()}
        return cls(
            **{
                **row,
                "incumbent": _report(row["incumbent"]),
                "candidate": _report(row["candidate"]),
                "comparisons": tuple(
                    Comparison(**{**one, "difference": Interval.from_json(one["difference"])})
                    for one in row["comparisons"]
                ),
                "verdict": Verdict.from_json(row["verdict"]),
                "policy": Policy(**policy),
                "items": tuple(ExamItem(**{name: item[name] for name in names}) for item in row["items"]),
                "outcomes": tuple(
                    tuple(Outcome(**item[side]) for item in row["items"]) for side in ("incumbent", "candidate")
                ),
            }
        )


def report(
    items: Sequence[ExamItem],
    outcomes: Sequence[Outcome],
    *,
    name: str,
    digest: str | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> SystemReport:
    """Every metric of one system with its cluster-robust interval, over the items on which it did not fail."""
    _same_length(items, outcomes)
    if not items:
        raise InputError("There are no items to report on.", "Derive an exam from more documents.")
    kept = [i for i, outcome in enumerate(outcomes) if outcome.error is None]
    errors = len(items) - len(kept)
    if not kept:
        return SystemReport(name, digest, 0, errors, {}, None, None)
    items, outcomes = [items[i] for i in kept], [outcomes[i] for i in kept]
    table = columns(items, outcomes)
    metrics = {}
    for metric in SHOWN:
        mask = METRICS[metric].applies(table)
        if mask.any():
            interval = mean_interval(METRICS[metric].values(table)[mask], _clusters(items, mask), level)
            metrics[metric] = interval.within(*METRICS[metric].bounds)
    return SystemReport(
        name,
        digest,
        len(items),
        errors,
        metrics,
        selective(table.answerable, table.abstained, table.rank == 1),
        _auroc(items, outcomes, table, level, seed),
        _aurc(outcomes, table),
    )


def compare(
    items: Sequence[ExamItem],
    incumbent: Sequence[Outcome],
    candidate: Sequence[Outcome],
    *,
    dataset: str,
    names: tuple[str, str] = ("incumbent", "candidate"),
    digests: tuple[str | None, str | None] = (None, None),
    policy: Policy | None = None,
    seed: int = 0,
) -> Experiment:
    """Compares two systems' outcomes over the same items in the same order, and decides.

    dataset: digest of the exam. The verdict rests on the policy's metrics; the others are computed and shown.
    """
    policy = policy or Policy()
    _same_length(items, incumbent)
    _same_length(items, candidate)
    if not items:
        raise InputError("There are no items to compare on.", "Derive an exam from more documents.")
    splits = {item.split for item in items}
    if len(splits) > 1:
        raise InputError(f"The items come from the splits {', '.join(sorted(splits))}.", "Compare on one split.")
    reports = tuple(
        report(items, outcomes, name=name, digest=digest, level=policy.level, seed=seed)
        for outcomes, name, digest in zip((incumbent, candidate), names, digests)
    )
    kept = [i for i in range(len(items)) if incumbent[i].error is None and candidate[i].error is None]
    paired = [items[i] for i in kept]
    before, after = (columns(paired, [side[i] for i in kept]) for side in (incumbent, candidate))
    wanted = dict.fromkeys((policy.primary, *policy.guards, *SHOWN))
    comparisons = _compare_metrics(list(wanted), paired, before, after, policy.level, seed) if kept else ()
    excluded = len(items) - len(kept)
    return Experiment(
        dataset=dataset,
        split=items[0].split,
        incumbent=reports[0],
        candidate=reports[1],
        comparisons=comparisons,
        verdict=_decide(policy, comparisons, excluded, len(items)),
        excluded=excluded,
        policy=policy,
        seed=seed,
        items=tuple(items),
        outcomes=(tuple(incumbent), tuple(candidate)),
    )


def scorer_digests() -> dict[str, str]:
    """SHA-256 of every module whose change may change a score, an interval or a verdict."""
    here = Path(__file__).parent
    paths = sorted([*here.glob("metrics/*.py"), *here.glob("statistics/*.py"), here / "gate.py", here / "outcomes.py"])
    return {p.relative_to(here).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _compare_metrics(
    metrics: Sequence[str], items: Sequence[ExamItem], before: Columns, after: Columns, level: float, seed: int
) -> tuple[Comparison, ...]:
    found = []
    for name in metrics:
        metric = METRICS[name]
        mask = metric.applies(before) & metric.applies(after)
        if not mask.any():
            continue
        a, b, clusters = metric.values(before)[mask], metric.values(after)[mask], _clusters(items, mask)
        pair = paired_difference(a, b, clusters, level)
        up, down = (pair.better, pair.worse) if metric.better == "higher" else (pair.worse, pair.better)
        p_value = sign_flip_p(differences(a, b), clusters, seed=seed)
        found.append(Comparison(name, pair.difference, up, down, pair.same, p_value, p_value))
    adjusted = holm([one.p_value for one in found]).tolist() if found else []
    return tuple(replace(one, p_holm=p) for one, p in zip(found, adjusted))


def _decide(policy: Policy, comparisons: Sequence[Comparison], excluded: int, n: int) -> Verdict:
    if excluded > policy.error_limit * n:
        return Verdict(
            "INCONCLUSIVE",
            f"{excluded} of {n} items have no outcome because a system failed on them; at most "
            f"{100 * policy.error_limit:g} % may. Mend the failures and compare again.",
        )
    known = {comparison.metric: comparison.difference for comparison in comparisons}
    wanted = {policy.primary: policy.rule, **policy.guards}
    missing = [name for name in wanted if name not in known]
    if missing:
        return Verdict("INCONCLUSIVE", f"No item has the metric {', '.join(missing)}, which the policy asks for.")
    return decide_all([Check(METRICS[name].label, known[name], rule) for name, rule in wanted.items()])


def _auroc(
    items: Sequence[ExamItem], outcomes: Sequence[Outcome], table: Columns, level: float, seed: int
) -> Interval | None:
    confidence = [outcome.confidence for outcome in outcomes]
    if any(value is None for value in confidence) or len(set(table.answerable.tolist())) < 2:
        return None
    scores, labels = np.array(confidence, dtype=np.float64), table.answerable

    def statistic(chosen: NDArray[np.intp]) -> float:
        some = labels[chosen]
        return auroc(some, scores[chosen]) if some.any() and not some.all() else float("nan")

    try:
        return bootstrap(statistic, len(items), [i.cluster for i in items], seed=seed, resamples=999, level=level)
    except InputError:  # so few items of one kind that resamples lack them: the estimate would have no interval
        return None


def _aurc(outcomes: Sequence[Outcome], table: Columns) -> float | None:
    confidence = [outcome.confidence for outcome in outcomes if outcome.confidence is not None]
    return aurc(confidence, ~(table.answerable & (table.rank == 1))) if len(confidence) == len(outcomes) else None


def _clusters(items: Sequence[ExamItem], mask: NDArray[np.bool_]) -> list[str]:
    return [item.cluster for item, meant in zip(items, mask.tolist()) if meant]


def _same_length(items: Sequence[ExamItem], outcomes: Sequence[Outcome]) -> None:
    if len(items) != len(outcomes):
        raise InputError(f"There are {len(items)} items but {len(outcomes)} outcomes.", "Give one outcome per item.")


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON objects and lists; intervals by their own rule."""
    if isinstance(value, Interval):
        return value.to_json()
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _report(row: Mapping[str, Any]) -> SystemReport:
    return SystemReport(
        **{
            **row,
            "metrics": {name: Interval.from_json(one) for name, one in row["metrics"].items()},
            "selective": None if row["selective"] is None else Selective(**row["selective"]),
            "auroc": None if row["auroc"] is None else Interval.from_json(row["auroc"]),
        }
    )

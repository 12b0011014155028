"""An exam as an experiment takes it: every metric of every question; and the report on one system.

Questions on which a system failed have no scores. They are counted, never averaged in as a 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.exam.items import ExamItem
from windlass.evaluate.exam.outcomes import METRICS, Columns, Outcome, columns
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results
from windlass.evaluate.gate import non_inferiority
from windlass.evaluate.metrics.selective import Selective, aurc, auroc, selective
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.bootstrap import bootstrap
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.shares import score_interval

SHOWN = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr@10", "right_decision", "right_outcome", "latency_ms")
POLICY = Policy("ndcg@10", guards={"right_decision": non_inferiority(0.05)})
"""Better answers found, and no worse at knowing when there is none."""


def results(
    items: Sequence[ExamItem], outcomes: Sequence[Outcome], *, variant: str, dataset: str, digest: str | None = None
) -> Results:
    """What a system did with the questions of one split. `dataset`: digest of the exam.

    Raises `InputError` for lists of different length, no items, or items of several splits.
    """
    _same_length(items, outcomes)
    splits = {item.split for item in items}
    if len(splits) > 1:
        raise InputError(f"The items come from the splits {', '.join(sorted(splits))}.", "Compare on one split.")
    kept = [i for i, outcome in enumerate(outcomes) if outcome.error is None]
    table = columns([items[i] for i in kept], [outcomes[i] for i in kept])
    values: list[dict[str, float]] = [{} for _ in items]
    for name in SHOWN if kept else ():
        metric = METRICS[name]
        applies, scores = metric.applies(table).tolist(), metric.values(table).tolist()
        for at, has, score in zip(kept, applies, scores, strict=True):
            if has:
                values[at][name] = score
    rows = [_row(item, outcome, found) for item, outcome, found in zip(items, outcomes, values)]
    return Results(variant, digest, dataset, tuple(rows), _scorers(), next(iter(splits), ""))


def _row(item: ExamItem, outcome: Outcome, values: Mapping[str, float]) -> ItemResult:
    said = {"rank": outcome.rank, "abstained": outcome.abstained, "confidence": outcome.confidence}
    return ItemResult(
        item.id,
        item.cluster,
        values=values,
        errors={} if outcome.error is None else {OUTPUT: outcome.error},
        output=said if outcome.error is None else None,
        slices={"kind": item.kind, "answerable": "yes" if item.answerable else "no"},
        input=item.question,
        expected=item.document,
    )


def _scorers() -> dict[str, str]:
    """The metrics of an exam stand in a few modules, which count as one."""
    here = Path(__file__).parent
    metrics = here.parent / "metrics"
    digest = hashlib.sha256()
    for path in (here / "outcomes.py", metrics / "retrieval.py", metrics / "selective.py"):
        digest.update(path.read_bytes())
    return dict.fromkeys(SHOWN, digest.hexdigest())


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
            interval = score_interval(METRICS[metric].values(table)[mask], _clusters(items, mask), level)
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

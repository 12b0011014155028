"""What a system did with the questions of an exam, and the metrics that are functions of it.

An outcome keeps the facts (where the right document stood, whether the system abstained, how sure it was, how long it
took); every metric is computed from outcomes, so a stored experiment can be scored again by a metric added later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.exam.items import ExamItem
from windlass.evaluate.metrics.retrieval import judged_ranks, ndcg, recall, reciprocal_rank
from windlass.evaluate.metrics.selective import right_decision, right_outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system returns for one question."""

    documents: Sequence[str]
    """Ids of the documents it found, best first. A document found by several passages counts where it first stands."""
    abstained: bool = False
    confidence: float | None = None
    """Higher is surer; comparable between the questions of one system only."""


System = Callable[[str], Answer]


@dataclass(frozen=True, slots=True)
class Outcome:
    rank: int = 0
    """Where the right document stands, from 1; 0 when it was not found or the question has none."""
    abstained: bool = False
    confidence: float | None = None
    latency_ms: float | None = None
    error: str | None = None
    """Why there is no outcome. Such an item has no scores; it is counted, never averaged in as a 0."""


def ask(items: Sequence[ExamItem], system: System, progress: Callable[[int], object] | None = None) -> list[Outcome]:
    """Asks the system every question. An exception becomes that item's error; `progress` gets the count so far."""
    outcomes = []
    for done, item in enumerate(items, start=1):
        started = time.perf_counter()
        try:
            answer = system(item.question)
        except Exception as error:  # noqa: BLE001 - whatever a system raises is data of the experiment
            outcomes.append(Outcome(error=f"{type(error).__name__}: {error}"))
        else:
            elapsed = (time.perf_counter() - started) * 1000
            outcomes.append(Outcome(rank_of(item, answer.documents), answer.abstained, answer.confidence, elapsed))
        if progress:
            progress(done)
    return outcomes


def rank_of(item: ExamItem, documents: Sequence[str]) -> int:
    """Rank of the item's document among the distinct documents of a ranking, 0 when it is not there."""
    if item.document is None:
        return 0
    distinct = list(dict.fromkeys(documents))
    return distinct.index(item.document) + 1 if item.document in distinct else 0


def outcomes_from_arrays(
    ranks: ArrayLike, abstained: ArrayLike, confidence: ArrayLike, latency_ms: ArrayLike | None = None
) -> list[Outcome]:
    """The fast path: outcomes of systems that answer all questions at once, as whole arrays of equal length."""
    rank, no, sure = np.asarray(ranks), np.asarray(abstained), np.asarray(confidence, dtype=np.float64)
    took = None if latency_ms is None else np.asarray(latency_ms, dtype=np.float64)
    if not (rank.shape == no.shape == sure.shape and rank.ndim == 1 and (took is None or took.shape == rank.shape)):
        raise InputError("Ranks, abstentions, confidences and latencies must be lists of one length.")
    if rank.size and (rank < 0).any():
        raise InputError("A rank is a whole number from 0 (not found) up.")
    times = [None] * rank.size if took is None else took.tolist()
    return [Outcome(int(r), bool(a), c, t) for r, a, c, t in zip(rank.tolist(), no.tolist(), sure.tolist(), times)]


@dataclass(frozen=True, slots=True)
class Columns:
    """Items and the outcomes of one system as arrays; only items without an error."""

    answerable: NDArray[np.bool_]
    rank: NDArray[np.int64]
    abstained: NDArray[np.bool_]
    latency_ms: NDArray[np.float64]
    """NaN where unknown."""


def columns(items: Sequence[ExamItem], outcomes: Sequence[Outcome]) -> Columns:
    return Columns(
        np.array([item.answerable for item in items], dtype=bool),
        np.array([outcome.rank for outcome in outcomes], dtype=np.int64),
        np.array([outcome.abstained for outcome in outcomes], dtype=bool),
        np.array([np.nan if o.latency_ms is None else o.latency_ms for o in outcomes], dtype=np.float64),
    )


@dataclass(frozen=True, slots=True)
class Metric:
    label: str
    applies: Callable[[Columns], NDArray[np.bool_]]
    """Which items have this metric at all: a question without an answer has no recall."""
    values: Callable[[Columns], NDArray[np.float64]]
    """One value per item; those where the metric does not apply are not looked at."""
    better: Literal["higher", "lower"] = "higher"
    bounds: tuple[float, float] = (0.0, 1.0)
    """Between which every value lies."""


def _ranked(label: str, score: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> Metric:
    return Metric(label, lambda c: c.answerable, lambda c: score(c.rank))


def _everywhere(c: Columns) -> NDArray[np.bool_]:
    return np.ones(c.rank.size, dtype=bool)


METRICS: Mapping[str, Metric] = {
    "ndcg@10": _ranked("nDCG@10", lambda ranks: ndcg(judged_ranks(ranks, 10), 10)),
    "recall@1": _ranked("recall@1", lambda ranks: recall(judged_ranks(ranks, 1), 1)),
    "recall@5": _ranked("recall@5", lambda ranks: recall(judged_ranks(ranks, 5), 5)),
    "recall@10": _ranked("recall@10", lambda ranks: recall(judged_ranks(ranks, 10), 10)),
    "mrr@10": _ranked("MRR@10", lambda ranks: reciprocal_rank(judged_ranks(ranks, 10))),
    "right_decision": Metric(
        "right decision to answer or abstain", _everywhere, lambda c: right_decision(c.answerable, c.abstained)
    ),
    "right_outcome": Metric(
        "right answer, or right abstention",
        _everywhere,
        lambda c: right_outcome(c.answerable, c.abstained, c.rank == 1),
    ),
    "latency_ms": Metric(
        "latency in ms", lambda c: np.isfinite(c.latency_ms), lambda c: c.latency_ms, "lower", (0.0, np.inf)
    ),
}
"""Metrics of a grounded assistant, by the name used in policies and stored experiments."""

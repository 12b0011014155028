"""Answers of other forms than texts, from files of rows, and the metrics that are of each form.

labels         {"found": "yes", "right": "no"}                       accuracy, f1-macro, kappa, mcc
probabilities  {"found": {"yes": 0.8, "no": 0.2}, "right": "yes"}    the same; log-loss, brier, ece; of two auroc, auprc
scores         {"found": 0.8, "right": true}                         auroc, auprc; of a probability brier, ece, log-loss
numbers        {"found": 3.1, "right": 3}                            pearson, spearman, kendall
rankings       {"found": ["d3", "d1"], "right": {"d1": 2}}           recall@5, ndcg@10, mrr, map; best document first
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics import calibration, classification, correlation, retrieval
from windlass.evaluate.metrics.catalogue import Metric
from windlass.evaluate.metrics.pairs import clusters_of, read_objects
from windlass.evaluate.metrics.selective import auroc
from windlass.evaluate.statistics.bootstrap import bootstrap, bootstrap_sums
from windlass.evaluate.statistics.distances import distance_interval
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.evaluate.statistics.shares import score_interval

Scores = NDArray[np.float64]
Places = NDArray[np.intp]
_CELLS = 20_000_000
"""Of a table of confusions, a row each; with more, resamples are counted one by one."""


@dataclass(frozen=True, slots=True)
class Rows:
    """`found` and `right` as they stand in a file, with the place of each in words."""

    found: Sequence[Any]
    right: Sequence[Any]
    clusters: Sequence[str] | None
    where: Sequence[str]

    def same_items(self, other: Rows) -> None:
        """Raises `InputError` unless both are of the same items in the same order: of the same right answers."""
        if len(self.right) != len(other.right):
            raise InputError(f"One file has {len(self.right)} lines, the other {len(other.right)}.")
        for number, (one, two) in enumerate(zip(self.right, other.right), start=1):
            if one != two:
                raise InputError(f"Item {number} is not the same in both files.", "Compare answers to the same items.")


def read_rows(path: Path) -> Rows:
    """Raises `InputError` naming the line that is none."""
    rows = read_objects(path)
    for where, row in rows:
        for name in ("found", "right"):
            if row.get(name) is None:
                raise InputError(f"{where} has no `{name}`.", "Leave the line out, or say what it is.")
    return Rows(
        [row["found"] for _, row in rows],
        [row["right"] for _, row in rows],
        clusters_of(path, [row.get("cluster") for _, row in rows]),
        [where for where, _ in rows],
    )


@dataclass(frozen=True, slots=True)
class Applied:
    """A metric of rows, as one of these."""

    values: Scores | None = None
    """One each, whose mean it is."""
    pooled: tuple[Scores, Callable[[Scores], Scores]] | None = None
    """What each row adds, and the score of sums."""
    distances: Scores | None = None
    """What each row adds to parts, whose means' distances from 0 it is the sum of."""
    score: Callable[[Places], float] | None = None
    """Of any rows, by their places."""

    def measured(self, clusters: Sequence[str] | None, n: int, level: float, seed: int) -> Interval:
        if self.values is not None:
            return score_interval(self.values, clusters, level)
        if self.pooled is not None:
            return bootstrap_sums(*self.pooled, clusters, seed=seed, level=level)
        if self.distances is not None:
            return distance_interval(self.distances, clusters, seed=seed, level=level)
        assert self.score is not None, "it is one of them"
        return bootstrap(self.score, n, clusters, seed=seed, level=level)

    def less(self, other: Applied, clusters: Sequence[str] | None, n: int, level: float, seed: int) -> Interval:
        """This less the other one's, which is of the same metric, on the same items."""
        if self.values is not None and other.values is not None:
            return paired_difference(other.values, self.values, clusters, level).difference
        if self.pooled is not None and other.pooled is not None:
            (ours, score), (theirs, scored) = self.pooled, other.pooled
            size = ours.shape[1]
            both = np.hstack([ours, theirs])
            return bootstrap_sums(
                both, lambda sums: score(sums[..., :size]) - scored(sums[..., size:]), clusters, seed=seed, level=level
            )
        if self.distances is not None:
            return distance_interval(self.distances, clusters, less=other.distances, seed=seed, level=level)
        first, second = self.score, other.score
        assert first is not None and second is not None, "both are of one metric"
        return bootstrap(lambda at: first(at) - second(at), n, clusters, seed=seed, level=level)


def apply(metric: Metric, rows: Rows, positive: str | None = None) -> Applied:
    """`positive`: of two labels with probabilities, the one that an AUROC is of.

    Raises `InputError` for a metric of other things than these forms, and naming the line whose form it is not.
    """
    name, _, cutoff = metric.name.partition("@")
    if metric.name == "accuracy":
        right, said, _ = _labels(rows)
        return Applied((right == said).astype(np.float64))
    if name in _OF_LABELS:
        return _of_labels(rows, _OF_LABELS[name])
    if name in _OF_NUMBERS:
        x, y = _numbers("found", rows.found, rows.where), _numbers("right", rows.right, rows.where)
        return Applied(score=_defined(lambda at: _OF_NUMBERS[name](x[at], y[at])))
    if name in _OF_RANKINGS:
        judged = retrieval.judge(*_rankings(rows))
        return Applied(_OF_RANKINGS[name](judged, int(cutoff) if cutoff else None))
    if name in ("log-loss", "brier"):
        table, classes = _probabilities(rows)
        if isinstance(rows.found[0], Mapping):
            return Applied((calibration.log_loss if name == "log-loss" else calibration.brier)(table, classes))
        sure = table[:, 1]
        return Applied(
            calibration.log_loss(table, classes) if name == "log-loss" else calibration.squared_error(sure, classes)
        )
    if name == "ece":
        table, classes = _probabilities(rows)
        known = isinstance(rows.found[0], Mapping)
        sure, right_ = (table.max(axis=1), table.argmax(axis=1) == classes) if known else (table[:, 1], classes == 1)
        return Applied(distances=calibration.calibration_parts(sure, right_))
    if name in ("auroc", "auprc"):
        scores, truth = _ranked(rows, positive)
        ranks = auroc if name == "auroc" else calibration.average_precision
        return Applied(score=_defined(lambda at: ranks(truth[at], scores[at])))
    raise InputError(
        f"The metric '{metric.name}' is not made of lines of `found` and `right`.",
        "It is a function of Python: see docs/metrics.md.",
    )


def _defined(score: Callable[[Places], float]) -> Callable[[Places], float]:
    """NaN where a resample has one class only, which `bootstrap` counts."""

    def whole(at: Places) -> float:
        try:
            return score(at)
        except InputError:
            return math.nan

    return whole


# labels -------------------------------------------------------------------------------------------------------------


def _labels(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    said = [_label(max(one, key=lambda label: one[label]) if isinstance(one, Mapping) and one else one, "found", where)
            for one, where in zip(rows.found, rows.where)]  # fmt: skip
    wanted = [
        _label(one[0] if isinstance(one, list) and len(one) == 1 else one, "right", where)
        for one, where in zip(rows.right, rows.where)
    ]
    right, found, known = classification.codes(wanted, said)
    return right, found, len(known)


def _label(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str | int) or value == "":
        raise InputError(f"{where}: `{name}` is no label.", 'Give one label, as {"found": "yes", "right": "no"}.')
    return str(value)


def _of_labels(rows: Rows, score: Callable[[NDArray[np.float64]], Any]) -> Applied:
    right, said, classes = _labels(rows)
    if len(rows.found) * classes**2 > _CELLS:
        return Applied(score=lambda at: float(score(classification.confusion(right[at], said[at], classes))))
    counts = np.zeros((len(rows.found), classes**2))
    counts[np.arange(len(rows.found)), right * classes + said] = 1.0
    return Applied(pooled=(counts, lambda sums: score(sums.reshape(*sums.shape[:-1], classes, classes))))


_OF_LABELS: Mapping[str, Callable[[NDArray[np.float64]], Any]] = {
    "balanced-accuracy": classification.balanced_accuracy,
    "f1-macro": lambda counts: classification.f1(counts, "macro"),
    "f1-micro": lambda counts: classification.f1(counts, "micro"),
    "f1-weighted": lambda counts: classification.f1(counts, "weighted"),
    "mcc": classification.matthews,
    "kappa": classification.kappa,
}

# probabilities and scores -------------------------------------------------------------------------------------------


def _probabilities(rows: Rows) -> tuple[Scores, NDArray[np.int64]]:
    """A row of probabilities each, and the number of the right class; of one probability the classes are no and yes."""
    if not isinstance(rows.found[0], Mapping):
        sure = _numbers("found", rows.found, rows.where)
        return np.stack([1 - sure, sure], axis=1), _truths(rows).astype(np.int64)
    for one, where in zip(rows.found, rows.where):
        if not isinstance(one, Mapping) or not one:
            raise InputError(f"{where}: `found` holds no probabilities by label.", 'As {"yes": 0.8, "no": 0.2}.')
    labels = sorted({label for one in rows.found for label in one})
    wanted = [_label(one, "right", where) for one, where in zip(rows.right, rows.where)]
    for label, where in zip(wanted, rows.where):
        if label not in labels:
            raise InputError(f"{where}: no line has a probability of '{label}'.", f"Known: {', '.join(labels)}.")
    columns = [_numbers("found", [one.get(label, 0.0) for one in rows.found], rows.where) for label in labels]
    return np.stack(columns, axis=1), np.array([labels.index(label) for label in wanted])


def _ranked(rows: Rows, positive: str | None) -> tuple[Scores, NDArray[np.bool_]]:
    if not isinstance(rows.found[0], Mapping):
        return _numbers("found", rows.found, rows.where), _truths(rows)
    labels = sorted({label for one in rows.found if isinstance(one, Mapping) for label in one})
    if positive not in labels:
        raise InputError(
            f"Of {', '.join(labels)} nobody said which is the positive one.", f"Name it: --positive {labels[-1]}"
        )
    table, classes = _probabilities(rows)
    place = labels.index(positive)
    return table[:, place], classes == place


def _truths(rows: Rows) -> NDArray[np.bool_]:
    for one, where in zip(rows.right, rows.where):
        if one not in (0, 1):
            raise InputError(f"{where}: `right` is {one!r}.", "Beside a number it is true or false.")
    return np.array([bool(one) for one in rows.right])


def _numbers(name: str, values: Sequence[Any], where: Sequence[str]) -> Scores:
    for one, place in zip(values, where):
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            raise InputError(f"{place}: `{name}` is {one!r}, and no number.", "Leave the line out, or mend it.")
    return np.array(values, dtype=np.float64)


_OF_NUMBERS: Mapping[str, Callable[[Scores, Scores], float]] = {
    "pearson": correlation.pearson,
    "spearman": correlation.spearman,
    "kendall": correlation.kendall,
}

# rankings -----------------------------------------------------------------------------------------------------------


def _rankings(rows: Rows) -> tuple[list[list[str]], list[Mapping[str, float]]]:
    found: list[list[str]] = []
    relevances: list[Mapping[str, float]] = []
    for said, right, where in zip(rows.found, rows.right, rows.where):
        if not isinstance(said, list) or not all(isinstance(one, str | int) for one in said):
            raise InputError(f"{where}: `found` is no ranking.", "Give the ids of documents, the best one first.")
        if not isinstance(right, list | Mapping):
            raise InputError(f"{where}: `right` says of no document that it is relevant.", 'As ["d1"] or {"d1": 2}.')
        found.append([str(one) for one in said])
        by_id = right if isinstance(right, Mapping) else dict.fromkeys(right, 1)
        numbers = _numbers("right", list(by_id.values()), [where] * len(by_id))
        relevances.append(dict(zip(map(str, by_id), numbers.tolist())))
    return found, relevances


_OF_RANKINGS: Mapping[str, Callable[[retrieval.Judged, Any], Scores]] = {
    "recall": retrieval.recall,
    "precision": retrieval.precision,
    "hit": retrieval.hit,
    "ndcg": retrieval.ndcg,
    "mrr": retrieval.reciprocal_rank,
    "map": lambda judged, k: retrieval.average_precision(judged),
    "r-precision": lambda judged, k: retrieval.r_precision(judged),
}

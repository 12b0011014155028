"""Whether probabilities mean what they say, and how well scores rank: log loss, Brier score, ECE, average precision.

probabilities   shape (items, classes), rows that add up to 1
confidence      shape (items,): the probability that the answer given is right
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.arrays import as_many, flags, numbers, table

Scores = NDArray[np.float64]
Bins = Literal["width", "mass"]


def log_loss(probabilities: ArrayLike, right: ArrayLike) -> Scores:
    """Per item the negative logarithm of the probability of the right class; as in scikit-learn, no probability counts
    as less than the smallest step from 1. right: the number of the class, from 0."""
    rows, classes = _rows(probabilities, right)
    tiny = np.finfo(np.float64).eps
    return -np.log(np.clip(rows[np.arange(len(rows)), classes], tiny, 1 - tiny))


def brier(probabilities: ArrayLike, right: ArrayLike) -> Scores:
    """Per item the squared distance to certainty of the right class, from 0 to 2 (Brier, 1950). Of two classes it is
    twice the squared error of the one probability, which is what is mostly reported: see `squared_error`."""
    rows, classes = _rows(probabilities, right)
    certain = np.zeros_like(rows)
    certain[np.arange(len(rows)), classes] = 1.0
    distance: Scores = ((rows - certain) ** 2).sum(axis=1)
    return distance


def squared_error(confidence: ArrayLike, correct: ArrayLike) -> Scores:
    """Per item (confidence - 1 if correct else 0) squared: the Brier score of two classes, from 0 to 1."""
    sure, right = _sure(confidence, correct)
    return (sure - right) ** 2


@dataclass(frozen=True, slots=True)
class Reliability:
    """What answers of similar confidence are worth: a bar of the reliability diagram each. Shapes (bins,)."""

    confidence: Scores
    """Mean of those in the bin."""
    accuracy: Scores
    items: NDArray[np.int64]
    """Never 0: empty bins are left out."""


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, by: Bins = "width") -> Reliability:
    """Answers sorted into bins of equal width, or of equally many answers each ("mass"); equal confidences stay
    together. Raises `InputError` for none, for confidences outside of 0 to 1, and for fewer than 1 bin."""
    sure, right = _sure(confidence, correct)
    if bins < 1:
        raise InputError(f"There are no {bins} bins.", "Use 15, for example.")
    inner = np.arange(1, bins) / bins
    edges = inner if by == "width" else np.quantile(sure, inner)
    place = np.searchsorted(edges, sure, side="left")  # a confidence on an edge belongs to the bin below
    items = np.bincount(place, minlength=bins)
    there = items > 0
    sums = np.bincount(place, sure, bins)[there], np.bincount(place, right, bins)[there]
    return Reliability(sums[0] / items[there], sums[1] / items[there], items[there])


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, by: Bins = "width") -> float:
    """Expected calibration error: the mean distance of accuracy from confidence over bins, weighed by their answers
    (Naeini et al., AAAI 2015; Guo et al., arXiv 1706.04599). Few answers make it look larger than it is: compare
    systems on equally many."""
    found = reliability(confidence, correct, bins, by)
    return float(np.average(np.abs(found.accuracy - found.confidence), weights=found.items))


def calibration_parts(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Scores:
    """What each answer adds to its bin, of equal width: shape (items, bins). The calibration error is the sum over bins
    of the distance of their means from 0: see `statistics.distances` for its interval. Raises as `reliability`."""
    sure, right = _sure(confidence, correct)
    place = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")
    parts = np.zeros((sure.size, bins))
    parts[np.arange(sure.size), place] = right - sure
    return parts


def average_precision(positive: ArrayLike, scores: ArrayLike) -> float:
    """The area under the precision-recall curve in steps, as scikit-learn has it; equal scores are one step. Raises
    `InputError` where nothing is positive. The AUROC is in `selective`."""
    labels, values = flags("labels", positive), numbers("scores", scores)
    as_many(labels=labels, scores=values)
    if not labels.any():
        raise InputError("Average precision needs something positive; there is nothing.")
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))  # of each group of equal scores
    found = np.cumsum(labels[order])[last]
    return float(np.sum(np.diff(found, prepend=0) / labels.sum() * found / (last + 1)))


def _rows(probabilities: ArrayLike, right: ArrayLike) -> tuple[Scores, NDArray[np.int64]]:
    rows = table("rows of probabilities", probabilities)
    classes = numbers("right classes", right, 0, rows.shape[1] - 1)
    as_many(rows_of_probabilities=rows, right_classes=classes)
    if (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1, atol=1e-4):
        raise InputError("Probabilities are not below 0, and those of an item add up to 1.", "Apply a softmax.")
    if (classes % 1 != 0).any():
        raise InputError("The right classes are whole numbers from 0.")
    return rows, classes.astype(np.int64)


def _sure(confidence: ArrayLike, correct: ArrayLike) -> tuple[Scores, Scores]:
    sure, right = numbers("confidences", confidence, 0, 1), flags("flags of correct answers", correct)
    as_many(confidences=sure, flags=right)
    return sure, right.astype(np.float64)

"""How well a system knows when not to answer: abstention, coverage, and what its confidence is worth.

An abstention is right exactly when the question cannot be answered from the documents. Source of the terms:
El-Yaniv & Wiener, "On the foundations of noise-free selective classification", JMLR 11 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import finite


@dataclass(frozen=True, slots=True)
class Selective:
    """Rates are None where nothing was counted: the precision of a system that never abstains is not 0."""

    items: int
    answerable: int
    abstained: int
    abstention_precision: float | None
    """Of the abstentions, the share on questions that cannot be answered."""
    abstention_recall: float | None
    """Of the questions that cannot be answered, the share abstained from."""
    answered_accuracy: float | None
    """Of the answers given, to whatever questions, the share that is correct."""
    coverage: float | None
    """Of the questions that can be answered, the share answered."""


def selective(answerable: ArrayLike, abstained: ArrayLike, correct: ArrayLike) -> Selective:
    """Counts over items. `correct` says whether the answer (had it been given) is right; where the question
    cannot be answered, or the system abstained, it does not count."""
    can, no, right = _flags(answerable=answerable, abstained=abstained, correct=correct)
    return Selective(
        items=can.size,
        answerable=int(can.sum()),
        abstained=int(no.sum()),
        abstention_precision=_share(~can & no, no),
        abstention_recall=_share(~can & no, ~can),
        answered_accuracy=_share(can & ~no & right, ~no),
        coverage=_share(can & ~no, can),
    )


def right_decision(answerable: ArrayLike, abstained: ArrayLike) -> NDArray[np.float64]:
    """Per item 1.0 where the system answered what can be answered or abstained from what cannot."""
    can, no = _flags(answerable=answerable, abstained=abstained)
    return np.where(can, ~no, no).astype(np.float64)


def right_outcome(answerable: ArrayLike, abstained: ArrayLike, correct: ArrayLike) -> NDArray[np.float64]:
    """Per item 1.0 where the user is served right: a correct answer, or an abstention when there is none."""
    can, no, right = _flags(answerable=answerable, abstained=abstained, correct=correct)
    return np.where(can, ~no & right, no).astype(np.float64)


def auroc(positive: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a positive item scores above a negative one, ties counted half (Hanley & McNeil 1982).

    Raises `InputError` when one of the two classes is empty, because then nothing is ranked.
    """
    (labels,) = _flags(positive=positive)
    values = finite(scores, "scores")
    if labels.size != values.size:
        raise InputError(f"There are {labels.size} labels but {values.size} scores.")
    n_positive = int(labels.sum())
    n_negative = labels.size - n_positive
    if not n_positive or not n_negative:
        raise InputError(f"An AUROC needs both classes; here are {n_positive} positives, {n_negative} negatives.")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    midranks = (last - (counts - 1) / 2.0)[inverse]
    return float((midranks[labels].sum() - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative))


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float | None:
    total = int(whole.sum())
    return int(part.sum()) / total if total else None


def _flags(**columns: ArrayLike) -> tuple[NDArray[np.bool_], ...]:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    sizes = {array.size for array in arrays.values()}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(f"{array.size} {name}" for name, array in arrays.items())
        raise InputError(f"Abstention metrics need as many flags of each kind, and some; here are {shapes}.")
    for name, array in arrays.items():
        if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
            raise InputError(f"'{name}' holds values other than true and false.")
    return tuple(array.astype(bool) for array in arrays.values())


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What a threshold on the confidence buys: the surer the answers that are given, the fewer and the better.

    Arrays of equal length, from the strictest threshold to none: at `threshold[i]` and above, the share `coverage[i]`
    of all questions is answered, and the share `risk[i]` of these answers is wrong.
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(confidence: ArrayLike, wrong: ArrayLike) -> RiskCoverage:
    """The risk-coverage curve, with one point for each confidence that occurs.

    `wrong`: whether the answer to each question, given, would be wrong; any answer is, where there is none.
    """
    values, losses = _graded(confidence, wrong)
    last = np.flatnonzero(np.append(values[1:] < values[:-1], True))  # of each group of equal confidences
    answered = last + 1
    return RiskCoverage(values[last], answered / values.size, np.cumsum(losses)[last] / answered)


def aurc(confidence: ArrayLike, wrong: ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean risk over answering 1, 2, ... of n questions, the surest first
    (Geifman et al., arXiv 1805.08206). Equal confidences count as in random order."""
    values, losses = _graded(confidence, wrong)
    _, inverse, counts = np.unique(-values, return_inverse=True, return_counts=True)
    within = (np.bincount(inverse, weights=losses) / counts)[inverse]
    return float(np.mean(np.cumsum(within) / np.arange(1, values.size + 1)))


def excess_aurc(confidence: ArrayLike, wrong: ArrayLike) -> float:
    """How much of `aurc` a confidence that puts every wrong answer last would save (E-AURC, of the same paper)."""
    (losses,) = _flags(wrong=wrong)
    return aurc(confidence, wrong) - aurc(-losses.astype(np.float64), losses)


def _graded(confidence: ArrayLike, wrong: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidences and losses, the surest first."""
    (losses,) = _flags(wrong=wrong)
    values = finite(confidence, "confidences")
    if values.size != losses.size:
        raise InputError(f"There are {losses.size} answers but {values.size} confidences.")
    order = np.argsort(-values, kind="stable")
    return values[order], losses[order].astype(np.float64)


def best_threshold(answerable: ArrayLike, confidence: ArrayLike, correct: ArrayLike) -> float:
    """The confidence below which abstaining serves most questions right (see `right_outcome`). Fit it on `dev` items.

    It lies midway between two neighbouring confidences; among equally good ones the lowest is taken, so that a tie
    is decided for answering. It is -inf where never abstaining is best.
    """
    can, right = _flags(answerable=answerable, correct=correct)
    values = finite(confidence, "confidences")
    if values.size != can.size:
        raise InputError(f"There are {can.size} items but {values.size} confidences.")
    order = np.argsort(values, kind="stable")
    values, can, right = values[order], can[order], right[order]
    # served[i]: the i least sure questions are abstained from, the others answered.
    served = np.concatenate([[0], np.cumsum(~can)]) + np.concatenate([np.cumsum((can & right)[::-1])[::-1], [0]])
    cuts = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2, [np.nextafter(values[-1], np.inf)]])
    possible = np.concatenate([[True], values[:-1] < values[1:], [True]])
    return float(cuts[np.argmax(np.where(possible, served, -1))])

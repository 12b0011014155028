"""Classes that were said beside those that are right: shares, F1 in its averages, and agreement beyond chance.

All are functions of the confusion matrix, so a bootstrap over items counts again and compares no labels. Definitions
and edge cases are scikit-learn's: where a share is 0/0 it is 0, and for balanced accuracy a class that never occurs is
left out. Cohen's kappa, Educ. Psychol. Meas. 20 (1960); Matthews, BBA 405 (1975), for classes by Gorodkin (2004).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.arrays import as_many

Counts = NDArray[np.float64]
Average = Literal["macro", "micro", "weighted"]


def codes(
    right: Sequence[Hashable], said: Sequence[Hashable], labels: Sequence[Hashable] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Hashable]]:
    """Labels as numbers: of what is right, of what was said, and the labels by number, sorted as text if not given.

    Raises `InputError` for nothing, for lengths that differ, and for a label that is not among those given.
    """
    as_many(right_labels=right, said_labels=said)
    if not len(right):
        raise InputError("There are no labels to compare.", "Check that the dataset is not empty.")
    known = list(dict.fromkeys(labels)) if labels is not None else sorted({*right, *said}, key=str)
    number = {label: place for place, label in enumerate(known)}
    for item, label in enumerate((*right, *said)):
        if label not in number:
            raise InputError(f"Item {item % len(right) + 1} has the label {label!r}, which is not among the labels.")
    return (
        np.array([number[label] for label in right], dtype=np.int64),
        np.array([number[label] for label in said], dtype=np.int64),
        known,
    )


def confusion(right: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> Counts:
    """Shape (classes, classes): row by what is right, column by what was said."""
    return np.bincount(right * classes + said, minlength=classes**2).reshape(classes, classes).astype(np.float64)


def accuracy(counts: Counts) -> Counts:
    """Share that is right. Here and below: shape (..., classes, classes) becomes (...)."""
    return _share(_right(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def balanced_accuracy(counts: Counts) -> Counts:
    """Mean recall of the classes that occur."""
    there = counts.sum(axis=-1)
    return _share(_share(_right(counts), there).sum(axis=-1), (there > 0).sum(axis=-1))


def precision(counts: Counts, average: Average = "macro") -> Counts:
    """Of what was said to be of a class, the share that is."""
    return _averaged(_right(counts), counts.sum(axis=-2), counts, average)


def recall(counts: Counts, average: Average = "macro") -> Counts:
    """Of what is of a class, the share that was said to be."""
    return _averaged(_right(counts), counts.sum(axis=-1), counts, average)


def f1(counts: Counts, average: Average = "macro") -> Counts:
    """Twice what is right of a class as a share of what is of it and what was said to be.

    average: "macro" the mean over classes, "micro" over all items, "weighted" by how often a class occurs.
    """
    return _averaged(2 * _right(counts), counts.sum(axis=-1) + counts.sum(axis=-2), counts, average)


def matthews(counts: Counts) -> Counts:
    """The correlation of right and said classes, from -1 to 1; 0 where one side has one class only."""
    there, said, every = counts.sum(axis=-1), counts.sum(axis=-2), counts.sum(axis=(-2, -1))
    above = _right(counts).sum(axis=-1) * every - (there * said).sum(axis=-1)
    below = (every**2 - (said**2).sum(axis=-1)) * (every**2 - (there**2).sum(axis=-1))
    return _share(above, np.sqrt(below))


def kappa(counts: Counts, weights: Literal["none", "linear", "quadratic"] = "none") -> Counts:
    """Cohen's kappa: agreement beyond chance, as a share of what could be. weights: how much a near miss of ordered
    classes counts as agreement. NaN where both sides know one class only, the same: nothing is left to agree on."""
    classes = counts.shape[-1]
    apart = np.abs(np.arange(classes)[:, None] - np.arange(classes))
    cost = {"none": apart > 0, "linear": apart, "quadratic": apart**2}[weights]
    every = counts.sum(axis=(-2, -1))
    chance = counts.sum(axis=-1)[..., :, None] * counts.sum(axis=-2)[..., None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed: Counts = 1 - (cost * counts).sum(axis=(-2, -1)) * every / (cost * chance).sum(axis=(-2, -1))
    return agreed


def _right(counts: Counts) -> Counts:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _averaged(part: Counts, whole: Counts, counts: Counts, average: Average) -> Counts:
    if average == "micro":
        return _share(part.sum(axis=-1), whole.sum(axis=-1))
    each = _share(part, whole)
    if average == "weighted":
        there = counts.sum(axis=-1)
        return _share((each * there).sum(axis=-1), there.sum(axis=-1))
    # A class that neither side knows, but that was named among the labels, counts as 0, as in scikit-learn.
    mean: Counts = each.mean(axis=-1)
    return mean


def _share(part: Counts, whole: Counts) -> Counts:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0)

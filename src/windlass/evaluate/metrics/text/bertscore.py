"""BERTScore: each token is matched with the most similar of the other text, by the vectors that an encoder gave them.

Any encoder that gives a vector per token will do; figures of different encoders or layers cannot be compared. The same
as `bert-score` on the same vectors: there, the marks at both ends of a text ([CLS], [SEP]) can be matched but weigh 0.
Source: Zhang et al., "BERTScore", arXiv 1904.09675.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.arrays import table


class Tokens(NamedTuple):
    """A text as its encoder sees it."""

    vectors: NDArray[np.float64]
    """Shape (tokens, size)."""
    weights: NDArray[np.float64] | None = None
    """Shape (tokens,), 0 or more. Every token weighs the same where there are none."""


class BertScore(NamedTuple):
    """Arrays of shape (items,)."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def rescaled(self, baseline: ArrayLike) -> BertScore:
        """Raw scores crowd near the top; a baseline, as that of random pairs of texts, becomes 0 and 1 stays 1. One
        number, or one each for precision, recall and F1; it is of the same encoder and layer."""
        base = np.broadcast_to(np.asarray(baseline, dtype=np.float64), (3,))
        if not (base < 1).all():  # also for NaN
            raise InputError(f"A baseline of {base.max()} leaves nothing above it.")
        return BertScore(*((column - low) / (1 - low) for column, low in zip(self, base)))


def bertscore(found: Sequence[Tokens], right: Sequence[Sequence[Tokens]]) -> BertScore:
    """Per item precision, recall and F1 with the reference whose F1 is best.

    A text without a token that weighs has 0 of all. Raises `InputError` for nothing, lengths or sizes that differ, NaN,
    a vector of zeros, and weights below 0.
    """
    if len(found) != len(right):
        raise InputError(f"There are {len(found)} answers but {len(right)} items.")
    if not found:
        raise InputError("There are no items to score.", "Check that the dataset is not empty.")
    rows = []
    for number, (text, references) in enumerate(zip(found, right), start=1):
        if not references:
            raise InputError(f"Item {number} has no reference to compare with.")
        said, *wanted = (_checked(one, number) for one in (text, *references))
        rows.append(max((_matched(said, one) for one in wanted), key=lambda row: row[2]))
    return BertScore(*np.array(rows).T)


def inverse_frequencies(references: Sequence[Sequence[Hashable]]) -> Mapping[Hashable, float]:
    """What a token tells, by how many of the references (as lists of tokens) have it: log((n + 1) / (those + 1)). Look
    others up with the default log(n + 1)."""
    if not references:
        raise InputError("There are no references to count tokens of.")
    counted = Counter(token for tokens in references for token in set(tokens))
    return {token: math.log((len(references) + 1) / (times + 1)) for token, times in counted.items()}


def _checked(tokens: Tokens, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors of length 1, and weights that add up to 1."""
    if not len(tokens.vectors):
        return np.zeros((0, 0)), np.zeros(0)
    vectors = table(f"token vectors of item {number}", tokens.vectors)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise InputError(f"Item {number}: the vector of a token is all zeros and points nowhere.")
    weights = np.ones(len(vectors)) if tokens.weights is None else np.asarray(tokens.weights, dtype=np.float64)
    if weights.shape != (len(vectors),) or not (weights >= 0).all() or not np.isfinite(weights).all():
        raise InputError(f"Item {number}: {len(vectors)} tokens need as many weights of 0 or more.")
    return vectors / lengths, weights / weights.sum() if weights.any() else np.zeros(0)


def _matched(
    said: tuple[NDArray[np.float64], NDArray[np.float64]], wanted: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[float, float, float]:
    if not said[1].size or not wanted[1].size:
        return 0.0, 0.0, 0.0
    if said[0].shape[1] != wanted[0].shape[1]:
        raise InputError(f"Vectors of {said[0].shape[1]} and of {wanted[0].shape[1]} numbers cannot be compared.")
    alike = said[0] @ wanted[0].T
    precision, recall = float(alike.max(axis=1) @ said[1]), float(alike.max(axis=0) @ wanted[1])
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0

"""Whether an answer is right, and whether what it rests on holds it.

Exact match and F1 are SQuAD's (`core.answers`). What a search found for an answer, its contexts, is judged as RAGAS
does (Es et al., arXiv 2309.15217, and its documentation): precision looks at the order, recall at what is missing. Who
says that a context is relevant, or that it holds a claim, is left to the caller: a person, a model, or the words
themselves (`holds`), as open-domain question answering does it (Chen et al., arXiv 1704.00051).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from windlass.core.answers import answer_f1, exact_match, normalised
from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.texts import paired

T = TypeVar("T")


def exact(found: Sequence[str], right: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Per item 1.0 where the answer is one of those that are right; "" is right where there is none."""
    return np.array([exact_match(*pair) for pair in paired(found, right, some=False)])


def exact_strict(found: Sequence[str], right: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Per item 1.0 where the answer is one of those that are right, character for character; case and spaces count."""
    return np.array([float(one in several) for one, several in paired(found, right, some=False)])


def f1(found: Sequence[str], right: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Per item the overlap of words with the nearest right answer."""
    return np.array([answer_f1(*pair) for pair in paired(found, right, some=False)])


def contains(found: Sequence[str], right: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Per item 1.0 where a right answer stands somewhere in what was said, words being compared as SQuAD does."""
    pairs = paired(found, right)
    return np.array([max(float(holds(text, some)), exact_match(text, some)) for text, some in pairs])


def holds(context: str, right: Sequence[str]) -> bool:
    """Whether one of the answers stands in the context, words being compared as SQuAD compares answers."""
    words = f" {normalised(context)} "
    return any(f" {one} " in words for one in map(normalised, right) if one)


def context_precision(relevant: Sequence[Sequence[bool]]) -> NDArray[np.float64]:
    """Per item the mean of the precision at each relevant context, 0 where none is.

    relevant: per item, whether each context found is, best first. What was not found does not count: it is average
    precision over what was found, and a list of one relevant context has 1.
    """
    scores = []
    for flags in relevant:
        row = np.asarray(flags, dtype=bool)
        precision = np.cumsum(row) / np.arange(1, row.size + 1)
        scores.append(float(precision[row].mean()) if row.any() else 0.0)
    return np.array(_some(scores))


def context_recall(supported: Sequence[Sequence[bool]]) -> NDArray[np.float64]:
    """Per item the share of the claims of the right answer that its contexts hold.

    supported: per item, whether each claim is held by any of them. Raises `InputError` for an item without a claim,
    whose recall would be 0/0.
    """
    for number, flags in enumerate(supported, start=1):
        if not len(flags):
            raise InputError(f"Item {number} has no claim to look for.", "Score it with the abstention metrics.")
    return np.array(_some([float(np.mean(np.asarray(flags, dtype=bool))) for flags in supported]))


def _some(values: list[T]) -> list[T]:
    if not values:
        raise InputError("There are no items to score.", "Check that the dataset is not empty.")
    return values

"""Texts that are compared with references: what all text metrics ask of their input.

found: one text per item, as the system under test gave it
right: for each item the references, of which the nearest counts; a list also where there is only one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

References = Sequence[Sequence[str]]


def paired(found: Sequence[str], right: References, *, some: bool = True) -> list[tuple[str, list[str]]]:
    """Each text with its references. Raises `InputError` for nothing at all, for lengths that differ, and naming an
    item that is no text, has no reference (unless `some` is false), or has a plain text where a list belongs."""
    if isinstance(found, str) or isinstance(right, str):
        raise InputError("A text stands where a list of texts belongs.", "Put it into a list, also when it is alone.")
    if len(found) != len(right):
        raise InputError(f"There are {len(found)} answers but {len(right)} items.")
    if not len(found):
        raise InputError("There are no items to score.", "Check that the dataset is not empty.")
    for number, (text, references) in enumerate(zip(found, right), start=1):
        if not isinstance(text, str):
            raise InputError(f"Item {number}: the answer is {type(text).__name__}, not text.", "Convert it with str().")
        if isinstance(references, str):
            raise InputError(f"Item {number}: its references are one text.", 'Give a list, as ["the reference"].')
        if some and not len(references):
            raise InputError(f"Item {number} has no reference to compare with.", "Give one, or leave the item out.")
        for one in references:
            if not isinstance(one, str):
                raise InputError(f"Item {number}: a reference is {type(one).__name__}, not text.")
    return [(text, list(references)) for text, references in zip(found, right)]


def nearest(found: Sequence[str], right: References, score: Callable[[str, str], float]) -> NDArray[np.float64]:
    """Per item the best score that any of its references gives."""
    return np.array([max(score(text, one) for one in references) for text, references in paired(found, right)])

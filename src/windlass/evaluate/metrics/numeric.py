"""Answers that are numbers: read out of text, and compared within a tolerance."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.core.extracting import number_in
from windlass.evaluate.metrics.text.texts import References, paired

Read = Literal["marked", "last", "all"]
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_LONGEST = 400
"""Characters of a number; converting long ones takes time that grows with the square of their length."""
_LAST = re.compile(r"-?[$€£]?[0-9.,]*[0-9]")


def number(text: str, read: Read = "marked") -> Fraction | None:
    """The number that an answer gives, None where it gives none.

    read: "marked" takes what stands in the last `\\\\boxed{}` or behind the last `####`, and the last number where
    nothing is marked; "last" the last number, marked or not, as GSM8K's lenient reading does; "all" the whole text.
    """
    if read == "marked":
        return number_in(text)
    if read == "all":
        return _plain(text.strip())
    found = _LAST.findall(text)
    return _plain(found[-1]) if found else None


def _plain(text: str) -> Fraction | None:
    bare = re.sub(r"[$€£,\s]|%$", "", text)
    return Fraction(bare) if len(bare) <= _LONGEST and _NUMBER.fullmatch(bare) else None


def numeric(
    found: Sequence[str],
    right: References,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
    read: Read = "marked",
) -> NDArray[np.float64]:
    """Per item 1.0 where the number of the answer is near a right one: apart by at most `absolute`, or by at most
    `relative` of the right one. Without a tolerance they are compared as fractions: 0.5 is 1/2, 0.1 is exactly 0.1.

    Raises `InputError` as `paired`, for a tolerance below 0, and naming an item whose right answer is no number.
    """
    if not (0 <= relative < math.inf and 0 <= absolute < math.inf):
        raise InputError(f"Tolerances of {relative} and {absolute} make no sense.", "Use 0 or more.")
    scores = []
    for item, (text, references) in enumerate(paired(found, right), start=1):
        wanted = [_wanted(one, item) for one in references]
        said = number(text, read)
        scores.append(float(said is not None and any(_near(said, one, relative, absolute) for one in wanted)))
    return np.array(scores)


def _wanted(reference: str, item: int) -> Fraction:
    found = number(reference)
    if found is None:
        raise InputError(f"Item {item}: the right answer {reference[:80]!r} holds no number.")
    return found


def _near(said: Fraction, wanted: Fraction, relative: float, absolute: float) -> bool:
    return abs(said - wanted) <= max(Fraction(absolute), Fraction(relative) * abs(wanted))

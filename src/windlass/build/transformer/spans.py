"""The likeliest answer among all stretches of a text, from the logits of its first and of its last token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LONGEST = 30
"""Tokens of an answer."""


def best_span(logits_T2: NDArray[np.float32], inside_T: NDArray[np.bool_]) -> tuple[float, int, int]:
    """Score, first and last token of the likeliest stretch of at most `LONGEST` tokens inside the text.

    The score is the sum of the two logits; -inf where no token is inside.
    """
    length = len(inside_T)
    place = np.arange(length)
    ahead_TT = place[None, :] - place[:, None]
    allowed_TT = (ahead_TT >= 0) & (ahead_TT < LONGEST) & inside_T[:, None] & inside_T[None, :]
    pairs_TT = np.where(allowed_TT, np.add.outer(logits_T2[:length, 0], logits_T2[:length, 1]), -np.inf)
    first, last = divmod(int(pairs_TT.argmax()), length)
    return float(pairs_TT[first, last]), first, last

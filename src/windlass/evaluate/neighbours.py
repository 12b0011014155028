"""Guessing a hidden token from its two neighbours by counting: the baseline that a masked language model has to beat.

    p(w | l, r)  is proportional to  p(w | l) p(r | w)

with bigram probabilities from the training text, smoothed by absolute discounting whose freed mass goes to tokens in
proportion to how many different tokens they follow (Ney, Essen and Kneser, 1994). A neighbour that is itself hidden
says nothing: the token's own frequency takes the left one's place, and the right one's factor is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HIDDEN = -1
"""In place of a neighbour that cannot be seen."""

_DISCOUNT = 0.75


@dataclass(frozen=True, slots=True)
class Guesses:
    nats: float
    """Sum of -log p of the hidden tokens."""
    right: int
    """How often the likeliest token was the right one."""
    count: int


class Neighbours:
    """Bigram counts of one sequence of tokens 0 <= t < `alphabet`. Memory grows with the distinct pairs, not with
    the square of the alphabet."""

    def __init__(self, tokens: NDArray[np.integer[Any]], alphabet: int) -> None:
        if len(tokens) < 2:
            raise InputError("There is no text to count neighbours in.", "Give it two tokens or more.")
        self.alphabet = alphabet
        row = np.asarray(tokens, np.int64)
        pairs, counts = np.unique(row[:-1] * alphabet + row[1:], return_counts=True)
        self._left, self._right, self._count = pairs // alphabet, pairs % alphabet, counts.astype(np.float64)
        self._rows = np.searchsorted(self._left, np.arange(alphabet + 1))
        self._by_right = np.argsort(self._right, kind="stable")
        self._columns = np.searchsorted(self._right[self._by_right], np.arange(alphabet + 1))
        self._total = np.bincount(self._left, self._count, alphabet)
        kinds = np.bincount(self._left, minlength=alphabet)
        self._freed = (_DISCOUNT * kinds + 1.0) / (self._total + 1.0)  # the 1 keeps unseen contexts well defined
        lower = np.bincount(self._right, minlength=alphabet) + 0.1
        self._lower = lower / lower.sum()
        often = np.bincount(row, minlength=alphabet) + 0.1
        self._often = often / often.sum()

    def following(self, left: int) -> Floats:
        """p(w | left) for every w, shape (alphabet,)."""
        p: Floats = self._freed[left] * self._lower
        at = slice(self._rows[left], self._rows[left + 1])
        p[self._right[at]] += (self._count[at] - _DISCOUNT) / (self._total[left] + 1.0)
        return p

    def before(self, right: int) -> Floats:
        """p(right | w) for every w, shape (alphabet,)."""
        p: Floats = self._freed * self._lower[right]
        at = self._by_right[self._columns[right] : self._columns[right + 1]]
        p[self._left[at]] += (self._count[at] - _DISCOUNT) / (self._total[self._left[at]] + 1.0)
        return p

    def distribution(self, left: int, right: int) -> Floats:
        """p(w | left, right) for every w, shape (alphabet,); either may be `HIDDEN`."""
        p = self._often if left == HIDDEN else self.following(left)
        if right != HIDDEN:
            p = p * self.before(right)
        normal: Floats = p / p.sum()
        return normal

    def guess(self, left: Ints, hidden: Ints, right: Ints) -> Guesses:
        """Guesses every hidden token; all of shape (n,)."""
        nats, correct = 0.0, 0
        for a, token, b in zip(left.tolist(), hidden.tolist(), right.tolist(), strict=True):
            p = self.distribution(a, b)
            nats -= float(np.log(p[token]))
            correct += int(p.argmax() == token)
        return Guesses(nats, correct, len(hidden))

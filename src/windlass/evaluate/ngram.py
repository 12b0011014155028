"""An interpolated n-gram model with modified Kneser-Ney smoothing: the baseline a language model has to beat.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (TR-10-98, Harvard, 1998),
section 3. With h' the context h without its oldest symbol:

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + gamma(h) p(w | h')

The discounts D differ for counts of 1, 2 and 3+ and follow from the counts of counts; gamma(h) is the mass they
free, so every p(. | h) sums to one. The highest order counts occurrences, the lower ones distinct left neighbours.
Below order 1 stands the uniform distribution.

Symbols are bytes or tokens. All counting is sorting: the k-gram that ends at position i is numbered by the pair
(number of the (k-1)-gram that ends at i-1, symbol at i), so no order is too high for a machine word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Symbols = NDArray[np.integer[Any]]


@dataclass(slots=True)
class _Grams:
    """The distinct k-grams of one order, numbered in the order of their `keys`."""

    keys: Ints
    """prefix's number * (alphabet + 1) + last symbol; sorted"""
    raw: Ints
    """How often each occurs."""
    continuation: Ints
    """How many distinct symbols stand before it; `raw` where it begins a document and nothing can."""


@dataclass(frozen=True, slots=True)
class _Smoothed:
    """An order ready for use."""

    share: Floats
    """(c - D) / c(h) of each gram."""
    left: Floats
    """gamma of each prefix: 1 where the prefix was never continued."""


class NGram:
    """Counts of all grams up to `order` of sequences of symbols 0 <= s < `alphabet`; each sequence begins anew.

    `log_probabilities` may use any order up to that, so one model serves to choose the order.
    """

    def __init__(self, sequences: Sequence[Symbols], alphabet: int, order: int) -> None:
        symbols, depth = self._joined(sequences, alphabet)
        if len(symbols) == len(sequences):
            raise InputError("The n-gram model has no text to count.", "Give it at least one non-empty document.")
        self.alphabet, self.order = alphabet, order
        self._grams: list[_Grams] = []
        numbers = np.zeros(len(symbols), np.int64)  # of the gram of the current order that ends here
        for k in range(1, order + 1):
            # The mark of a document's start may begin a gram, but never stands further on.
            ends = np.flatnonzero(depth >= k - 1)
            keys = self._keys(numbers, symbols, ends, k)
            ranked = np.argsort(keys)
            keys = keys[ranked]
            new = np.ones(len(keys), bool)
            new[1:] = keys[1:] != keys[:-1]
            firsts = np.flatnonzero(new)
            if k > 1:
                shorter = self._grams[-1]
                lefts = np.bincount(numbers[ends[ranked[firsts]]], minlength=len(shorter.keys))
                shorter.continuation = np.where(lefts > 0, lefts, shorter.raw)
            raw = np.diff(np.append(firsts, len(keys)))
            keys = keys[firsts]
            if k == 1:
                raw[keys == alphabet] = 0  # the mark is known, never predicted
            self._grams.append(_Grams(keys, raw, raw))
            numbers = np.zeros(len(symbols), np.int64)
            numbers[ends[ranked]] = np.cumsum(new) - 1
        self._smoothed: dict[tuple[int, bool], _Smoothed] = {}

    def log_probabilities(self, sequences: Sequence[Symbols], order: int | None = None) -> Floats:
        """Natural log of the probability of every symbol of all sequences, one after the other."""
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise InputError(f"Order {order} was not counted; the model has orders 1 to {self.order}.")
        symbols, depth = self._joined(sequences, self.alphabet)
        p = np.full(len(symbols), 1.0 / self.alphabet)
        numbers = np.zeros(len(symbols), np.int64)  # -1 where the gram is unknown
        for k in range(1, order + 1):
            grams, smoothed = self._grams[k - 1], self._smooth(k, top=k == order)
            if not len(grams.keys):  # no document is as long as this
                break
            ends = np.flatnonzero(depth >= k - 1)
            if k > 1:
                ends = ends[numbers[ends - 1] >= 0]
            prefix = numbers[ends - 1] if k > 1 else np.zeros(len(ends), np.int64)
            keys = self._keys(numbers, symbols, ends, k)
            at = np.minimum(np.searchsorted(grams.keys, keys), len(grams.keys) - 1)
            known = grams.keys[at] == keys
            p[ends] = np.where(known, smoothed.share[at], 0.0) + smoothed.left[prefix] * p[ends]
            numbers = np.full(len(symbols), -1, np.int64)
            numbers[ends[known]] = at[known]
        logs: Floats = np.log(p[symbols != self.alphabet])
        return logs

    def _smooth(self, k: int, *, top: bool) -> _Smoothed:
        if (k, top) not in self._smoothed:
            grams = self._grams[k - 1]
            count = grams.raw if top else grams.continuation
            prefix = grams.keys // (self.alphabet + 1)
            prefixes = len(self._grams[k - 2].keys) if k > 1 else 1
            discounts = _discounts(count)[np.minimum(count, 3)]
            total = np.bincount(prefix, count, prefixes)
            freed = np.bincount(prefix, discounts, prefixes)
            seen = np.maximum(total, 1)
            self._smoothed[k, top] = _Smoothed(
                (count - discounts) / seen[prefix], np.where(total > 0, freed / seen, 1.0)
            )
        return self._smoothed[k, top]

    def _keys(self, numbers: Ints, symbols: Ints, ends: Ints, k: int) -> Ints:
        return (numbers[ends - 1] * (self.alphabet + 1) if k > 1 else 0) + symbols[ends]

    @staticmethod
    def _joined(sequences: Sequence[Symbols], alphabet: int) -> tuple[Ints, Ints]:
        """All sequences, each behind the mark `alphabet`, and every position's distance to its mark."""
        mark = np.array([alphabet])
        symbols = np.concatenate([part for s in sequences for part in (mark, s)]).astype(np.int64)
        marks = np.flatnonzero(symbols == alphabet)
        return symbols, np.arange(len(symbols)) - np.repeat(marks, np.diff(np.append(marks, len(symbols))))


def _discounts(count: Ints) -> Floats:
    """D for counts of 0, 1, 2 and 3+ (Chen and Goodman, equation 26), kept within what a count can give."""
    n = [int((count == c).sum()) for c in range(5)]
    if min(n[1:5]) == 0:  # too little text for the estimate
        return np.array([0.0, 0.5, 0.75, 0.9])
    y = n[1] / (n[1] + 2 * n[2])
    raw = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, 0.05), c - 0.05) for d, c in zip(raw, (1, 2, 3), strict=True))])

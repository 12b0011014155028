"""Decontamination: text of a document that an evaluation set holds too, found by shared runs of words.

A run of 13 words is Brown et al.'s measure (GPT-3, 2020, appendix C). Case and punctuation are ignored. Evaluation
texts of fewer words are looked for whole, down to `SHORTEST` words: shorter ones are common phrases and stay out, but
are counted. Runs are compared by 64-bit hashes, so a document costs one pass and the index does not hold the texts;
two different runs share a hash once in 10^19 pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.build.corpus.shingles import placed_words
from windlass.core.errors import InputError

SHORTEST = 8
"""Words. Brown et al. let N range from 8 to 13 too."""
_OPENING = frozenset("([{<\"'“‘«¿¡#*-|`$")
_U64 = 1 << 64
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, _U64)
_FILTER_BITS = 3
"""The filter has 8 cells of a byte or more for each run: at most one document run in eight is looked up in vain."""


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """A text that must not be trained on: a question, an answer, a context."""

    set: str
    item: str
    """Which one of the set, for a person: a row or an id."""
    text: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """`document[start:end]` is found in an evaluation text."""

    start: int
    end: int
    words: int
    set: str
    item: str


class Contamination:
    """The index of some evaluation texts: 20 to 28 bytes for each of their runs of words."""

    def __init__(self, evaluation_texts: Iterable[EvaluationText], n: int = 13) -> None:
        if not SHORTEST <= n <= 100:
            raise InputError(
                f"Runs of {n} words cannot be looked for: {SHORTEST} to 100 can.",
                "13 is usual; shorter runs are common phrases.",
            )
        self.n = n
        self.texts = 0
        self.too_short = 0
        """Texts of fewer than `SHORTEST` words, which are not looked for."""
        self._items: list[tuple[str, str]] = []
        runs: dict[int, list[NDArray[np.uint64]]] = {}
        owners: dict[int, list[NDArray[np.int32]]] = {}
        for text in evaluation_texts:
            numbers, _, _ = placed_words(text.text)
            self.texts += 1
            if len(numbers) < SHORTEST:
                self.too_short += 1
                continue
            size = min(n, len(numbers))
            found = _runs(_prefix(numbers), size)
            if not self._items or self._items[-1] != (text.set, text.item):
                self._items.append((text.set, text.item))
            runs.setdefault(size, []).append(found)
            owners.setdefault(size, []).append(np.full(len(found), len(self._items) - 1, np.int32))
        if not self._items:
            raise InputError(
                f"None of {self.texts:,} evaluation texts has {SHORTEST} words: there is nothing to look for.",
                "Choose the fields that hold questions or passages.",
            )
        self._tables = {size: _Table(runs.pop(size), owners.pop(size)) for size in sorted(runs)}

    @property
    def bytes(self) -> int:
        """Memory of the index."""
        return sum(table.bytes for table in self._tables.values())

    def find(self, text: str) -> list[Overlap]:
        """The overlaps of a document, in order and disjoint; each names the first evaluation text of its first run."""
        numbers, starts, ends = placed_words(text)
        prefix = _prefix(numbers)
        hits: list[tuple[int, int, int]] = []  # first word, end word, item
        for size, table in self._tables.items():
            places, items = table.find(_runs(prefix, size))
            hits += zip(places.tolist(), (places + size).tolist(), items.tolist())
        if not hits:
            return []
        overlaps: list[Overlap] = []
        hits.sort()
        first, end, item = hits[0]
        for start, stop, owner in [*hits[1:], (len(numbers) + 1, 0, 0)]:
            if start < end:
                end = max(end, stop)
                continue
            overlaps.append(Overlap(int(starts[first]), int(ends[end - 1]), end - first, *self._items[item]))
            first, end, item = start, stop, owner
        return overlaps


def without(text: str, overlaps: Iterable[Overlap]) -> str:
    """The text with its overlaps cut out; what stood before and after one is parted by a blank line."""
    parts: list[str] = []
    place = 0
    for overlap in overlaps:
        parts.append(text[place : overlap.start].rstrip())
        place = overlap.end
        while place < len(text) and not text[place].isalnum() and text[place] not in _OPENING:
            place += 1  # the punctuation of what was cut
    parts.append(text[place:])
    return "\n\n".join(part for part in parts if part.strip())


class _Table:
    """Runs of one length: sorted hashes, their items, and a filter that tells most hashes apart at once."""

    def __init__(self, runs: list[NDArray[np.uint64]], owners: list[NDArray[np.int32]]) -> None:
        together = np.concatenate(runs)
        runs.clear()
        self._hashes, first = np.unique(together, return_index=True)  # of equal runs the first one's item
        self._owners = np.concatenate(owners)[first]
        bits = max(int(len(self._hashes) << _FILTER_BITS).bit_length(), 10)
        self._mask = np.uint64((1 << bits) - 1)
        self._filter = np.zeros(1 << bits, np.bool_)
        self._filter[self._hashes & self._mask] = True

    @property
    def bytes(self) -> int:
        return self._hashes.nbytes + self._owners.nbytes + self._filter.nbytes

    def find(self, runs: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """(places in `runs` that are in the table, their items)."""
        likely = np.flatnonzero(self._filter[runs & self._mask])
        near = np.searchsorted(self._hashes, runs[likely])
        near[near == len(self._hashes)] = 0
        there = self._hashes[near] == runs[likely]
        return likely[there], self._owners[near[there]]


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _prefix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sums, modulo 2^64, of number times base^place: the difference of two is the polynomial of the words between."""
    prefix = np.zeros(len(numbers) + 1, np.uint64)
    np.cumsum(numbers * _powers(_BASE, len(numbers)), out=prefix[1:])
    return prefix


def _runs(prefix: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """The hash of every run of `size` words, wherever it stands: shape (words - size + 1,)."""
    count = max(len(prefix) - size, 0)
    hashes = (prefix[size:] - prefix[:count]) * _powers(_INVERSE, count)
    hashes ^= hashes >> np.uint64(32)
    return hashes

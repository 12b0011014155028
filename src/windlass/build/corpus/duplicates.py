"""Duplicates, exact and near. The first of them is kept, and every removal names the twin it lost to.

Near duplicates are *proposed* by MinHash (Broder 1997) with banded locality-sensitive hashing (Indyk and Motwani 1998)
and *decided* by the exact Jaccard similarity of their word shingles, so chance can miss a pair (about 1 in 400 at the
threshold, fewer above it) but never removes one wrongly.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

WORDS_PER_SHINGLE = 5
BANDS = 20
ROWS = 6
"""A pair of similarity s becomes a candidate with probability 1 - (1 - s^6)^20: 0.998 at 0.8, 0.27 at 0.5."""

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")  # scripts without spaces: by character
_BLOCK = 1024
_U64 = (1 << 64) - 1


def _mix(value: int) -> int:
    """splitmix64: constants for the hash functions that do not change with the version of a random generator."""
    value = (value + 0x9E3779B97F4A7C15) & _U64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _U64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _U64
    return value ^ (value >> 31)


_A = np.array([_mix(2 * i) | 1 for i in range(BANDS * ROWS)], np.uint64)
_B = np.array([_mix(2 * i + 1) for i in range(BANDS * ROWS)], np.uint64)
_PLACE = np.array([_mix(1000 + i) | 1 for i in range(WORDS_PER_SHINGLE)], np.uint64)
_BAND = np.array([_mix(2000 + i) | 1 for i in range(ROWS)], np.uint64)


def words(text: str) -> list[str]:
    """The words of a text, letter case ignored."""
    return _TOKEN.findall(text.lower())


def shingles(text: str) -> NDArray[np.uint64]:
    """Sorted distinct 64-bit hashes of every run of 5 words, letter case ignored. Empty when there is no word."""
    tokens = words(text)
    numbers = np.fromiter(map(zlib.crc32, map(str.encode, tokens)), np.uint64, len(tokens))
    size = min(WORDS_PER_SHINGLE, len(tokens))
    if not size:
        return numbers
    count = len(numbers) - size + 1
    hashes = np.zeros(count, np.uint64)
    for i in range(size):  # the place matters: "a b" is not "b a"
        hashes += numbers[i : i + count] * _PLACE[i]
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)


def jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Shared shingles over all shingles of two sets from `shingles`; 0 when both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)


def signature(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """MinHash: for each of 120 hash functions (multiply-shift, Dietzfelbinger 1997) the least value. Shape (120,)."""
    least = np.full(BANDS * ROWS, _U64, np.uint64)
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK, None] * _A + _B  # (shingles, functions), modulo 2^64
        np.minimum(least, block.min(axis=0), out=least)
    return least >> np.uint64(32)


def bands(hashes: NDArray[np.uint64]) -> list[int]:
    """The 20 bucket numbers under which a set of shingles is filed."""
    rows = signature(hashes).reshape(BANDS, ROWS)
    return [int(key) for key in (rows * _BAND).sum(axis=1, dtype=np.uint64)]


@dataclass(frozen=True, slots=True)
class Twin:
    """The kept document that a new one repeats."""

    key: Any
    similarity: float
    """Exact Jaccard similarity of the shingles; 1.0 for the same words."""
    exact: bool


class Duplicates:
    """Remembers the documents kept so far. `fetch(key)` must return the text of one of them.

    Per kept document it holds 20 bucket entries and a digest, about 3 KB; texts stay on disk.
    """

    def __init__(self, fetch: Callable[[Any], str], threshold: float = 0.8) -> None:
        if not 0.5 <= threshold <= 1:
            raise InputError(
                f"The similarity of near duplicates is {threshold}, but must lie between 0.5 and 1.",
                "0.8 is usual; below 0.5 the search would miss most pairs.",
            )
        self.threshold = threshold
        self._fetch = fetch
        self._digests: dict[tuple[str, bytes], Any] = {}
        self._buckets: list[dict[tuple[str, int], list[Any]]] = [{} for _ in range(BANDS)]

    def find(self, text: str, group: str = "") -> tuple[Twin | None, Callable[[Any], None]]:
        """The twin of `text` among the documents of its `group`, and a function that files `text` under a key.

        Of several twins the most similar one is named, of equals the earliest.
        """
        digest = (group, hashlib.sha256(" ".join(text.split()).encode()).digest())
        if digest in self._digests:
            return Twin(self._digests[digest], 1.0, exact=True), _nowhere
        hashes = shingles(text)
        keys = bands(hashes) if len(hashes) else []
        candidates: dict[Any, None] = {}  # an ordered set
        for table, key in zip(self._buckets, keys):
            candidates.update(dict.fromkeys(table.get((group, key), ())))
        best: Twin | None = None
        for candidate in sorted(candidates):
            similarity = jaccard(hashes, shingles(self._fetch(candidate)))
            if similarity >= self.threshold and (best is None or similarity > best.similarity):
                best = Twin(candidate, similarity, exact=False)

        def keep(document: Any) -> None:
            self._digests[digest] = document
            for table, key in zip(self._buckets, keys):
                table.setdefault((group, key), []).append(document)

        return best, keep if best is None else _nowhere


def _nowhere(document: Any) -> None:
    raise AssertionError("a duplicate is not filed")

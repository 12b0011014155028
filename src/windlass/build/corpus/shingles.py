"""Shingles and MinHash: what two texts share, as sets of numbers that can be compared without the texts.

A shingle is a run of five words. Words are cut and hashed for the whole text at once: the hash of characters a..b is a
difference of two prefix sums (Karp and Rabin 1987), so no word is ever made as a string of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WORDS_PER_SHINGLE = 5
HASHES = 120
MISSED = 1 / 200
"""Share of the pairs right at the threshold that chance may miss."""

_OTHER, _WORD, _ALONE = 1, 2, 3
_BLOCK = 1 << 15
"""Characters looked at together: the tables of powers and all intermediate results stay in the processor's cache."""
_SHINGLES = 1024
_U64 = (1 << 64) - 1


def mix(value: int) -> int:
    """splitmix64: constants for the hash functions that do not change with the version of a random generator."""
    value = (value + 0x9E3779B97F4A7C15) & _U64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _U64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _U64
    return value ^ (value >> 31)


def _powers(base: int) -> NDArray[np.uint64]:
    """base^0, base^1, ... modulo 2^64."""
    found, factor = [], 1
    for _ in range(_BLOCK):
        found.append(factor)
        factor = factor * base & _U64
    return np.array(found, np.uint64)


_BASE = mix(1) | 1
_POWERS = _powers(_BASE)
_INVERSE = _powers(pow(_BASE, -1, 1 << 64))
_PLACE = np.array([mix(1000 + i) | 1 for i in range(WORDS_PER_SHINGLE)], np.uint64)
_FACTOR = np.array([mix(2 * i) >> 32 | 1 for i in range(HASHES)], np.uint32)
_ROW = np.array([mix(2000 + i) | 1 for i in range(HASHES)], np.uint64)
_BAND = np.array([mix(3000 + i) for i in range(HASHES)], np.uint64)
_CLASSES = np.zeros(0x110000, np.uint8)
"""What a character is (0: not asked yet): outside of words, part of one, or a word by itself."""


def _class(code: int) -> int:
    if 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xAC00 <= code <= 0xD7AF:
        return _ALONE  # scripts without spaces: by character
    return _WORD if chr(code).isalnum() or code == 0x5F else _OTHER


def words(text: str) -> NDArray[np.uint64]:
    """One 64-bit hash per word of the text, in order, letter case ignored.

    Words are runs of letters, digits and `_`; Chinese, Japanese and Korean characters are words by themselves.
    """
    return np.concatenate([np.zeros(0, np.uint64), *(_words(codes)[0] for _, codes in _blocks(text.lower()))])


def placed_words(text: str) -> tuple[NDArray[np.uint64], NDArray[np.intp], NDArray[np.intp]]:
    """As `words`, and where in `text` each word begins and ends."""
    folded = text.lower()
    if len(folded) != len(text):  # "İ" becomes two characters, and would move all that stands behind it
        folded = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    hashes, starts, ends = [np.zeros(0, np.uint64)], [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for place, codes in _blocks(folded):
        found, begin, end = _words(codes)
        hashes.append(found)
        starts.append(begin + place)
        ends.append(end + place)
    return np.concatenate(hashes), np.concatenate(starts), np.concatenate(ends)


def _blocks(text: str) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """The text in pieces that end at white space if they can, each with its offset."""
    start = 0
    while start < len(text):
        stop = start + _BLOCK
        if stop < len(text):
            space = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop))
            stop = space + 1 if space > start else stop
        yield start, np.frombuffer(text[start:stop].encode("utf-32-le"), np.uint32)
        start = stop


def _words(codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.intp], NDArray[np.intp]]:
    """(hashes, starts, ends) of the words of a block of characters."""
    classes = _CLASSES[codes]
    if not classes.all():
        for code in np.unique(codes[classes == 0]).tolist():
            _CLASSES[code] = _class(code)
        classes = _CLASSES[codes]
    edge = np.ones(len(codes) + 1, bool)
    np.not_equal(classes[1:], classes[:-1], out=edge[1:-1])
    alone = classes == _ALONE
    edge[:-1] |= alone
    edges = np.flatnonzero(edge)
    starts, ends = edges[:-1], edges[1:]
    inside = classes[starts] != _OTHER
    starts, ends = starts[inside], ends[inside]
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(_POWERS[: len(codes)] * codes, out=sums[1:])
    hashes: NDArray[np.uint64] = (sums[ends] - sums[starts]) * _INVERSE[starts]  # as if every word began the block
    hashes ^= hashes >> np.uint64(32)
    hashes *= _PLACE[0]
    hashes ^= hashes >> np.uint64(29)
    return hashes, starts, ends


def shingles(text: str) -> NDArray[np.uint64]:
    """Sorted distinct 64-bit hashes of every run of 5 words (of all words, if fewer). Empty when there is no word."""
    tokens = words(text)
    size = min(WORDS_PER_SHINGLE, len(tokens))
    if not size:
        return tokens
    count = len(tokens) - size + 1
    hashes: NDArray[np.uint64] = np.zeros(count, np.uint64)
    for i in range(size):  # the place matters: "a b" is not "b a"
        hashes += tokens[i : i + count] * _PLACE[i]
        hashes ^= hashes >> np.uint64(29)
    hashes.sort()
    distinct: NDArray[np.uint64] = hashes[np.append(True, hashes[1:] != hashes[:-1])]
    return distinct


def jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """Shared shingles over all shingles of two sets from `shingles`; 0 when both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)


def signature(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """MinHash (Broder 1997): for each of 120 hash functions (multiplicative, odd factors) the least value. (120,)"""
    least = np.full(HASHES, 0xFFFFFFFF, np.uint32)
    short = (hashes >> np.uint64(32)).astype(np.uint32)[:, None]
    for start in range(0, len(short), _SHINGLES):
        np.minimum(least, (short[start : start + _SHINGLES] * _FACTOR).min(axis=0), out=least)
    return least


def rows_per_band(threshold: float) -> int:
    """How many hash functions make a band, so that pairs of similarity `threshold` are missed as seldom as MISSED says.

    A pair of similarity s shares one of 120 / r bands of r rows with probability 1 - (1 - s^r)^(120 / r): of the r that
    miss few enough at the threshold the largest, which proposes fewest pairs below it. At 0.8 that is 6, and 1 in 435.
    """
    return max(
        rows
        for rows in range(1, HASHES + 1)
        if HASHES % rows == 0 and (1 - threshold**rows) ** (HASHES // rows) <= MISSED
    )


def bands(hashes: NDArray[np.uint64], rows: int) -> NDArray[np.uint64]:
    """The buckets under which a set of shingles is filed (Indyk and Motwani 1998), by bands of `rows`. (120 / rows,)"""
    table = signature(hashes).reshape(-1, rows) * _ROW[:rows]
    found: NDArray[np.uint64] = table.sum(axis=1, dtype=np.uint64) ^ _BAND[: len(table)]
    return found

"""A few rows that stand for many: each next one is the farthest from those chosen (greedy k-center, Gonzalez 1985).

The greatest distance of any row to its nearest chosen one is then at most twice the least that is possible. Sener and
Savarese (arXiv 1708.00489) choose training sets so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.build.corpus.shingles import words

Vectors = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to rows of length 1. Words and pairs of words (`hashed`) need no model; an embedder tells meanings apart."""
_WIDTH = 512


def hashed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Counts of words and of pairs of words, damped, thrown into 512 cells with a sign (Weinberger et al. 2009)."""
    found = np.zeros((len(texts), _WIDTH), np.float32)
    for row, text in zip(found, texts, strict=True):
        single = words(text)
        grams = np.concatenate((single, single[:-1] * np.uint64(31) + single[1:]))
        kinds, counts = np.unique(grams, return_counts=True)
        sign = 1.0 - 2.0 * (kinds >> np.uint64(63)).astype(np.float32)
        np.add.at(row, (kinds % np.uint64(_WIDTH)).astype(np.intp), sign * np.log1p(counts).astype(np.float32))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = found / np.maximum(lengths, np.float32(1e-12))
    return scaled


def spread_out(vectors: NDArray[np.float32], count: int) -> list[int]:
    """Numbers of `count` rows, in the order of their choice. The first is the one nearest to the mean, so the choice
    depends on nothing but the rows. Time: rows x count x width. Raises `ValueError` for more rows than there are."""
    if not 1 <= count <= len(vectors):
        raise ValueError(f"{count} of {len(vectors)} rows cannot be chosen")
    first = int(np.argmax(vectors @ vectors.mean(axis=0)))
    chosen = [first]
    nearest = vectors @ vectors[first]  # likeness of each row to its nearest chosen one
    nearest[first] = np.inf
    while len(chosen) < count:
        farthest = int(np.argmin(nearest))
        chosen.append(farthest)
        np.maximum(nearest, vectors @ vectors[farthest], out=nearest)
        nearest[farthest] = np.inf
    return chosen

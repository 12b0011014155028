"""Vectors in a small part of a float's place: to choose candidates by, which the vectors themselves then rank.

`int8` keeps each number in a byte, beside the row's largest; `binary` keeps its sign only, and counts those that
differ from the query's (Charikar, "Similarity Estimation Techniques from Rounding Algorithms", 2002). They lie in a
file of their own beside the vectors: a search reads that one whole, and of the vectors only the rows of the candidates,
so that an index larger than the memory is searched without reading it from the disk.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.products import product
from windlass.core.errors import InputError

Quantised = Literal["", "int8", "binary"]
Bytes = NDArray[np.uint8]
Vectors = NDArray[np.float32]

CANDIDATES = {"int8": 3, "binary": 40}
"""Candidates for each place of the ranking: with fewer, signs miss too much where hundreds of passages are alike."""
_ROWS = 1 << 12


def check_kind(kind: str) -> None:
    if kind not in ("", *CANDIDATES):
        raise InputError(
            f"Vectors cannot be quantised as '{kind}'.", f"Use {' or '.join(CANDIDATES)}, or leave it out."
        )


def width(kind: str, dimension: int) -> int:
    """Bytes of a row."""
    return dimension + 4 if kind == "int8" else -(-dimension // 64) * 8


def quantise(kind: str, vectors: Vectors) -> Bytes:
    """Shape (rows, `width`)."""
    if kind == "int8":
        most = np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0.0), 1e-30).astype("<f4")
        numbers = np.rint(vectors * (127 / most)).astype(np.int8).view(np.uint8)
        return np.concatenate([numbers, most.view(np.uint8)], axis=1)
    signs = np.packbits(vectors > 0, axis=1)
    return np.pad(signs, ((0, 0), (0, width(kind, vectors.shape[1]) - signs.shape[1])))


def likeness(kind: str, rows: Bytes, query: Vectors, wanted: NDArray[np.int64] | None = None) -> Vectors:
    """How like the query each row is, or those `wanted`: comparable within one query only."""
    count = len(rows) if wanted is None else len(wanted)
    scores = np.empty(count, np.float32)
    asked = quantise(kind, query[None]) if kind == "binary" else query
    for at in range(0, count, _ROWS):
        some = rows[at : at + _ROWS] if wanted is None else rows[wanted[at : at + _ROWS]]
        if kind == "int8":
            numbers = some[:, :-4].view(np.int8).astype(np.float32)
            scores[at : at + len(some)] = product(numbers, query) * (some[:, -4:].view("<f4")[:, 0] / 127)
        else:
            scores[at : at + len(some)] = -_differing(some.view(np.uint64) ^ asked.view(np.uint64))
    return scores


def _differing(bits: NDArray[np.uint64]) -> NDArray[np.int32]:
    # NumPy counts bits from 2.0 on
    ones: NDArray[Any] = np.bitwise_count(bits) if hasattr(np, "bitwise_count") else _ONES[bits.view(np.uint8)]
    differing: NDArray[np.int32] = ones.sum(axis=1, dtype=np.int32)
    return differing


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)

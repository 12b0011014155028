"""k-means on the sphere: centres that vectors are like, by cosine (Dhillon and Modha, "Concept Decompositions for Large
Sparse Text Data Using Clustering", 2001)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windlass.core.progress import Progress

Vectors = NDArray[np.float32]
_ROUNDS = 8
"""More of them move few vectors to another centre."""
_SAMPLE = 64
"""Vectors that are looked at for each centre."""
_BLOCK = 8_192


def centres_of(
    vectors: Vectors,
    rows: NDArray[np.int64],
    count: int,
    draw: np.random.Generator,
    progress: Progress | None = None,
) -> Vectors:
    """The centres of `vectors[rows]`, or of a sample where those are many: shape (count, dimension), of length 1."""
    few = len(rows) <= _SAMPLE * count
    sample = _unit(vectors[rows if few else np.sort(draw.choice(rows, _SAMPLE * count, replace=False))])
    centres = sample[draw.choice(len(sample), count, replace=False)]
    for number in range(1, _ROUNDS + 1):
        if progress is not None:
            progress.update(0, f"centres, round {number} of {_ROUNDS}")
        owner = np.concatenate([nearest(sample[at : at + _BLOCK], centres) for at in range(0, len(sample), _BLOCK)])
        sizes = np.bincount(owner, minlength=count)
        held = sizes > 0
        ordered = sample[np.argsort(owner, kind="stable")]
        centres[held] = _unit(np.add.reduceat(ordered, (np.cumsum(sizes) - sizes)[held], axis=0))
        if not held.all():  # a centre that nothing is near to goes to where there is most
            crowded = np.flatnonzero(np.isin(owner, np.argsort(-sizes, kind="stable")[: max(1, count // 10)]))
            centres[~held] = sample[draw.choice(crowded, int((~held).sum()))]
    return centres


def nearest(vectors: Vectors, centres: Vectors) -> NDArray[np.int64]:
    """For each of the vectors which centre it is most like."""
    found: NDArray[np.int64] = np.argmax(vectors @ centres.T, axis=1)
    return found


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return unit

"""Whether what was made is like what is real, by features of both that a model gave: FID, KID, precision and recall.

Features are arrays of shape (samples, size), for images those of Inception's last pooling; figures of different models
cannot be compared. All raise `InputError` for too few samples, sizes that differ, and NaN. None is a mean of items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.arrays import as_many, table

Features = NDArray[np.float64]
_ROWS = 1024
"""Rows of distances at a time: bounds the memory."""


def fid(real: ArrayLike, made: ArrayLike) -> float:
    """Frechet inception distance: between normal distributions of the same mean and covariance. 0 is best.

    With few samples it is too large, the more so the larger the features are: compare at equally many, 10,000 or more
    (Heusel et al., arXiv 1706.08500).
    """
    a, b = _both(real, made, 2)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    a, b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    return float(np.sum((mean_a - mean_b) ** 2) + np.sum(a * a) + np.sum(b * b) - 2 * _root_trace(a, b))


def _root_trace(a: Features, b: Features) -> float:
    """The trace of the root of (A'A)(B'B), whose eigenvalues are the squared singular values of A B'. Whichever is
    smaller, samples or features, decides what it costs; no root of a matrix that is not symmetric is ever taken."""
    if max(len(a), len(b)) <= a.shape[1]:
        return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())
    # The triangles of QR hold the covariances, and A B' has the singular values of theirs.
    triangles = [np.asarray(np.linalg.qr(side, mode="r")) for side in (a, b)]
    return float(np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False).sum())


def kid(
    real: ArrayLike, made: ArrayLike, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance: the squared distance of means under the kernel (x'y / features + 1)^3, its mean over
    random subsets and their standard deviation. Unbiased, so it can fall below 0 (Binkowski et al., arXiv 1801.01401).

    size: samples of each side in a subset. Raises `InputError` also where there are fewer.
    """
    a, b = _both(real, made, 2)
    if subsets < 1 or not 2 <= size <= min(len(a), len(b)):
        raise InputError(
            f"{subsets} subsets of {size} cannot be drawn from {len(a)} real and {len(b)} made samples.",
            "Make size at most the smaller of the two.",
        )
    rng = np.random.default_rng(seed)
    found = [_distance(a[rng.permutation(len(a))[:size]], b[rng.permutation(len(b))[:size]]) for _ in range(subsets)]
    return float(np.mean(found)), float(np.std(found))


def _distance(a: Features, b: Features) -> float:
    n = len(a)
    inside = sum(float(kernel.sum() - np.trace(kernel)) for kernel in (_kernel(a, a), _kernel(b, b)))
    return inside / (n * (n - 1)) - 2 * float(_kernel(a, b).mean())


def _kernel(a: Features, b: Features) -> Features:
    values: Features = (a @ b.T / a.shape[1] + 1) ** 3
    return values


@dataclass(frozen=True, slots=True)
class Manifold:
    """Spheres around samples that reach to their k-th neighbour stand for where a distribution lives."""

    precision: float
    """Share of what was made that lies in a sphere of what is real (Kynkaanniemi et al., arXiv 1904.06991)."""
    recall: float
    """Share of what is real that lies in a sphere of what was made."""
    density: float
    """Mean number of spheres of what is real that hold a made sample, by k; can pass 1 (Naeem et al., 2002.09797)."""
    coverage: float
    """Share of what is real whose sphere holds a made sample."""


def manifold(real: ArrayLike, made: ArrayLike, k: int = 5) -> Manifold:
    """Fidelity and variety told apart. k: neighbours that a sphere reaches to, below the number of samples."""
    a, b = _both(real, made, k + 1)
    if k < 1:
        raise InputError(f"A sphere that reaches to neighbour {k} is none.", "Use 3 or 5.")
    reach_a, reach_b = _reach(a, k), _reach(b, k)
    held, recalled, covered = np.zeros(len(b)), 0, 0
    for start in range(0, len(a), _ROWS):
        apart = _apart(a[start : start + _ROWS], b)
        inside = apart < reach_a[start : start + _ROWS, None]
        held += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int((apart < reach_b).any(axis=1).sum())
    return Manifold(float(np.mean(held > 0)), recalled / len(a), float(held.mean()) / k, covered / len(a))


def _reach(samples: Features, k: int) -> Features:
    """Squared distance to the k-th other sample."""
    return np.concatenate(
        [
            np.partition(_apart(samples[start : start + _ROWS], samples), k, axis=1)[:, k]
            for start in range(0, len(samples), _ROWS)
        ]
    )


def _apart(a: Features, b: Features) -> Features:
    """Squared distances, shape (a, b)."""
    squares: Features = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0.0)


def clip_score(images: ArrayLike, texts: ArrayLike, *, scale: float = 2.5) -> Features:
    """Per pair the cosine of an image's and its text's embedding, 0 if below, times 2.5 as its authors have it
    (Hessel et al., arXiv 2104.08718); torchmetrics takes 100. The embeddings: of one model, shape (pairs, size)."""
    a, b = table("embeddings of images", images), table("embeddings of texts", texts)
    as_many(embeddings_of_images=a, embeddings_of_texts=b)
    _same_size(a, b)
    below = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not below.all():
        raise InputError("An embedding is all zeros and points nowhere.")
    cosines: Features = np.sum(a * b, axis=1) / below
    return scale * np.maximum(cosines, 0.0)


def _both(real: ArrayLike, made: ArrayLike, least: int) -> tuple[Features, Features]:
    a, b = table("real samples", real, least), table("made samples", made, least)
    _same_size(a, b)
    return a, b


def _same_size(a: Features, b: Features) -> None:
    if a.shape[1] != b.shape[1]:
        raise InputError(f"Features of {a.shape[1]} and of {b.shape[1]} numbers cannot be compared.")

"""How far raters agree beyond chance: Cohen's kappa, Krippendorff's alpha, Gwet's AC1, each over any numbers.

Ratings are numbers: for nominal categories any codes, for ordinal and interval levels their values. A matrix of ratings
has a row for each item and a column for each rater; NaN is a rating that was not given.

Where all ratings are the same, chance alone would agree as well, and kappa and alpha are not defined: they are NaN, and
not 1.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import bootstrap_sums
from windlass.evaluate.statistics.checks import Clusters, finite
from windlass.evaluate.statistics.intervals import Interval

Measure = Literal["nominal", "ordinal", "interval"]
"""How far two ratings are apart: different or not; by how many ratings lie between them; by their difference."""
Weights = Literal["none", "linear", "quadratic"]
"""What a disagreement counts: all the same, its size, or its size squared."""


def cohen_kappa(first: ArrayLike, second: ArrayLike, weights: Weights = "none") -> float:
    """Agreement of two raters over the same items (Cohen 1960; weighted: Cohen 1968).

    The size of a disagreement is the difference of the two numbers. NaN where both always gave one and the same.
    """
    table, apart = _table(first, second, weights)
    return float(_kappa(table.sum(axis=0), apart))


def kappa_interval(
    first: ArrayLike,
    second: ArrayLike,
    weights: Weights = "none",
    clusters: Clusters | None = None,
    *,
    seed: int = 0,
    resamples: int = 1999,
    level: float = 0.95,
) -> Interval:
    """Cohen's kappa with a bootstrap interval over items, or over their clusters. Raises as `alpha_interval`."""
    table, apart = _table(first, second, weights)
    return bootstrap_sums(
        table, lambda sums: _kappa(sums, apart), clusters, seed=seed, resamples=resamples, level=level
    )


def krippendorff_alpha(ratings: ArrayLike, measure: Measure = "nominal") -> float:
    """Agreement of any number of raters, of whom each may have left items out.

    ratings: shape (items, raters). Items with fewer than two ratings tell nothing and are left out.

    Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Raises `InputError` when no item has two
    ratings.
    """
    pairs, values = _pairs(_shared(ratings)[0])
    return float(_alpha(pairs.sum(axis=0), values, measure))


def alpha_interval(
    ratings: ArrayLike,
    measure: Measure = "nominal",
    clusters: Clusters | None = None,
    *,
    seed: int = 0,
    resamples: int = 1999,
    level: float = 0.95,
) -> Interval:
    """Krippendorff's alpha with a bootstrap interval over items, or over their clusters.

    Raises `InputError` where it is not defined, or not on almost all resamples: there are too few items that differ.
    """
    shared, kept = _shared(ratings, clusters)
    pairs, values = _pairs(shared)
    return bootstrap_sums(
        pairs, lambda sums: _alpha(sums, values, measure), kept, seed=seed, resamples=resamples, level=level
    )


def gwet_ac1(ratings: ArrayLike, categories: int | None = None) -> float:
    """Agreement that does not fall where one category is rare, as kappa's does (Gwet, BJMSP 61, 2008).

    ratings: shape (items, raters). categories: how many there are; by default as many as were given.
    """
    matrix = _matrix(ratings)
    values, codes = np.unique(matrix[~np.isnan(matrix)], return_inverse=True)
    k = values.size if categories is None else categories
    if values.size == 0 or k < max(2, values.size):
        raise InputError(f"{values.size} categories were given, and {k} are said to be.", "There must be 2 or more.")
    counts = _per_item(matrix, values.size, codes)
    each = counts.sum(axis=1)
    several = each >= 2
    if not several.any():
        raise InputError("No item has two ratings.", "Agreement needs items that two people rated.")
    alike = np.sum(counts[several] * (counts[several] - 1), axis=1) / (each[several] * (each[several] - 1))
    share = (counts[each > 0] / each[each > 0, None]).mean(axis=0)
    by_chance = float(np.sum(share * (1 - share))) / (k - 1)
    return (float(alike.mean()) - by_chance) / (1 - by_chance)


def _matrix(ratings: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(ratings, dtype=np.float64)
    if matrix.ndim != 2:
        raise InputError(f"The ratings have shape {matrix.shape}.", "Give a row for each item, a column a rater.")
    if np.isinf(matrix).any():
        raise InputError("A rating is infinite.", "Give numbers, and NaN where there is no rating.")
    return matrix


def _shared(ratings: ArrayLike, clusters: Clusters | None = None) -> tuple[NDArray[np.float64], Clusters | None]:
    """The items that two or more rated, and their clusters."""
    matrix = _matrix(ratings)
    if clusters is not None and len(clusters) != matrix.shape[0]:
        raise InputError(f"There are {matrix.shape[0]} items but {len(clusters)} cluster labels.")
    several = np.sum(~np.isnan(matrix), axis=1) >= 2
    if not several.any():
        raise InputError("No item has two ratings.", "Agreement needs items that two people rated.")
    kept = None if clusters is None else [cluster for cluster, is_kept in zip(clusters, several) if is_kept]
    return matrix[several], kept


def _per_item(matrix: NDArray[np.float64], k: int, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """How often each value was given to each item, shape (items, values)."""
    counts = np.zeros((matrix.shape[0], k))
    np.add.at(counts, (np.nonzero(~np.isnan(matrix))[0], codes), 1.0)
    return counts


# What is bootstrapped are sums over items: of their cells in the table of two raters, and of their pairs of ratings.


def _table(first: ArrayLike, second: ArrayLike, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The cell of each item, shape (items, values * values), and what a disagreement counts, shape (values, values)."""
    a, b = finite(first, "ratings of the first rater"), finite(second, "ratings of the second rater")
    if a.size != b.size:
        raise InputError(f"The first rater has {a.size} ratings, the second {b.size}.", "Compare them on common items.")
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    k = values.size
    cells = np.zeros((a.size, k * k))
    cells[np.arange(a.size), codes[: a.size] * k + codes[a.size :]] = 1.0
    distance = np.abs(values[:, None] - values[None, :])
    apart = {"none": (distance > 0).astype(np.float64), "linear": distance, "quadratic": distance**2}[weights]
    return cells, apart


def _kappa(sums: NDArray[np.float64], apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """From sums of cells, shape (..., values * values)."""
    k = apart.shape[0]
    table = sums.reshape(*sums.shape[:-1], k, k)
    total = table.sum(axis=(-2, -1))
    by_chance = np.einsum("...i,...j,ij->...", table.sum(axis=-1), table.sum(axis=-2), apart)
    return _beyond(np.sum(table * apart, axis=(-2, -1)) * total, by_chance)


def _pairs(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pairs of ratings of each item by their values, shape (items, values * values), each item worth as many as it
    has ratings; and the values."""
    values, codes = np.unique(matrix[~np.isnan(matrix)], return_inverse=True)
    counts = _per_item(matrix, values.size, codes)
    scaled = counts / (counts.sum(axis=1) - 1)[:, None]
    pairs = scaled[:, :, None] * counts[:, None, :]
    diagonal = np.arange(values.size)
    pairs[:, diagonal, diagonal] -= scaled
    return pairs.reshape(matrix.shape[0], -1), values


def _alpha(sums: NDArray[np.float64], values: NDArray[np.float64], measure: Measure) -> NDArray[np.float64]:
    """From sums of pairs, shape (..., values * values)."""
    observed = sums.reshape(*sums.shape[:-1], values.size, values.size)
    of_value = observed.sum(axis=-1)
    if measure == "nominal":
        apart = np.broadcast_to(1.0 - np.eye(values.size), observed.shape)
    else:  # by value, or by how many ratings lie below
        place = values if measure == "interval" else np.cumsum(of_value, axis=-1) - of_value / 2
        apart = np.broadcast_to((place[..., :, None] - place[..., None, :]) ** 2, observed.shape)
    by_chance = np.einsum("...i,...j,...ij->...", of_value, of_value, apart)
    return _beyond(np.sum(observed * apart, axis=(-2, -1)) * (of_value.sum(axis=-1) - 1.0), by_chance)


def _beyond(observed: NDArray[np.float64], by_chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - observed / by chance, and NaN where chance alone never disagrees."""
    defined = by_chance > 0
    found: NDArray[np.float64] = np.where(defined, 1.0 - observed / np.where(defined, by_chance, 1.0), math.nan)
    return found

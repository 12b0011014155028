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
from windlass.evaluate.statistics.bootstrap import bootstrap
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
    a, b = finite(first, "ratings of the first rater"), finite(second, "ratings of the second rater")
    if a.size != b.size:
        raise InputError(f"The first rater has {a.size} ratings, the second {b.size}.", "Compare them on common items.")
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    k = values.size
    table = np.zeros((k, k))
    np.add.at(table, (codes[: a.size], codes[a.size :]), 1.0 / a.size)
    distance = np.abs(values[:, None] - values[None, :])
    apart = {"none": (distance > 0).astype(np.float64), "linear": distance, "quadratic": distance**2}[weights]
    by_chance = float(np.sum(np.outer(table.sum(axis=1), table.sum(axis=0)) * apart))
    return math.nan if by_chance <= 0 else 1.0 - float(np.sum(table * apart)) / by_chance


def krippendorff_alpha(ratings: ArrayLike, measure: Measure = "nominal") -> float:
    """Agreement of any number of raters, of whom each may have left items out.

    ratings: shape (items, raters). Items with fewer than two ratings tell nothing and are left out.

    Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Raises `InputError` when no item has two
    ratings.
    """
    counts, values = _counts(ratings)
    return _alpha(counts, values, measure)


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
    counts, values = _counts(ratings, clusters)
    if clusters is not None:
        several = np.sum(~np.isnan(_matrix(ratings)), axis=1) >= 2
        clusters = [cluster for cluster, kept in zip(clusters, several) if kept]
    return bootstrap(
        lambda rows: _alpha(counts[rows], values, measure),
        counts.shape[0],
        clusters,
        seed=seed,
        resamples=resamples,
        level=level,
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


def _counts(ratings: ArrayLike, clusters: Clusters | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each value was given to each item with two ratings or more, shape (items, values); and the values."""
    matrix = _matrix(ratings)
    if clusters is not None and len(clusters) != matrix.shape[0]:
        raise InputError(f"There are {matrix.shape[0]} items but {len(clusters)} cluster labels.")
    matrix = matrix[np.sum(~np.isnan(matrix), axis=1) >= 2]
    if not matrix.size:
        raise InputError("No item has two ratings.", "Agreement needs items that two people rated.")
    values, codes = np.unique(matrix[~np.isnan(matrix)], return_inverse=True)
    return _per_item(matrix, values.size, codes), values


def _per_item(matrix: NDArray[np.float64], k: int, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    counts = np.zeros((matrix.shape[0], k))
    np.add.at(counts, (np.nonzero(~np.isnan(matrix))[0], codes), 1.0)
    return counts


def _alpha(counts: NDArray[np.float64], values: NDArray[np.float64], measure: Measure) -> float:
    raters = counts.sum(axis=1)
    scaled = counts / (raters - 1)[:, None]
    observed = scaled.T @ counts  # pairs of ratings of one item, each item worth as many as it has ratings
    observed[np.diag_indices_from(observed)] -= scaled.sum(axis=0)
    of_value = observed.sum(axis=0)
    n = of_value.sum()
    expected = np.outer(of_value, of_value) / (n - 1)  # its diagonal is never used: no value is apart from itself
    apart = _apart(values, of_value, measure)
    by_chance = float(np.sum(expected * apart))
    return math.nan if by_chance <= 0 else 1.0 - float(np.sum(observed * apart)) / by_chance


def _apart(values: NDArray[np.float64], of_value: NDArray[np.float64], measure: Measure) -> NDArray[np.float64]:
    """Squared distance of any two values."""
    if measure == "nominal":
        return 1.0 - np.eye(values.size)
    place = values if measure == "interval" else np.cumsum(of_value) - of_value / 2
    distance: NDArray[np.float64] = (place[:, None] - place[None, :]) ** 2
    return distance

"""What every statistic refuses: nothing at all, numbers that are not numbers, labels that do not match."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError

Clusters = Sequence[object] | NDArray[np.generic]
"""One label per value. Values with the same label come from one source and are not independent."""


def finite(values: ArrayLike, what: str = "values") -> NDArray[np.float64]:
    """`values` as a float64 vector. Raises `InputError` when empty, not one-dimensional, NaN or infinite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"The {what} have shape {array.shape}; a plain list of numbers is needed.")
    if array.size == 0:
        raise InputError(f"There are no {what} to compute a statistic from.", "Check that the dataset is not empty.")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{bad.size} of {array.size} {what} are not finite; the first is number {bad[0] + 1} ({array[bad[0]]}).",
            "Record an item that could not be scored as an error, not as a number.",
        )
    return array


def cluster_codes(clusters: Clusters | None, n: int) -> tuple[NDArray[np.intp], int]:
    """(code per value in order of appearance, number of clusters). `None` makes every value its own cluster."""
    if clusters is None:
        return np.arange(n, dtype=np.intp), n
    if len(clusters) != n:
        raise InputError(f"There are {n} values but {len(clusters)} cluster labels.", "Give one label per value.")
    if isinstance(clusters, np.ndarray) and clusters.dtype.kind in "biuU":
        _, first, codes = np.unique(clusters, return_index=True, return_inverse=True)
        place = np.empty(first.size, np.intp)
        place[np.argsort(first)] = np.arange(first.size)
        return place[codes], first.size
    known: dict[object, int] = {}
    codes = np.fromiter((known.setdefault(label, len(known)) for label in clusters), dtype=np.intp, count=n)
    return codes, len(known)


def level_checked(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise InputError(f"A confidence level lies between 0 and 1, not at {level}.", "Use 0.95, for example.")
    return level

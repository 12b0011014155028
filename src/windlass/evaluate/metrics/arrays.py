"""What metrics over arrays ask of them: numbers that are finite, in the right form, and as many as there must be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import finite


def flags(what: str, values: ArrayLike) -> NDArray[np.bool_]:
    """Shape (n,), true and false. Raises `InputError` for none, and for other values than those and 0 and 1."""
    array = np.asarray(values)
    if array.ndim != 1 or not array.size:
        raise InputError(f"The {what} have shape {array.shape}; a plain list with something in it is needed.")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise InputError(f"The {what} hold values other than true and false.")
    return array.astype(bool)


def table(what: str, values: ArrayLike, least: int = 1) -> NDArray[np.float64]:
    """Shape (rows, columns), finite, with at least so many rows. Raises `InputError`."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise InputError(f"The {what} have shape {array.shape}; a row of numbers for each is needed.")
    if len(array) < least:
        raise InputError(f"There are {len(array)} {what}, but at least {least} are needed.")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise InputError(f"{bad.size} of {len(array)} {what} hold NaN or infinity; the first is number {bad[0] + 1}.")
    return array


def numbers(what: str, values: ArrayLike, low: float = -np.inf, high: float = np.inf) -> NDArray[np.float64]:
    """Shape (n,), finite, within the bounds. Raises `InputError` naming the first that is not."""
    array = finite(values, what)
    bad = np.flatnonzero((array < low) | (array > high))
    if bad.size:
        raise InputError(f"Number {bad[0] + 1} of the {what} is {array[bad[0]]:g}, outside of {low:g} to {high:g}.")
    return array


def as_many(**columns: object) -> None:
    """Raises `InputError` unless all have the same length."""
    sizes = {name: len(column) for name, column in columns.items()}  # type: ignore[arg-type]
    if len(set(sizes.values())) > 1:
        counted = " and ".join(f"{size} {name.replace('_', ' ')}" for name, size in sizes.items())
        raise InputError(f"There are {counted}.", "Give one of each per item.")

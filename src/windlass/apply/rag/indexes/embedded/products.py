"""How like a query vectors are, in this thread alone where they are few.

BLAS shares the product of a few thousand rows among all cores. That takes half the time on a machine with nothing else
to do; on a busy one the other cores let it wait for hundreds of times as long as the product takes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FEW = 16_384
"""Rows that one core multiplies in a millisecond."""


def product(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vectors @ query`: shape (rows,)."""
    if len(vectors) > _FEW:
        return vectors @ query
    rows: NDArray[np.float32] = vectors[:, None, :] @ query[:, None]  # one product a row: too small to be shared
    return rows[:, 0, 0]

"""Who goes with whom: pairs of rows and columns with the most in common in all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_pairs(gain: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (row, column), each row and column in at most one, min(rows, columns) of them, whose sum is largest.

    gain: shape (rows, columns), finite. The Hungarian method by shortest augmenting paths (Jonker & Volgenant,
    Computing 38 (1987)): rows^2 * columns steps, each vectorised over the columns.
    """
    if gain.shape[0] > gain.shape[1]:
        return [(row, column) for column, row in best_pairs(gain.T)]
    rows, columns = gain.shape
    cost = np.hstack([np.zeros((rows, 1)), -gain])  # column 0 is where the search for a row starts
    price_row, price_column = np.zeros(rows), np.zeros(columns + 1)
    taken = np.full(columns + 1, -1)
    for row in range(rows):
        taken[0] = row
        nearest = np.full(columns + 1, np.inf)
        came_from = np.zeros(columns + 1, dtype=int)
        done = np.zeros(columns + 1, dtype=bool)
        at = 0
        while taken[at] >= 0:
            done[at] = True
            reduced = cost[taken[at]] - price_row[taken[at]] - price_column
            closer = ~done & (reduced < nearest)
            nearest[closer], came_from[closer] = reduced[closer], at
            following = int(np.argmin(np.where(done, np.inf, nearest)))
            step = nearest[following]
            price_row[taken[done]] += step
            price_column[done] -= step
            nearest[~done] -= step
            at = following
        while at:  # along the path, each column gives its row to the next one
            taken[at], at = taken[came_from[at]], came_from[at]
    return sorted((int(row), column - 1) for column, row in enumerate(taken) if column and row >= 0)

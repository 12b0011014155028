"""Rows of numbers that wait on disk, dealt into parts by a key, so that each part alone fits into memory.

Two such passes sort any amount of rows: with 256 parts, the 22 keys of ten million documents take 3.5 GB of disk and
14 MB of memory at a time. (Partitioned hashing: Kitsuregawa et al. 1983, GRACE.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARTS = 256
_WAITING = 1 << 16


class Spill:
    """Rows of type `dtype` in `PARTS` files under `folder`; within a part they keep the order in which they came."""

    def __init__(self, folder: Path, dtype: np.dtype[np.void]) -> None:
        folder.mkdir()
        self._folder, self._dtype = folder, dtype
        self._rows: list[NDArray[np.void]] = []
        self._parts: list[NDArray[np.intp]] = []
        self._waiting = 0

    def add(self, rows: NDArray[np.void], parts: NDArray[np.intp]) -> None:
        self._rows.append(rows)
        self._parts.append(parts)
        self._waiting += len(rows)
        if self._waiting >= _WAITING:
            self._flush()

    def part(self, number: int) -> NDArray[np.void]:
        """The rows of one part. Nothing may be added afterwards."""
        self._flush()
        path = self._path(number)
        return np.fromfile(path, self._dtype) if path.exists() else np.zeros(0, self._dtype)

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows, parts = np.concatenate(self._rows), np.concatenate(self._parts)
        order = np.argsort(parts, kind="stable")
        rows, parts = rows[order], parts[order]
        borders = np.searchsorted(parts, np.arange(PARTS + 1))
        for number in np.unique(parts).tolist():
            with self._path(number).open("ab") as file:
                file.write(rows[borders[number] : borders[number + 1]].tobytes())
        self._rows, self._parts, self._waiting = [], [], 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:03d}"

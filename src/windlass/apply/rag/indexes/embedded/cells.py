"""Cells: a cache beside the vectors of a large index, by which a search looks at a few of them instead of all.

The vectors are divided among the centres of k-means on the sphere (Dhillon and Modha, 2001), and lie a second time in
the order of their cells, as bytes (`quantised`): an inverted file (Jégou, Douze and Schmid, "Product Quantization for
Nearest Neighbor Search", 2011, section IV). A query goes through the cells in the order of how like it their centres
are, until it has looked at as many vectors as it took, when the cells were made, to find so many of the nearest.

It is a cache. Vectors that came later are all looked at, those that are gone or may not be seen are passed over without
counting, and where few are left, or the cells are of another generation of the vectors, the search is the exact one. So
a search returns as many passages as ever; only which ones is approximate.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.contents import runs
from windlass.apply.rag.indexes.embedded.kmeans import centres_of, nearest
from windlass.apply.rag.indexes.embedded.quantised import likeness, quantise, width
from windlass.apply.rag.indexes.fusion import best
from windlass.core.config import strict
from windlass.core.errors import InputError, WindlassError
from windlass.core.files import atomic_write, disk_errors
from windlass.core.progress import Progress

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

FORMAT = 1
LEAST = 10_000
"""Vectors. Fewer are all looked at in the time that it takes to think about it."""
WORTH = 3
"""Cells are for when fewer than one vector in so many is looked at: going through them costs more than a product."""
KIND = "int8"
_K = 10
_BLOCK = 8_192
_HEAD = 4_096
"""Bytes of the file before the arrays: JSON, then spaces."""


@dataclass(frozen=True, slots=True)
class Made:
    """What cells were made of, and how well they find."""

    generation: int
    """Of the vectors."""
    rows: int
    """Of the vectors file when they were made; those after it are in no cell."""
    vectors: int
    """In the cells: the others of `rows` belonged to no passage any more."""
    dimension: int
    cells: int
    looked: int
    """At how many vectors a search looks, at least."""
    recall: float
    """Of the ten nearest, how many are among those; for the queries by which `looked` was found."""
    format: int = FORMAT

    def pays(self, vectors: int, most: int = 0) -> bool:
        """Whether a search for the nearest `most` of so many vectors is faster by cells than by looking at all."""
        return vectors > WORTH * max(self.looked, most)

    @property
    def bytes(self) -> int:
        return _HEAD + sum(size for _, _, size in _layout(self))


@dataclass(frozen=True)
class Cells:
    made: Made
    centres: Vectors
    """Shape (cells, dimension), of length 1."""
    bounds: NDArray[np.int64]
    """Cell i has `rows[bounds[i]:bounds[i + 1]]`."""
    rows: NDArray[np.int32]
    """Of the vectors file, in the order of the cells."""
    codes: NDArray[np.uint8]
    """The vectors of `rows`, quantised."""

    def near(self, query: Vectors, most: int, passing: NDArray[np.bool_] | None = None) -> Rows:
        """Up to `most` rows of the vectors file, of those in cells: the nearest of the vectors that are looked at.

        `passing`: which rows of the file may be found. Fewer than `most` only if fewer of them are in cells.
        """
        order = np.argsort(-(self.centres @ query), kind="stable")
        ends = np.cumsum(np.diff(self.bounds)[order])
        enough, taken, before = max(self.made.looked, most), 0, 0
        places = np.zeros(0, np.int64)
        while len(places) < enough and taken < len(order):
            # as many cells as will do if of these vectors as many pass as of those before
            share = max(len(places), 1) / before if before else 1.0
            upto = 1 + int(np.searchsorted(ends[:-1], before + (enough - len(places)) / share))
            cells, taken, before = order[taken:upto], upto, int(ends[upto - 1])
            more = runs(self.bounds[cells], self.bounds[cells + 1] - self.bounds[cells])
            places = np.concatenate([places, more if passing is None else more[passing[self.rows[more]]]])
        found = places[best(likeness(KIND, self.codes, query, places), min(most, len(places)))]
        return self.rows[found].astype(np.int64)


# the file -----------------------------------------------------------------------------------------------------------


def cells_path(folder: Path, generation: int) -> Path:
    return folder / f"cells-{generation}.ivf"


def _layout(made: Made) -> list[tuple[str, tuple[int, ...], int]]:
    """Type, shape and bytes of the arrays, in the order of the file."""
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("<f4", (made.cells, made.dimension)),
        ("<i8", (made.cells + 1,)),
        ("<i4", (made.vectors,)),
        ("|u1", (made.vectors, width(KIND, made.dimension))),
    ]
    return [(kind, shape, int(np.prod(shape, dtype=np.int64)) * int(kind[2:])) for kind, shape in shapes]


def made_of(folder: Path, generation: int) -> Made | None:
    """What the cells of these vectors are; None where there are none, or none that can be used: then the file is of
    another format, or was cut short."""
    try:
        with cells_path(folder, generation).open("rb") as file:
            return _head(file, generation)
    except FileNotFoundError:
        return None


def mapped_cells(folder: Path, generation: int) -> Cells | None:
    """The cells of these vectors, mapped into memory; None as for `made_of`."""
    try:
        with cells_path(folder, generation).open("rb") as file:
            made = _head(file, generation)
            if made is None:
                return None
            data = mmap.mmap(file.fileno(), made.bytes, prot=mmap.PROT_READ)
    except FileNotFoundError:
        return None
    arrays: list[Any] = []
    at = _HEAD
    for kind, shape, size in _layout(made):
        arrays.append(np.frombuffer(data, kind, size // int(kind[2:]), at).reshape(shape))
        at += size
    return Cells(made, *arrays)


def _head(file: IO[bytes], generation: int) -> Made | None:
    try:
        made = strict(Made, json.loads(file.read(_HEAD)), where=file.name)
    except (ValueError, WindlassError):
        return None
    whole = os.fstat(file.fileno()).st_size == made.bytes
    return made if whole and made.format == FORMAT and made.generation == generation else None


def write_cells(
    folder: Path,
    generation: int,
    vectors: Vectors,
    rows: Rows,
    queries: Vectors,
    *,
    recall: float,
    cells: int | None = None,
    progress: Progress | None = None,
) -> Made:
    """Makes the cells of `vectors[rows]`, in place of those that there are.

    `vectors`: all rows of the file; `rows`: those that belong to passages, ascending. `recall`: how many of the ten
    nearest to each of `queries`, shape (queries, dimension), are to be found; in (0, 1]. `cells`: how many, by default
    twice the root of the number of vectors. Raises `InputError` for what cannot be.
    """
    if not 0 < recall <= 1:
        raise InputError(f"A recall of {recall:g} cannot be reached.", "Ask for more than 0 and at most 1, say 0.98.")
    count = min(round(2 * len(rows) ** 0.5), len(rows)) if cells is None else cells
    if not 1 <= count <= len(rows):
        raise InputError(f"{len(rows):,} vectors cannot be divided among {count:,} cells.")
    centres = centres_of(vectors, rows, count, np.random.default_rng(0), progress)
    owner = np.empty(len(rows), np.int32)
    for at in range(0, len(rows), _BLOCK):
        owner[at : at + _BLOCK] = nearest(vectors[rows[at : at + _BLOCK]], centres)
        if progress is not None:
            progress.update(min(at + _BLOCK, len(rows)))
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(count + 1)).astype("<i8")
    needed = _needed(vectors, rows, queries, centres, owner, np.diff(bounds))
    looked = int(needed[max(0, int(np.ceil(recall * len(needed))) - 1)])
    found = float((needed <= looked).mean())
    made = Made(generation, len(vectors), len(rows), vectors.shape[1], count, looked, round(found, 4))
    path = cells_path(folder, generation)
    with disk_errors(path), atomic_write(path) as file:
        file.write(json.dumps(asdict(made)).encode().ljust(_HEAD))
        file.write(np.ascontiguousarray(centres, "<f4").tobytes())
        file.write(bounds.tobytes())
        file.write(rows[order].astype("<i4").tobytes())
        for at in range(0, len(rows), _BLOCK):
            file.write(quantise(KIND, vectors[rows[order[at : at + _BLOCK]]]).tobytes())
    return made


def remove_cells(folder: Path, kept: int | None = None) -> bool:
    """Removes all cells but those of the generation `kept`; whether there were any. Who has them mapped keeps them."""
    there = False
    for path in folder.glob("cells-*.ivf"):
        if kept is None or path != cells_path(folder, kept):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                there = True
    return there


# how far to look ---------------------------------------------------------------------------------------------------


def _needed(
    vectors: Vectors,
    rows: Rows,
    queries: Vectors,
    centres: Vectors,
    owner: NDArray[np.int32],
    sizes: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How many vectors must be looked at to find each of the ten nearest of each query, ascending.

    The nearest are found by looking at all. The sizes of the cells up to the one that a vector is in, in the order in
    which the query goes through them, say how many that takes.
    """
    found, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for at in range(0, len(rows), _BLOCK):
        block = queries @ vectors[rows[at : at + _BLOCK]].T
        scores = np.concatenate([scores, block], axis=1)
        found = np.concatenate([found, np.broadcast_to(np.arange(at, at + block.shape[1]), block.shape)], axis=1)
        top = np.argpartition(-scores, min(_K, scores.shape[1]) - 1, axis=1)[:, :_K]
        scores, found = np.take_along_axis(scores, top, 1), np.take_along_axis(found, top, 1)
    order = np.argsort(-(queries @ centres.T), axis=1, kind="stable")
    until = np.take_along_axis(np.cumsum(sizes[order], axis=1), np.argsort(order, axis=1), 1)  # of each cell
    return np.sort(np.take_along_axis(until, owner[found], 1), axis=None)

"""Vectors on the disk: rows of little-endian float32, appended to and mapped into memory, never read whole.

What is appended counts once a commit of the database speaks of it: it is synced before, and overwritten when no commit
came. A file is never made shorter, as other processes may have it mapped; dead rows leave with the next generation,
which is another file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.layout import damaged
from windlass.apply.rag.indexes.embedded.quantised import quantise, width
from windlass.core.files import disk_errors

Vectors = NDArray[np.float32]


def vectors_path(folder: Path, generation: int, kind: str = "") -> Path:
    return folder / f"vectors-{generation}.{kind or 'f32'}"


def append(
    folder: Path, generation: int, row: int, blocks: Iterable[Vectors], quantised: str = "", *, synced: bool = True
) -> int:
    """Writes rows from `row` on, over whatever is there, and syncs them; returns the row after the last. With
    `quantised` its rows are written beside them."""
    with disk_errors(folder), contextlib.ExitStack() as files:
        plain = files.enter_context(_opened(vectors_path(folder, generation), synced))
        beside = (
            files.enter_context(_opened(vectors_path(folder, generation, quantised), synced)) if quantised else None
        )
        for block in blocks:
            if len(block):
                _write(plain, row, np.ascontiguousarray(block, "<f4"))
                if beside is not None:
                    _write(beside, row, quantise(quantised, block))
                row += len(block)
    return row


@contextlib.contextmanager
def _opened(path: Path, synced: bool) -> Iterator[int]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        yield handle
        if synced:
            os.fsync(handle)
    finally:
        os.close(handle)


def _write(handle: int, row: int, block: NDArray[Any]) -> None:
    data = block.data.cast("B")
    at, done = row * (len(data) // len(block)), 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], at + done)


def mapped(folder: Path, generation: int, rows: int, dimension: int) -> Vectors:
    """The first `rows` rows, read-only; pages come into memory as they are used, and leave it when it is needed."""
    return np.frombuffer(_mapped(folder, vectors_path(folder, generation), rows * dimension * 4), "<f4").reshape(
        rows, dimension
    )


def mapped_quantised(folder: Path, generation: int, rows: int, dimension: int, kind: str) -> NDArray[np.uint8]:
    """The same of the quantised rows."""
    size = width(kind, dimension)
    return np.frombuffer(_mapped(folder, vectors_path(folder, generation, kind), rows * size), np.uint8).reshape(
        rows, size
    )


def _mapped(folder: Path, path: Path, size: int) -> mmap.mmap | bytes:
    if size == 0:
        return b""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise damaged(folder, f"{path.name} is missing") from None
    try:
        if os.fstat(handle).st_size < size:
            raise damaged(folder, f"{path.name} is cut short: its vectors are not whole")
        return mmap.mmap(handle, size, prot=mmap.PROT_READ)
    finally:
        os.close(handle)


def remove_others(folder: Path, generation: int, pending: int | None = None) -> None:
    """Removes files of other generations, which a killed writer or a reader's last map may have left."""
    kept = {vectors_path(folder, number).stem for number in (generation, pending) if number is not None}
    for path in folder.glob("vectors-*.*"):
        if path.stem not in kept:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

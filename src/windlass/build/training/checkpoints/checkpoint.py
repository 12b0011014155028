"""Checkpoints on disk: tensors in safetensors, everything else in JSON, and never half of one.

    <run>/checkpoints/step-00000040/part-0-of-2.safetensors      what worker 0 held
                                    part-1-of-2.safetensors      what worker 1 held
                                    checkpoint.json              written last: with it, the checkpoint exists

A folder without `checkpoint.json` is no checkpoint, so a kill at any moment, or a full disk, leaves the previous one
in force. Parts name the rows that they hold of each tensor: a checkpoint loads on any number of workers. Each piece
carries a CRC-32, since a disk that returns wrong bytes otherwise shows only as a strange loss curve.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from windlass.build.training.distributed.pieces import Piece, fill
from windlass.core.errors import DiskFull, InputError
from windlass.core.files import disk_errors, sync_folder, write_json

FOLDER = "checkpoints"
FACTS = "checkpoint.json"
_PIECES = "pieces"
"""Key of the safetensors metadata under which a part describes its pieces."""


# Reading ------------------------------------------------------------------------------------------------------------


def steps(run: Path) -> list[int]:
    """The steps of the whole checkpoints in the run's folder, oldest first."""
    found = (re.fullmatch(r"step-(\d+)", path.parent.name) for path in (run / FOLDER).glob(f"step-*/{FACTS}"))
    return sorted(int(match[1]) for match in found if match)


def load(run: Path, step: int | None = None) -> Checkpoint | None:
    """The newest checkpoint of the run, or that of `step`; None when there is none. Raises `InputError` when damaged.

    Tensors are read when they are asked for.
    """
    there = [found for found in steps(run) if step is None or found <= step]
    if not there or step not in (None, there[-1]):
        return None
    folder = step_folder(run, there[-1])
    older = f" to go on from step {there[-2]:,}" if len(there) > 1 else " to start the run anew"
    hint = f"Delete {folder}{older}."
    try:
        values = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return Checkpoint(int(values["step"]), values["facts"], _Tensors(folder, int(values["parts"]), hint), folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The checkpoint {folder / FACTS} is damaged: {error}.", hint) from error


@dataclass(frozen=True, slots=True)
class Checkpoint:
    step: int
    facts: Mapping[str, Any]
    tensors: _Tensors
    folder: Path

    def restore(self, targets: Mapping[str, Tensor]) -> None:
        """Fills every target in place, each worker its own rows.

        Raises `InputError`, before anything is changed, naming the first tensor that is missing, unknown or of
        another shape.
        """
        other = "It was made with other settings or another version; start the run anew."
        found = self.tensors.shapes
        for name in sorted(set(targets) - set(found)):
            raise InputError(f"The checkpoint {self.folder} lacks the tensor '{name}'.", other)
        for name in sorted(set(found) - set(targets)):
            raise InputError(f"The checkpoint {self.folder} holds the tensor '{name}', which is not known here.", other)
        for name, target in targets.items():
            if tuple(target.shape) != found[name]:
                shapes = f"{list(found[name])}, but here it has {list(target.shape)}"
                raise InputError(f"The checkpoint {self.folder}: tensor '{name}' has shape {shapes}.", other)
        for name, target in targets.items():
            fill(target, self.tensors[name])


class _Tensors(Mapping[str, Tensor]):
    """The whole tensors of a checkpoint by name, put together from the parts and read only when asked for."""

    def __init__(self, folder: Path, parts: int, hint: str) -> None:
        self._paths = [folder / part_name(i, parts) for i in range(parts)]
        self._hint = hint

    @cached_property
    def _found(self) -> dict[str, list[tuple[Path, _Described]]]:
        found: dict[str, list[tuple[Path, _Described]]] = {}
        for path in self._paths:
            for name, piece in self._read(path, lambda file: _described(file.metadata())).items():
                found.setdefault(name, []).append((path, piece))
        for name, pieces in found.items():
            shape = pieces[0][1].shape
            expected = 0
            for path, piece in pieces:
                if piece.shape != shape or piece.first != expected:
                    raise self._damaged(path, f"its piece of tensor '{name}' does not follow the one before")
                expected = piece.last
            if expected != _rows(shape):
                raise self._damaged(pieces[-1][0], f"the last rows of tensor '{name}' are missing")
        return found

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: pieces[0][1].shape for name, pieces in self._found.items()}

    def __getitem__(self, name: str) -> Tensor:
        pieces = []
        for path, described in self._found[name]:
            piece: Tensor = self._read(path, lambda file: file.get_tensor(name))
            if checksum(piece) != described.crc32:
                raise self._damaged(path, f"the bytes of tensor '{name}' are not those that were written")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def _read(self, path: Path, take: Callable[[Any], Any]) -> Any:
        try:
            with safe_open(path, framework="pt") as file:
                return take(file)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise self._damaged(path, str(error)) from error

    def _damaged(self, path: Path, why: str) -> InputError:
        return InputError(f"The checkpoint's part {path} is damaged: {why}.", self._hint)


@dataclass(frozen=True, slots=True)
class _Described:
    first: int
    last: int
    """The row behind its last one."""
    shape: tuple[int, ...]
    crc32: int


def _described(metadata: Mapping[str, str]) -> dict[str, _Described]:
    pieces = json.loads(metadata[_PIECES])
    return {n: _Described(first, last, tuple(shape), crc32) for n, (first, last, shape, crc32) in pieces.items()}


def _rows(shape: tuple[int, ...]) -> int:
    """Number of rows; a scalar counts as one."""
    return shape[0] if shape else 1


# Writing ------------------------------------------------------------------------------------------------------------


def step_folder(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:08d}"


def part_name(worker: int, workers: int) -> str:
    return f"part-{worker}-of-{workers}.safetensors"


def write_part(folder: Path, pieces: Mapping[str, Piece], worker: int, workers: int) -> None:
    """Writes what one worker holds, durably and under its name only when whole. Raises `DiskFull`."""
    described = {
        name: (p.first, p.first + _rows(tuple(p.rows.shape)), p.shape, checksum(p.rows)) for name, p in pieces.items()
    }
    rows = {name: piece.rows.contiguous() for name, piece in pieces.items()}
    path = folder / part_name(worker, workers)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_file(rows, temporary, {_PIECES: json.dumps(described)})
            handle = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
            sync_folder(folder)
        except SafetensorError as error:
            if "No space left" not in str(error):
                raise
            raise DiskFull(
                f"No space left on the disk that holds {folder}.",
                "Free some space and run the same command again; the checkpoint before is whole.",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def commit(run: Path, step: int, parts: int, facts: Mapping[str, Any], score: float | None) -> None:
    """Makes the parts written for `step` the newest checkpoint. Raises `DiskFull`."""
    folder = step_folder(run, step)
    write_json(folder / FACTS, {"step": step, "parts": parts, "score": score, "facts": dict(facts)})
    sync_folder(folder.parent)


def prune(run: Path, keep: int, *, best: bool = False) -> None:
    """Removes all but the newest `keep` checkpoints and, with `best`, the one of the lowest score."""
    there = steps(run)
    kept = set(there[-keep:])
    if best:
        scores = {step: json.loads((step_folder(run, step) / FACTS).read_text())["score"] for step in there}
        scored = [step for step in there if scores[step] is not None]
        kept |= set(sorted(scored, key=lambda step: (scores[step], step))[:1])
    for step in set(there) - kept:
        remove(step_folder(run, step))


def discard_unfinished(run: Path) -> None:
    """Removes what a killed process had begun to write. Only while nobody writes."""
    for folder in (run / FOLDER).glob("step-*"):
        if not (folder / FACTS).exists():
            remove(folder)


def remove(folder: Path) -> None:
    """Removes a checkpoint; killed halfway, it is no checkpoint any more, instead of a damaged one."""
    (folder / FACTS).unlink(missing_ok=True)
    shutil.rmtree(folder)


def checksum(tensor: Tensor) -> int:
    """CRC-32 of the tensor's bytes. The tensor lies in host memory."""
    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]

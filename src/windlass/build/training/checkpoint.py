"""Checkpoints: tensors in safetensors, everything else in JSON, and never half of one.

The tensors go to a new file first; then `checkpoint.json`, which names it, is replaced in one atomic step. A kill at
any moment, or a full disk, leaves the previous checkpoint as it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from windlass.core.errors import InputError
from windlass.core.files import disk_errors, sync_folder, write_json

FILE = "checkpoint.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Makes this the checkpoint in `folder`. Raises `DiskFull`, leaving the previous one in force."""
    name = f"state-{step:08d}-{os.getpid()}.safetensors"
    path = folder / name
    with disk_errors(folder):
        try:
            save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_folder(folder)
            write_json(folder / FILE, {"step": step, "tensors": name, "facts": dict(facts)})
        except BaseException:
            if _current(folder) != name:
                path.unlink(missing_ok=True)
            raise
    _remove_others(folder, name)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None when there is none yet. Raises `InputError` when it is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Checkpoint(load_file(folder / values["tensors"]), values["facts"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"The checkpoint {path} is damaged: {error}.", "Delete the run's folder to start the run anew."
        ) from error


def _current(folder: Path) -> str | None:
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8"))["tensors"] if path.exists() else None


def _remove_others(folder: Path, keep: str) -> None:
    for old in folder.glob("state-*.safetensors"):
        if old.name != keep:
            old.unlink(missing_ok=True)

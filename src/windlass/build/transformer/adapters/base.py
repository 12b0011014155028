"""What an adapter's folder tells of the base that the adapter was trained on.

Beside PEFT's files lies `base.json`, which PEFT passes over: the digest of the weights that the adapter was trained on,
and in how many bits they were then, if in few, with what was measured of that. Of others only shapes can tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from windlass.build.transformer.adapters.files import present
from windlass.build.transformer.adapters.recipe import CONFIG
from windlass.core.errors import InputError
from windlass.core.files import write_json

_T = TypeVar("_T")
BASE = "base.json"
"""Not in the weights' metadata, of which safetensors writes several entries in an order that changes by chance."""


def base_of(folder: Path) -> str | None:
    """Digest (`hf.weights_digest`) of the weights that the adapter was trained on; None where no file says so."""
    path = folder / BASE
    return _told(path, lambda values: str(values["weights"])) if path.is_file() else None


def bits_of(folder: Path) -> int | None:
    """4 or 8: that of the base's maps as the adapter was trained beside them; None: they were whole, or nobody says."""
    path = folder / BASE
    bits = _told(path, lambda values: values.get("bits")) if path.is_file() else None
    if bits not in (None, 4, 8):
        raise InputError(f"{path}: bits is {bits!r}, which is neither 4 nor 8.", "Restore or delete it.")
    return bits


def measured_of(folder: Path) -> tuple[float, float] | None:
    """Held-out loss beside the rounded base that the adapter was trained beside, and beside that base as it is; None
    where nobody measured both."""
    path = folder / BASE
    found = _told(path, lambda values: values.get("heldout_loss")) if path.is_file() else None
    return None if found is None else _told(path, lambda values: (float(found["rounded"]), float(found["whole"])))


def note_measured(folder: Path, rounded: float, whole: float) -> None:
    """For `measured_of`."""
    values = _told(folder / BASE, dict)
    write_json(folder / BASE, {**values, "heldout_loss": {"rounded": rounded, "whole": whole}})


def _told(path: Path, what: Callable[[Any], _T]) -> _T:
    try:
        return what(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}).", "Restore or delete it.") from error


def task_of(folder: Path) -> str | None:
    """PEFT's name for what the adapter's model does, if its file tells."""
    return _field(folder, "task_type")


def base_name_of(folder: Path) -> str | None:
    """What the adapter's file calls its base: a name, or the folder in which it lay."""
    return _field(folder, "base_model_name_or_path")


def _field(folder: Path, name: str) -> str | None:
    value = json.loads(present(folder, CONFIG).read_text(encoding="utf-8")).get(name)
    return value if isinstance(value, str) else None


def check_base(folder: Path, digest: str, name: str) -> None:
    """Raises `InputError` when the adapter says that it was trained beside weights other than those of `name`."""
    wanted = base_of(folder)
    if wanted is not None and wanted != digest:
        raise InputError(
            f"The adapter {folder} was trained on a base whose weights have the digest {wanted[:12]}, but those of "
            f"{name} have {digest[:12]}.",
            f"Name the base that it was trained on. If these are its weights in another form, delete {BASE}.",
        )

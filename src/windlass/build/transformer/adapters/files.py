"""Adapters on disk as PEFT has them: `adapter_config.json` + `adapter_model.safetensors`, whose tensors have keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS, Recipe
from windlass.core.errors import InputError

PREFIX = "base_model.model."
"""Stands before the name of a module in each key of the tensors."""


def size(folder: Path) -> int:
    """Numbers that the adapter in `folder` holds, from the file's header alone."""
    path = present(folder, WEIGHTS)
    with _readable(path), safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def kinds_of(recipe: Recipe) -> tuple[str, ...]:
    """What stands behind a module's name in the keys of its tensors."""
    if recipe.kind == "IA3":
        return ("ia3_l",)
    plain = ("lora_A.weight", "lora_B.weight")
    return (*plain, "lora_magnitude_vector") if recipe.magnitudes else plain


def key_of(module: str, kind: str) -> str:
    return f"{PREFIX}{module}.{kind}"


def present(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{path} is missing.", f"An adapter's folder holds {CONFIG} and {WEIGHTS}, as PEFT saves them."
        )
    return path


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of an adapter's file, in float32.

    From its bytes: each tensor got through `safe_open` leaves two objects behind for good (safetensors 0.8), which is
    nothing to a model that is loaded once, but adds up in a server whose adapters come and go.
    """
    with _readable(path):
        return {name: tensor.float() for name, tensor in load(path.read_bytes()).items()}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: numbers of a kind that torch does not have
        raise InputError(f"{path} cannot be read: {error}.", "The file is damaged; fetch it again.") from error

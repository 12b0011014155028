"""Adapters as PEFT writes them, read for the engine: what it computes is W x + s B A x (LoRA, rsLoRA).

Ranks and alphas may differ from matrix to matrix. What changes more than that (DoRA, trained biases, embeddings or
heads, initialisations that alter the base) is refused by name, and so is a file that does not hold exactly what its
configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from windlass.build.transformer.adapters.files import present, read_adapter, size
from windlass.build.transformer.adapters.parts import LowRank
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS, Recipe
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import to_hf
from windlass.core.errors import InputError
from windlass.core.files import sha256_file, sha256_json

__all__ = ["CONFIG", "WEIGHTS", "LoRA", "Thin", "read_lora", "size"]


class Thin(NamedTuple):
    """What is added to one matrix of N outputs and K inputs."""

    down_RK: Tensor
    up_RN: Tensor
    """Scaled, and transposed, so that several adapters are joined along their ranks."""


@dataclass(frozen=True, slots=True, eq=False)
class LoRA:
    """One adapter in memory."""

    digest: str
    """Changes whenever what it computes may."""
    thin: Mapping[str, Thin]
    """By the name of the decoder's own map: `blocks.0.attention.query`."""
    bytes: int


def read_lora(folder: Path, config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> LoRA:
    """The adapter in `folder` for decoders of this shape.

    Raises `InputError` naming the file, field or key that is missing, unknown or of another shape, and `Unsupported`
    for what adapters can be but these cannot.
    """
    recipe = Recipe(present(folder, CONFIG))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Decoder(config).state_dict().items()}
    adapter = read_adapter(folder, recipe, _tables(config), shapes)
    thin = {
        name: Thin(part.down_RK.to(device, dtype), (part.up_NR * part.scale).T.contiguous().to(device, dtype))
        for name, part in adapter.parts.items()
        if isinstance(part, LowRank)
    }
    held = sum(t.numel() * t.element_size() for pair in thin.values() for t in pair)
    digest = sha256_json({"weights": sha256_file(folder / WEIGHTS), "config": recipe.values})
    return LoRA(digest, thin, held)


def _tables(config: TransformerConfig) -> Iterator[Sequence[Link]]:
    """Of all families that have models of this shape: they name its modules differently."""
    for name, family in FAMILIES.items():
        try:
            to_hf(config, name)
        except InputError:
            continue
        yield list(family.links(config))

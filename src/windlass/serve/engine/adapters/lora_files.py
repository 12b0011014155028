"""Adapters as PEFT writes them, read for the engine: thin matrices beside a map (LoRA, rsLoRA), and factors of its
inputs and outputs ((IA)3). DoRA is both: what it scales the outputs by follows from the base, once, when it is read.

Ranks and alphas may differ from matrix to matrix. What changes more than that (trained biases, embeddings or heads,
positions before the text, initialisations that alter the base) is refused by name, and so is a file that does not hold
exactly what its configuration says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from windlass.build.transformer.adapters.files import present, size
from windlass.build.transformer.adapters.parts import LowRank, Rescaled
from windlass.build.transformer.adapters.reading import read_adapter
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS, Recipe
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import to_hf
from windlass.build.transformer.model import model_of
from windlass.core.errors import InputError
from windlass.core.files import sha256_file, sha256_json

__all__ = ["CONFIG", "WEIGHTS", "LoRA", "Thin", "read_lora", "size"]


class Thin(NamedTuple):
    """What is added to one matrix of N outputs and K inputs."""

    down_RK: Tensor
    up_RN: Tensor
    """Scaled, and transposed, so that several adapters are joined along their ranks."""


class Factors(NamedTuple):
    """What one matrix's inputs are multiplied by, its outputs, and what is added to these afterwards."""

    inward_K: Tensor | None
    outward_N: Tensor | None
    shift_N: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class LoRA:
    """One adapter in memory."""

    digest: str
    """Changes whenever what it computes may."""
    thin: Mapping[str, Thin]
    """By the name of the model's own map: `blocks.0.attention.query`."""
    factors: Mapping[str, Factors]
    """The same."""
    bytes: int


def read_lora(
    folder: Path,
    config: TransformerConfig,
    dtype: torch.dtype,
    device: torch.device,
    bases: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
) -> LoRA:
    """The adapter in `folder` for models of this shape, whose maps are `bases`: DoRA asks them for their weights.

    Raises `InputError` naming the file, field or key that is missing, unknown or of another shape, and `Unsupported`
    for what adapters can be but these cannot.
    """
    recipe = Recipe(present(folder, CONFIG), kinds=("LORA", "IA3"), more=("use_dora", "feedforward_modules"))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model_of(config).state_dict().items()}
    adapter = read_adapter(folder, recipe, _tables(config), shapes)
    thin: dict[str, Thin] = {}
    factors: dict[str, Factors] = {}
    for name, part in adapter.parts.items():
        if isinstance(part, Rescaled):
            factors[name] = Factors(part.factors, None, None) if part.on_input else Factors(None, part.factors, None)
            continue
        up_RN = (part.up_NR * part.scale).T
        if part.magnitude_N is not None:
            lengths_N, bias_N = _lengths(bases[name], part, dtype, device)
            outward_N = part.magnitude_N / lengths_N
            factors[name] = Factors(None, outward_N, bias_N * (1 - outward_N))
            up_RN = up_RN * outward_N
        thin[name] = Thin(part.down_RK.to(device, dtype), up_RN.contiguous().to(device, dtype))
    factors = {
        name: Factors(*(None if one is None else one.to(device, dtype) for one in own)) for name, own in factors.items()
    }
    tensors = [t for own in (*thin.values(), *factors.values()) for t in own if t is not None]
    held = sum(t.numel() * t.element_size() for t in tensors)
    digest = sha256_json({"weights": sha256_file(folder / WEIGHTS), "config": recipe.values})
    return LoRA(digest, thin, factors, held)


@torch.inference_mode()
def _lengths(
    base: Callable[[Tensor], Tensor], part: LowRank, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of each row of W + s B A, and the bias: W is what the map, whatever its arithmetic, makes of unit vectors."""
    inputs = part.down_RK.shape[1]
    bias_N = base(torch.zeros(1, inputs, dtype=dtype, device=device))[0].float().cpu()
    squares_N = torch.zeros(len(part.up_NR))
    for start in range(0, inputs, _COLUMNS):
        units = torch.zeros(min(_COLUMNS, inputs - start), inputs, dtype=dtype, device=device)
        units.diagonal(start).fill_(1)
        column_CN = base(units).float().cpu() - bias_N
        column_CN += part.scale * (part.up_NR @ part.down_RK[:, start : start + len(units)]).T
        squares_N += column_CN.square().sum(0)
    return squares_N.sqrt(), bias_N


_COLUMNS = 256
"""Of a weight, looked at together."""


def _tables(config: TransformerConfig) -> Iterator[Sequence[Link]]:
    """Of all families that have models of this shape: they name its modules differently."""
    for name, family in FAMILIES.items():
        try:
            to_hf(config, name)
        except InputError:
            continue
        yield list(family.links(config))

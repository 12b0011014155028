"""Putting an adapter into a model, and making one model of both again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from windlass.build.adapt.peft.lora import LoRALinear
from windlass.build.adapt.settings import AdapterSettings
from windlass.build.transformer.block import Block
from windlass.build.transformer.linear import Linear
from windlass.core.errors import InputError


def attach(model: nn.Module, settings: AdapterSettings, seed: int, dtype: torch.dtype | None = None) -> None:
    """Freezes the model and puts the adapter's trained numbers into it, in place. `dtype`: what the frozen weights are
    kept in, that of the activations, so that no pass has to cast them.

    Raises `InputError` when the settings name a map that no block has.
    """
    if settings.kind == "none":
        return
    places = list(_places(model))
    names = {name for _, name, _ in places}
    if unknown := [target for target in settings.targets if target not in names]:
        raise InputError(
            f"adapter.targets names '{unknown[0]}', which no block of this model has.",
            f"There are: {', '.join(sorted(names))}.",
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if dtype is not None:
            parameter.data = parameter.data.to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for owner, name, linear in places:
        if name in settings.targets:
            scale = settings.alpha / settings.rank
            setattr(owner, name, LoRALinear(linear, settings.rank, scale, settings.dropout, generator))


def merge(model: nn.Module) -> None:
    """Makes plain float32 maps of all that was attached, in place."""
    for owner, name, linear in list(_places(model)):
        if isinstance(linear, LoRALinear):
            setattr(owner, name, linear.merged())
    for parameter in model.parameters():
        parameter.data = parameter.data.float()


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, Linear]]:
    """Every map inside the blocks: whose it is, and under what name."""
    for block in model.modules():
        if isinstance(block, Block):
            for owner in block.modules():
                for name, child in owner.named_children():
                    if isinstance(child, Linear):
                        yield owner, name, child

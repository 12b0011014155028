"""Two optimizers that step as one: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (Jordan 2024; Liu et al., arXiv 2502.16982) replaces the gradient's momentum by the nearest orthogonal matrix, so
that all directions of a matrix learn at the same pace. Embedding and head are tables rather than maps, and norms are
vectors; for them AdamW is the better choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from windlass.build.training.distributed.pieces import whole
from windlass.build.training.optim.adamw8 import AdamW8
from windlass.build.training.optim.adamw_rows import RowAdamW, numbers_of
from windlass.build.training.optim.groups import Group
from windlass.build.training.optim.muon import Muon
from windlass.build.training.settings import OptimizerSettings


class Optimizers:
    """`clip`, then `step(multiplier)` applies the gradients; `tensors` is the whole state, from the beginning on."""

    def __init__(self, model: nn.Module, groups: Sequence[Group], settings: OptimizerSettings) -> None:
        """Of the parameters in `groups`; the others stay as they are."""
        muon = settings.kind == "muon"
        groups = [group for group in groups if group.parameters]
        self.rate = max((group.rate for group in groups if group.matrices), default=0.0)
        """Peak rate of the matrices, as it is logged."""
        self._all: list[torch.optim.Optimizer] = []
        if by_muon := [_options(group) for group in groups if muon and group.matrices]:
            self._all.append(Muon(by_muon, lr=self.rate, momentum=settings.momentum))
        if by_adamw := [_options(group) for group in groups if not (muon and group.matrices)]:
            adamw = AdamW8 if settings.kind == "adamw8" else partial(RowAdamW, fused=True)
            self._all.append(adamw(by_adamw, betas=settings.betas, eps=settings.eps, weight_decay=0.0))
        self._rates = [[g["lr"] for g in o.param_groups] for o in self._all]
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        chosen = set(map(id, self._parameters))
        self.named = {name: p for name, p in model.named_parameters() if id(p) in chosen}
        self._limit = settings.clip
        for optimizer in self._all:
            for options in optimizer.param_groups:
                for parameter in options["params"]:
                    optimizer.state[parameter] = _fresh(optimizer, parameter)

    def clip(self) -> float:
        """Shortens the whole gradient to the limit; returns its norm before."""
        gradients = [numbers_of(parameter) for parameter in self._parameters if parameter.grad is not None]
        norm = float(whole(nn.utils.get_total_norm(gradients)))
        if norm > self._limit:
            for gradient in gradients:
                gradient.mul_(self._limit / norm)
        return norm

    def step(self, multiplier: float) -> None:
        """Applies the gradients with all rates times `multiplier`, and clears them."""
        for optimizer, rates in zip(self._all, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * multiplier
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by the parameter's name and the optimizer's name for it; to be filled in place."""
        for optimizer in self._all:
            if isinstance(optimizer, RowAdamW):
                optimizer.forget()
        return {
            f"{name}/{key}": value
            for optimizer in self._all
            for name, parameter in self.named.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }


def _fresh(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """The state before the first step, which PyTorch's optimizers would make in it: so a checkpoint has where to go."""
    if isinstance(optimizer, Muon):
        return {"momentum_buffer": torch.zeros_like(parameter)}
    if isinstance(optimizer, AdamW8):
        return optimizer.fresh(parameter)
    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=parameter.device), **moments}


def _options(group: Group) -> dict[str, Any]:
    return {"params": group.parameters, "lr": group.rate, "weight_decay": group.decay}

"""Two optimizers that step as one: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (Jordan 2024; Liu et al., arXiv 2502.16982) replaces the gradient's momentum by the nearest orthogonal matrix, so
that all directions of a matrix learn at the same pace. Embedding and head are tables rather than maps, and norms are
vectors; for them AdamW is the better choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from windlass.build.training.settings import OptimizerSettings
from windlass.build.training.sizes import Sizes
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError


class Optimizers:
    """`clip`, then `step(multiplier)` applies the gradients; `tensors` and `load` carry the state along."""

    def __init__(self, model: Decoder, sizes: Sizes, settings: OptimizerSettings) -> None:
        self.named = dict(model.named_parameters())
        matrices = [n for n, p in self.named.items() if "blocks." in n and p.ndim == 2]
        embeddings = [n for n in self.named if n == "embedding"]
        rest = [n for n in self.named if n not in {*matrices, *embeddings}]
        tied_rate = sizes.head_rate if model.config.tied else sizes.embedding_rate
        groups = [
            {"params": [self.named[n] for n in embeddings], "lr": tied_rate},
            {"params": [self.named[n] for n in rest], "lr": sizes.head_rate},
        ]
        inside = [self.named[n] for n in matrices]
        self._all: list[torch.optim.Optimizer] = []
        if settings.kind == "muon":
            self._all.append(
                torch.optim.Muon(
                    inside,
                    lr=sizes.matrix_rate,
                    momentum=settings.momentum,
                    weight_decay=settings.weight_decay,
                    adjust_lr_fn="original",
                )
            )
        else:
            groups.append({"params": inside, "lr": sizes.matrix_rate, "weight_decay": settings.weight_decay})
        self._all.append(torch.optim.AdamW(groups, betas=settings.betas, eps=1e-10, weight_decay=0.0, fused=True))
        self._rates = [[g["lr"] for g in o.param_groups] for o in self._all]
        self._parameters: list[nn.Parameter] = list(model.parameters())
        self._limit = settings.clip

    def clip(self) -> float:
        """Shortens the whole gradient to the limit; returns its norm before."""
        return float(nn.utils.clip_grad_norm_(self._parameters, self._limit))

    def step(self, multiplier: float) -> None:
        """Applies the gradients with all rates times `multiplier`, and clears them."""
        for optimizer, rates in zip(self._all, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * multiplier
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by the parameter's name and the optimizer's name for it."""
        return {
            f"{name}/{key}": value
            for optimizer in self._all
            for name, parameter in self.named.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up the state that `tensors` gave."""
        owners = {p: o for o in self._all for g in o.param_groups for p in g["params"]}
        for name, parameter in self.named.items():
            found = {k.rpartition("/")[2]: v for k, v in tensors.items() if k.rpartition("/")[0] == name}
            if not found:
                raise InputError(f"The checkpoint lacks the optimizer's state of '{name}'.", "Start the run anew.")
            owners[parameter].state[parameter] = found

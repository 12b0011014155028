"""Two optimizers that step as one: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (Jordan 2024; Liu et al., arXiv 2502.16982) replaces the gradient's momentum by the nearest orthogonal matrix, so
that all directions of a matrix learn at the same pace. Embedding and head are tables rather than maps, and norms are
vectors; for them AdamW is the better choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from windlass.build.training.recipe import Recipe
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError


class Optimizers:
    """`step(multiplier)` applies the gradients; `tensors` and `load` carry the whole state through a checkpoint."""

    def __init__(self, model: Decoder, recipe: Recipe) -> None:
        self.named = dict(model.named_parameters())
        matrices = [n for n, p in self.named.items() if n.startswith("blocks.") and p.ndim == 2]
        embedding = [n for n in self.named if n == "embedding"]
        rest = [n for n in self.named if n not in {*matrices, *embedding}]
        tied_rate = recipe.head_rate if model.config.tied else recipe.embedding_rate
        groups = [
            {"params": [self.named[n] for n in embedding], "lr": tied_rate},
            {"params": [self.named[n] for n in rest], "lr": recipe.head_rate},
        ]
        self._muon = torch.optim.Muon(
            [self.named[n] for n in matrices],
            lr=recipe.matrix_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="original",
        )
        self._adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
        self._rates = [[g["lr"] for g in o.param_groups] for o in self._all]
        self._parameters: list[nn.Parameter] = list(model.parameters())
        self._clip = recipe.clip

    @property
    def _all(self) -> tuple[torch.optim.Optimizer, ...]:
        return (self._muon, self._adamw)

    def step(self, multiplier: float) -> float:
        """Clips the gradients, applies them with all rates times `multiplier`, and clears them.

        Returns the gradient's norm before clipping.
        """
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._clip))
        for optimizer, rates in zip(self._all, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * multiplier
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

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

"""Two optimizers that step as one: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (Jordan 2024; Liu et al., arXiv 2502.16982) replaces the gradient's momentum by the nearest orthogonal matrix, so
that all directions of a matrix learn at the same pace. Embedding and head are tables rather than maps, and norms are
vectors; for them AdamW is the better choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from windlass.build.training.muon import Muon
from windlass.build.training.pieces import whole
from windlass.build.training.settings import OptimizerSettings
from windlass.build.training.sizes import Sizes
from windlass.build.transformer.decoder import Decoder


class Optimizers:
    """`clip`, then `step(multiplier)` applies the gradients; `tensors` is the whole state, from the beginning on."""

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
                Muon(inside, lr=sizes.matrix_rate, momentum=settings.momentum, weight_decay=settings.weight_decay)
            )
        else:
            groups.append({"params": inside, "lr": sizes.matrix_rate, "weight_decay": settings.weight_decay})
        self._all.append(torch.optim.AdamW(groups, betas=settings.betas, eps=1e-10, weight_decay=0.0, fused=True))
        self._rates = [[g["lr"] for g in o.param_groups] for o in self._all]
        self._parameters: list[nn.Parameter] = list(model.parameters())
        self._limit = settings.clip
        for optimizer in self._all:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    optimizer.state[parameter] = _fresh(optimizer, parameter)

    def clip(self) -> float:
        """Shortens the whole gradient to the limit; returns its norm before."""
        return float(whole(nn.utils.clip_grad_norm_(self._parameters, self._limit)))

    def step(self, multiplier: float) -> None:
        """Applies the gradients with all rates times `multiplier`, and clears them."""
        for optimizer, rates in zip(self._all, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * multiplier
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by the parameter's name and the optimizer's name for it; to be filled in place."""
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
    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=parameter.device), **moments}

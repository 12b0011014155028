"""Two optimizers that step as one: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (Jordan 2024; Liu et al., arXiv 2502.16982) replaces the gradient's momentum by the nearest orthogonal matrix, so
that all directions of a matrix learn at the same pace. Embedding and head are tables rather than maps, and norms are
vectors; for them AdamW is the better choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from windlass.build.training.distributed.pieces import whole
from windlass.build.training.optim.adamw8 import AdamW8
from windlass.build.training.optim.muon import Muon
from windlass.build.training.settings import OptimizerSettings
from windlass.build.training.sizes import Sizes
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.model import Model


class Optimizers:
    """`clip`, then `step(multiplier)` applies the gradients; `tensors` is the whole state, from the beginning on."""

    def __init__(self, model: Model, sizes: Sizes, settings: OptimizerSettings) -> None:
        self.named = dict(model.named_parameters())
        roles: dict[str, list[nn.Parameter]] = {role: [] for role in ("embedding", "rest", "matrix", "query")}
        for name, parameter in self.named.items():
            roles[_role(name, parameter)].append(parameter)
        tied_rate = sizes.head_rate if model.config.tied else sizes.embedding_rate
        groups: list[dict[str, Any]] = [
            {"params": roles["embedding"], "lr": tied_rate},
            {"params": roles["rest"], "lr": sizes.head_rate},
        ]
        self._all: list[torch.optim.Optimizer] = []
        decay = settings.weight_decay
        slow = _query_rate(model.config)
        matrices: list[dict[str, Any]] = [
            {"params": roles["matrix"], "lr": sizes.matrix_rate, "weight_decay": decay},
            {"params": roles["query"], "lr": sizes.matrix_rate * slow, "weight_decay": decay / slow},
        ]
        matrices = [group for group in matrices if group["params"]]
        if settings.kind == "muon":
            self._all.append(Muon(matrices, lr=sizes.matrix_rate, momentum=settings.momentum))
        else:
            groups += matrices
        groups = [group for group in groups if group["params"]]
        adamw = AdamW8 if settings.kind == "adamw8" else partial(torch.optim.AdamW, fused=True)
        self._all.append(adamw(groups, betas=settings.betas, eps=1e-10, weight_decay=0.0))
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
    if isinstance(optimizer, AdamW8):
        return optimizer.fresh(parameter)
    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=parameter.device), **moments}


def _role(name: str, parameter: nn.Parameter) -> str:
    """Which group a parameter learns in."""
    if "blocks." in name and parameter.ndim >= 2:
        return "query" if name.endswith(".query.weight") else "matrix"
    tables = ("embedding", "positions", "token_types")
    return "embedding" if name.rpartition(".")[2] in tables else "rest"


def _query_rate(config: TransformerConfig) -> float:
    """Of the queries' matrices, as a share of the others': scores that are not divided by the root of a head's width
    (T5's) move so much more with the same step, and attention would stop at whatever it saw first. With this share and
    small queries to begin with, training is that of divided scores, step for step."""
    return 1.0 if config.qk_norm else config.head_dim**-0.5 / config.score_scale

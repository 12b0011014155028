"""`torch.compile`, when it can help, and without it when it cannot.

Only the repeated parts are compiled: one block, shared by all layers, and the head with its loss. That costs a third
of compiling the whole model and runs as fast (docs/lab.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from windlass.build.training.objective import causal_lm, token_loss
from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError

_WORTH_STEPS = 400
_WORTH_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Forward:
    """The model's two passes, compiled or not."""

    loss: Callable[[Tensor], Tensor]
    """Tokens (B, T + 1) -> mean nats a token."""
    logits: Callable[[Tensor], Tensor]
    """Tokens (B, T) -> logits (B, T, V)."""
    how: str
    """One line that says whether it is compiled and why."""


def forward_of(model: Decoder, settings: PretrainSettings) -> Forward:
    """Chooses as the settings ask and the machine allows. Raises `InputError` when compiling is demanded in vain."""
    dtype = activations(settings)

    def plain(how: str) -> Forward:
        return Forward(lambda tokens: causal_lm(model, tokens, dtype), lambda tokens: model(tokens, dtype=dtype), how)

    if settings.compile == "no":
        return plain("not compiled: switched off")
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        if settings.compile == "yes":
            raise InputError("torch.compile needs a C++ compiler, and none was found.", "Install g++, or set CXX.")
        return plain("not compiled: no C++ compiler found (with one, training would be about twice as fast)")
    if settings.compile == "auto" and not _worth(settings):
        return plain("not compiled: the run is too short to earn the compilation back")
    return _compiled(model, dtype)


def activations(settings: PretrainSettings) -> torch.dtype | None:
    return torch.bfloat16 if settings.precision == "bf16" else None


def _compiled(model: Decoder, dtype: torch.dtype | None) -> Forward:
    blocks = [torch.compile(block, dynamic=False) for block in model.blocks]

    @torch.compile(dynamic=False)
    def tail(x_BTC: Tensor, targets_BT: Tensor) -> Tensor:
        return token_loss(model.logits(model.norm(x_BTC)), targets_BT)

    def stream(tokens_BT: Tensor) -> Tensor:
        x_BTC, sights = model.start(tokens_BT, dtype=dtype)
        for block, sight in zip(blocks, sights, strict=True):
            x_BTC = block(x_BTC, sight)
        return x_BTC

    def loss(tokens_BT: Tensor) -> Tensor:
        result: Tensor = tail(stream(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        return result

    return Forward(
        loss,
        lambda tokens_BT: model.logits(model.norm(stream(tokens_BT))),
        "compiled by torch.compile: the first step takes longer",
    )


def _worth(settings: PretrainSettings) -> bool:
    budget = settings.budget_s
    return settings.steps is not None and settings.steps >= _WORTH_STEPS if budget is None else budget >= _WORTH_SECONDS

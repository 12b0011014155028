"""`torch.compile`, when it can help, and without it when it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from windlass.build.training.objective import causal_lm
from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError

LossFunction = Callable[[Tensor], Tensor]

_WORTH_STEPS = 400
_WORTH_SECONDS = 90.0


def loss_function(model: Decoder, settings: PretrainSettings) -> tuple[LossFunction, str]:
    """Tokens (B, T + 1) -> loss, and one line that says whether it is compiled and why."""
    dtype = activations(settings)

    def plain(tokens_BT: Tensor) -> Tensor:
        return causal_lm(model, tokens_BT, dtype)

    if settings.compile == "no":
        return plain, "not compiled: switched off"
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        if settings.compile == "yes":
            raise InputError("torch.compile needs a C++ compiler, and none was found.", "Install g++, or set CXX.")
        return plain, "not compiled: no C++ compiler found (training would be about 1.4 times as fast)"
    if settings.compile == "auto" and not _worth(settings):
        return plain, "not compiled: the run is too short to earn the compilation back"
    return torch.compile(plain, dynamic=False), "compiled by torch.compile: the first step takes longer"


def activations(settings: PretrainSettings) -> torch.dtype | None:
    return torch.bfloat16 if settings.precision == "bf16" else None


def _worth(settings: PretrainSettings) -> bool:
    budget = settings.budget_s
    return settings.steps is not None and settings.steps >= _WORTH_STEPS if budget is None else budget >= _WORTH_SECONDS

"""`torch.compile`, when it can help, and without it when it cannot.

Only the repeated parts are compiled: one block, shared by all layers, and the head with its loss. That costs a third
of compiling the whole model and runs as fast (docs/lab.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from windlass.build.training.head import Head
from windlass.build.training.objectives import Arithmetic, arithmetic
from windlass.build.training.settings import (
    PretrainSettings,
    RunSettings,
    ScheduleSettings,
    budget_seconds,
    dtype_of,
)
from windlass.build.transformer.block import Block
from windlass.build.transformer.model import Model
from windlass.core.errors import InputError

_WORTH_STEPS = 400
_WORTH_SECONDS = 90.0


def prepare(model: Model, settings: PretrainSettings) -> tuple[Arithmetic, str]:
    """Compiles the model's blocks in place, as the settings ask and the machine allows, and says so in one line.

    Raises `InputError` when compiling is demanded in vain.
    """
    compiler, how = prepare_blocks(model, settings.run, settings.schedule)
    asked = settings.objective
    math = arithmetic(
        model,
        dtype=dtype_of(settings.run),
        accuracy=settings.objective_kind != "causal",
        routing_weight=asked.routing_weight,
        temperature=asked.temperature,
        compiler=compiler,
    )
    return math, how


def prepare_blocks(
    model: nn.Module, run: RunSettings, schedule: ScheduleSettings
) -> tuple[Callable[[Head], Head] | None, str]:
    """Compiles the blocks of whatever model in place; what compiles its head, if anything, and what was done."""
    compiles, how = _decide(run, schedule)
    for block in model.modules():
        if isinstance(block, Block):
            # On the instance: the names of the weights stay as they are.
            drawing = any(getattr(module, "dropout", 0) for module in block.modules())
            block.forward = _prepared(block.forward, compiles, run.recompute, drawing)  # type: ignore[method-assign]
    return (partial(torch.compile, dynamic=False) if compiles else None), how


def _prepared(forward: Callable[..., Tensor], compiles: bool, recompute: bool, drawing: bool) -> Callable[..., Tensor]:
    """`drawing`: the pass draws random numbers (dropout), which it must draw again when it is computed again."""
    if compiles:
        forward = torch.compile(forward, dynamic=False)
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=drawing) if recompute else forward


def _decide(run: RunSettings, schedule: ScheduleSettings) -> tuple[bool, str]:
    asked = run.compile
    if asked == "no":
        return False, "not compiled: switched off"
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        if asked == "yes":
            raise InputError("torch.compile needs a C++ compiler, and none was found.", "Install g++, or set CXX.")
        return False, "not compiled: no C++ compiler found (with one, training would be about twice as fast)"
    if asked == "auto" and not _worth(schedule):
        return False, "not compiled: the run is too short to earn the compilation back"
    return True, "compiled by torch.compile: the first step takes longer"


def _worth(schedule: ScheduleSettings) -> bool:
    budget, steps = budget_seconds(schedule), schedule.steps
    return steps is not None and steps >= _WORTH_STEPS if budget is None else budget >= _WORTH_SECONDS

"""The training loop: one step at a time, its whole state in one value that a checkpoint can carry."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from windlass.build.training.batches import DataState, next_batch
from windlass.build.training.optimizers import Optimizers
from windlass.build.training.pace import Pace
from windlass.build.training.recipe import Recipe
from windlass.build.training.schedule import Plan
from windlass.build.training.shard import Shard
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError, WindlassError


@dataclass(slots=True)
class TrainState:
    """All that the next step depends on. The order of the data is a function of seed and `data`, and nothing else
    in the loop draws random numbers, so this is the random state too."""

    model: Decoder
    optimizers: Optimizers
    plan: Plan
    data: DataState = field(default_factory=DataState)
    step: int = 0
    """Steps done."""

    def tensors(self) -> dict[str, Tensor]:
        model = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        return model | {f"optimizer/{name}": tensor for name, tensor in self.optimizers.tensors().items()}

    def facts(self) -> dict[str, Any]:
        return {"step": self.step, "data": asdict(self.data), "plan": asdict(self.plan)}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes up what `tensors` and `facts` gave."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            parts[kind][name] = tensor
        try:
            self.model.load_state_dict(parts["model"])
        except RuntimeError as error:
            raise InputError(f"The checkpoint does not fit the model: {error}.", "Start the run anew.") from error
        self.optimizers.load(parts["optimizer"])
        self.step = facts["step"]
        self.data = DataState(**facts["data"])
        self.plan = Plan(**facts["plan"])


@dataclass(frozen=True, slots=True)
class StepReport:
    step: int
    """Steps done, this one included."""
    loss: float
    """Nats a token, before the step's update."""
    gradient_norm: float
    multiplier: float
    """Of the learning rates."""
    seconds: float


def steps(
    state: TrainState, shard: Shard, recipe: Recipe, loss_of: Callable[[Tensor], Tensor], seed: int, pace: Pace | None
) -> Iterator[StepReport]:
    """Trains until the plan's end, yielding after every step; `state` is then whole and may be saved.

    With a `pace` the plan follows the clock. Raises `WindlassError` when the loss is no longer a number; the weights
    are then those of before the step.
    """
    while True:
        if pace is not None:
            state.plan = pace.plan(state.plan, state.step, recipe.cooldown, recipe.warmup_steps)
            if state.step and pace.must_stop():
                return
        if state.step >= state.plan.steps:
            return
        began = time.perf_counter()
        tokens, data = next_batch(shard, state.data, batch=recipe.batch, context=recipe.model.context, seed=seed)
        loss = loss_of(tokens)
        torch.autograd.backward(loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise WindlassError(
                f"The loss became {value} in step {state.step + 1}; training stopped before using it.",
                "Try fp32 precision or a smaller depth; the last checkpoint holds the state before.",
            )
        multiplier = state.plan.multiplier(state.step, recipe.warmup_steps)
        norm = state.optimizers.step(multiplier)
        state.data, state.step = data, state.step + 1
        seconds = time.perf_counter() - began
        if pace is not None:
            pace.measured(seconds)
        yield StepReport(state.step, value, norm, multiplier, seconds)

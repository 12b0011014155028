"""The training loop: one step at a time, its whole state in one value that a checkpoint can carry."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from windlass.build.training.batches import Batch, DataState, Examples, take
from windlass.build.training.objectives import Loss
from windlass.build.training.optimizers import Optimizers
from windlass.build.training.pace import Pace
from windlass.build.training.schedule import Plan
from windlass.build.training.settings import ScheduleSettings
from windlass.build.training.sizes import Sizes
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
    """Nats per counted target, before the step's update."""
    counted: int
    """Targets that counted."""
    tokens: int
    """Positions that the model read."""
    gradient_norm: float
    multiplier: float
    """Of the learning rates."""
    seconds: float


def steps(
    state: TrainState,
    examples: Examples,
    loss_of: Callable[[Batch], Loss],
    sizes: Sizes,
    schedule: ScheduleSettings,
    seed: int,
    pace: Pace | None,
) -> Iterator[StepReport]:
    """Trains until the plan's end, yielding after every step; `state` is then whole and may be saved.

    With a `pace` the plan follows the clock. Raises `Diverged` when loss or gradient is no longer a number; the weights
    are then those of before the step.
    """
    while True:
        if pace is not None:
            state.plan = pace.plan(state.plan, state.step, schedule.cooldown, sizes.warmup_steps)
            if state.step and pace.must_stop():
                return
        if state.step >= state.plan.steps:
            return
        began = time.perf_counter()
        numbers, data = take(examples, state.data, sizes.batch, seed)
        batches = [
            examples.batch(numbers[i : i + sizes.micro_batch]) for i in range(0, len(numbers), sizes.micro_batch)
        ]
        loss, counted = accumulate(batches, loss_of)
        multiplier = state.plan.multiplier(state.step, sizes.warmup_steps)
        norm = state.optimizers.clip()
        for name, value in (("loss", loss), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise Diverged(f"The {name} became {value} in step {state.step + 1}; training stopped before using it.")
        state.optimizers.step(multiplier)
        state.data, state.step = data, state.step + 1
        seconds = time.perf_counter() - began
        if pace is not None:
            pace.measured(seconds)
        tokens = sum(batch.tokens for batch in batches)
        yield StepReport(state.step, loss, counted, tokens, norm, multiplier, seconds)


def accumulate(batches: list[Batch], loss_of: Callable[[Batch], Loss]) -> tuple[float, int]:
    """Adds up the gradients of one step's passes; returns the mean loss and the number of targets that counted.

    Each pass is divided by the count of *all* passes, so that a step is the same however it is divided into passes. A
    mean of the passes' means would give targets in sparse passes more weight.
    """
    counted = sum(batch.counted for batch in batches)
    if not counted:
        raise WindlassError("A training step has no target that counts.", "Look at the corpus and the objective.")
    total = torch.zeros(())
    for batch in batches:
        loss = loss_of(batch).sum / counted
        torch.autograd.backward(loss)
        total = total + loss.detach()
    return float(total), counted


class Diverged(WindlassError):
    """Training left the road. The last checkpoint holds the state before."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            "Try lower rates (--set optimizer.matrix_rate=...), a longer warm-up (--set schedule.warmup_steps=...), or "
            '--set run.precision="fp32".',
        )

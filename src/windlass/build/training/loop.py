"""The training loop: one step at a time, its whole state in one value that a checkpoint can carry."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from windlass.build.training.checkpoints.checkpoint import Checkpoint
from windlass.build.training.data.batches import Batch, DataState, Examples, OnPolicy, take, updates
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import ALONE, Workers
from windlass.build.training.guard import Guard, check_finite
from windlass.build.training.measuring.flops import training_flops
from windlass.build.training.objectives import Loss
from windlass.build.training.optim.average import Average
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan, multiplier
from windlass.build.training.pace import Pace
from windlass.build.training.settings import ScheduleSettings
from windlass.core.errors import WindlassError


@dataclass(slots=True)
class TrainState:
    """All that the next step depends on, the same on all workers. The order of the data is a function of seed and
    `data`, and what a step draws (dropout) one of seed and `step`, so this is the random state too."""

    model: nn.Module
    optimizers: Optimizers
    plan: Plan
    average: Average | None = None
    guard: Guard = field(default_factory=Guard)
    data: DataState = field(default_factory=DataState)
    step: int = 0
    """Steps done."""
    tokens_read: int = 0
    """Positions that the model has read in them."""

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes: weights that stay as they are come from where they came from."""
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        weights = {name: tensor for name, tensor in self.model.state_dict().items() if name not in frozen}
        parts = {"model": weights, "optimizer": self.optimizers.tensors()}
        if self.average is not None:
            parts["average"] = self.average.tensors
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def facts(self) -> dict[str, Any]:
        parts = {"data": asdict(self.data), "plan": asdict(self.plan), "guard": asdict(self.guard)}
        return {"step": self.step, "tokens_read": self.tokens_read, **parts}

    def take_up(self, saved: Checkpoint) -> None:
        """Goes on from a checkpoint. Raises `InputError` naming a tensor that does not fit."""
        saved.restore(self.tensors())
        self.step, self.tokens_read = saved.facts["step"], saved.facts["tokens_read"]
        self.data = DataState(**saved.facts["data"])
        self.plan = Plan(**saved.facts["plan"])
        self.guard = Guard(**saved.facts["guard"])


class StepSizes(Protocol):
    """What the loop asks of a run's sizes."""

    @property
    def batch(self) -> int:
        """Examples per step, on all workers together."""
        ...

    @property
    def micro_batch(self) -> int:
        """Examples in one pass."""
        ...

    @property
    def warmup_steps(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StepReport:
    step: int
    """Steps done, this one included."""
    loss: float
    """Nats per counted target, before the step's first update."""
    counted: int
    """Targets that counted."""
    tokens: int
    """Positions that the model read."""
    flops: float
    """Floating-point operations that the step needs, forward and backward."""
    gradient_norm: float
    multiplier: float
    """Of the learning rates."""
    seconds: float


def steps(
    state: TrainState,
    examples: Examples | OnPolicy,
    loss_of: Spread,
    sizes: StepSizes,
    schedule: ScheduleSettings,
    seed: int,
    pace: Pace | None,
) -> Iterator[StepReport]:
    """Trains until the plan's end, yielding after every step; `state` is then whole and may be saved.

    With a `pace` the plan follows the leader's clock. Raises `Diverged` when loss or gradient is no longer a number, or
    the loss climbed and stayed up; the weights are then those of before the step.
    """
    workers = loss_of.workers
    while True:
        if pace is not None:
            plan = pace.plan(state.plan, state.step)
            *plan_, stop = workers.led(*astuple(plan), pace.must_stop())
            state.plan = Plan(*(type(mine)(theirs) for mine, theirs in zip(astuple(plan), plan_)))
            if state.step and stop:
                return
        if state.step >= state.plan.steps:
            return
        began = time.perf_counter()
        numbers, data = take(examples, state.data, sizes.batch, seed)
        passes = updates(examples, workers.share(numbers), state.step, sizes.micro_batch)
        torch.manual_seed(random.Random(f"{seed}/{state.step}/{workers.number}").getrandbits(63))
        height = multiplier(schedule, state.plan, state.step, sizes.warmup_steps)
        (loss, counted, norm), *_ = [_update(state, batches, loss_of, height) for batches in passes]
        state.data, state.step = data, state.step + 1
        if state.average is not None:
            state.average.update(state.step)
        seconds = time.perf_counter() - began
        if pace is not None:
            pace.measured(seconds)
        tokens, flops = workers.total(
            sum(batch.tokens for batches in passes for batch in batches),
            sum(training_flops(state.model, batch).total for batches in passes for batch in batches),
        )
        state.tokens_read += int(tokens)
        yield StepReport(state.step, loss, counted, int(tokens), flops, norm, height, seconds)


def _update(state: TrainState, batches: Sequence[Batch], loss_of: Spread, height: float) -> tuple[float, int, float]:
    """One update of the weights; the loss before it, its targets, and the gradient's norm."""
    loss, counted = accumulate(loss_of.surveyed(batches), loss_of, loss_of.workers, loss_of.exchange)
    norm = state.optimizers.clip()
    check_finite(state.step + 1, loss=loss, gradient_norm=norm)
    state.guard.watch(state.step + 1, loss)
    state.optimizers.step(height)
    return loss, counted, norm


def accumulate(
    batches: Sequence[Batch],
    loss_of: Callable[[Batch], Loss],
    workers: Workers = ALONE,
    exchange: Callable[[bool], None] = lambda last: None,
) -> tuple[float, int]:
    """Adds up the gradients of one step's passes; returns the mean loss and the number of targets that counted.

    Each pass is divided by the count of *all* passes on all workers, so that a step is the same however it is divided
    among them. A mean of the passes' means would give targets in sparse passes more weight. `exchange` is told before
    each pass whether it is this worker's last one.
    """
    (counted,) = workers.total(sum(batch.counted for batch in batches))
    if not counted:
        raise WindlassError("A training step has no target that counts.", "Look at the corpus and the objective.")
    nats = torch.zeros((), device=workers.device)
    for number, batch in enumerate(batches, start=1):
        exchange(number == len(batches))
        loss = loss_of(batch).sum / (counted / workers.count)  # the workers' gradients are averaged, not added
        torch.autograd.backward(loss)
        nats += loss.detach()
    (summed,) = workers.total(float(nats))
    return summed / workers.count, int(counted)

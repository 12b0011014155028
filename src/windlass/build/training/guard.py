"""Notices a run that has left the road: loss, gradient or weight that is no number, or a loss that climbed and stayed
up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from windlass.core.errors import WindlassError

_SMOOTH = 0.95
CLIMB = 1.0
"""Nats per target above the lowest smoothed loss: no good run loses that much for long."""
_PATIENCE = 25
"""Steps in a row above it. A single bad batch, and the dip behind a head start, pass by."""


class Diverged(WindlassError):
    """Training left the road."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            "Try lower rates (--set optimizer.matrix_rate=...), a longer warm-up (--set schedule.warmup_steps=...), a "
            "tighter clip (--set optimizer.clip=0.5), or --set run.precision=fp32.",
        )


class NotFinite(Diverged):
    """Loss or gradient is no number. The weights are still those of before the step."""


def check_finite(step: int, **values: float) -> None:
    """Raises `NotFinite` naming the first value that is no number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(
                f"The {name.replace('_', ' ')} became {value} in step {step:,}; training stopped before using it."
            )


def check_end(steps: int, model: nn.Module, loss: float) -> None:
    """What is wrong with the last step shows in no step after it, so it is looked for before anything is stored.

    Raises `Diverged` where the held-out `loss` is no number, or naming the first trained weight that holds one that is
    not finite.
    """
    ended = f"Training ended after {steps:,} {'step' if steps == 1 else 'steps'}"
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.isfinite().all():
            raise Diverged(f"{ended} with numbers in {name} that are not finite; nothing was stored.")
    if not math.isfinite(loss):
        raise Diverged(f"{ended} with a held-out loss of {loss}; nothing was stored.")


@dataclass(slots=True)
class Guard:
    """Follows the smoothed loss. Its fields are its whole state, for a checkpoint."""

    smooth: float | None = None
    lowest: float = math.inf
    lowest_step: int = 0
    above: int = 0

    def watch(self, step: int, loss: float) -> None:
        """Raises `Diverged` when the loss has stayed far above its lowest for long."""
        self.smooth = loss if self.smooth is None else _SMOOTH * self.smooth + (1 - _SMOOTH) * loss
        if self.smooth < self.lowest:
            self.lowest, self.lowest_step = self.smooth, step
        self.above = self.above + 1 if self.smooth > self.lowest + CLIMB else 0
        if self.above >= _PATIENCE:
            raise Diverged(
                f"The loss climbed from {self.lowest:.3f} (step {self.lowest_step:,}) to {self.smooth:.3f} nats and "
                f"stayed up for {_PATIENCE} steps; training stopped at step {step:,}."
            )


@dataclass(slots=True)
class Best:
    """The best of the measurements during training. Its fields are its whole state, for a checkpoint."""

    score: float = math.inf
    """Of its measurement: the loss, or whatever else the run goes by, so turned that smaller is better."""
    step: int = 0
    since: int = 0
    """Measurements after it, none of which was better."""

    def see(self, step: int, score: float) -> None:
        if score < self.score:
            self.score, self.step, self.since = score, step, 0
        else:
            self.since += 1

    def exhausted(self, patience: int | None) -> bool:
        return patience is not None and self.since >= patience

"""What an objective makes of the inputs of a tuning: the parts that the training loop needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import nn

from windlass.build.adapt.settings import TuneSettings
from windlass.build.training.data.batches import Batch, Examples, OnPolicy
from windlass.build.training.distributed.parallel import Spread, Survey
from windlass.build.training.fitting import Measurement, Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import ScheduleSettings

LossOf = Callable[[Batch], Loss]
_BATCH = 8
"""Rows of a step."""


def batch_of(settings: TuneSettings, rows: int) -> int:
    """Rows of a step."""
    return min(settings.data.batch or _BATCH, rows)


def scheduled(settings: TuneSettings, rows: int) -> ScheduleSettings:
    """The schedule with the steps that the epochs come to, where it says of itself neither steps nor minutes."""
    schedule = settings.schedule
    if schedule.steps is not None or schedule.minutes is not None:
        return schedule
    return replace(schedule, steps=max(1, math.ceil(settings.data.epochs * rows / batch_of(settings, rows))))


@dataclass(frozen=True, slots=True)
class Prepared:
    model: nn.Module
    """The base with whatever head the objective needs, and the adapter, if any, inside."""
    loss: LossOf
    examples: Examples | OnPolicy
    """To train on."""
    positions: int
    """Of one row, at most."""
    measure: Callable[[LossOf, int | None, Tick | None], Measurement]
    """On what is held out, with a function that gives the losses of its batches."""
    save: Callable[[Path], None]
    """Writes the trained model to a folder, in Hugging Face layout, or its adapter, in PEFT's."""
    lines: Sequence[str]
    """What was found out, for the person who watches."""
    facts: dict[str, object]
    """The same for the card."""
    kind: Literal["model", "adapter"] = "model"
    """Of the artifact that `save` fills."""
    noted: Callable[[], Mapping[str, float]] = dict
    """What else is logged of each step."""
    begin: Callable[[Spread], None] | None = None
    """Told the model on its device as it is before the first step, also of a run that is taken up later: for what
    depends on the model as it was."""
    survey: Survey | None = None
    """What the passes of a step say together, before any of them."""
    beside: nn.Module | None = None
    """Another model that the loss asks and that is never trained."""

"""What a tuned encoder makes of examples that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from windlass.build.adapt.data.texts import TextExamples
from windlass.build.adapt.objectives.preparing import LossOf
from windlass.build.training.fitting import Tick
from windlass.build.training.measuring.heldout import spread
from windlass.build.training.objectives import Loss

_ROWS = 32
"""Examples measured at a time."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Implements `training.fitting.Measurement`."""

    loss: float
    values: Mapping[str, float]
    said: str

    def metrics(self) -> dict[str, float]:
        return {"heldout_loss": self.loss} | {f"heldout_{name}": value for name, value in self.values.items()}

    def __str__(self) -> str:
        return f"{self.said} (loss {self.loss:.4f})"


@torch.no_grad()
def looked(
    loss_of: LossOf, examples: TextExamples, most: int | None, tick: Tick | None, rows: int = _ROWS
) -> Iterator[tuple[list[int], Loss]]:
    """The loss of all examples, or of about `most`, with the numbers of those in each pass; short ones first."""
    numbers = sorted(spread(examples, most), key=lambda number: len(examples[number]))
    done = 0
    for start in range(0, len(numbers), rows):
        group = numbers[start : start + rows]
        yield group, loss_of(examples.batch([(0, number) for number in group]))
        done += len(group)
        if tick is not None:
            tick(done)

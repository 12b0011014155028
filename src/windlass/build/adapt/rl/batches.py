"""Answers as rows of a batch, several in one, with all that a loss needs at each token that was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from windlass.build.adapt.data.packing import PADDING, packed
from windlass.build.adapt.rl.prompts import Prompt
from windlass.build.adapt.rl.rollouts import Rollout
from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.training.objectives import needed


@dataclass(frozen=True, slots=True)
class RLBatch(Batch):
    """What stands at each target that counts; elsewhere it is 0."""

    advantages_BT: Tensor | None = None
    shares_BT: Tensor | None = None
    """What each token weighs."""
    counts_B: Tensor | None = None
    """What each row adds to the count that the step's sum is divided by."""
    sampler_BT: Tensor | None = None
    """Log-probabilities as the sampler reported them,"""
    old_BT: Tensor | None = None
    """as the trainer had them before the step (None: they are those of the pass itself),"""
    reference_BT: Tensor | None = None
    """and as the model before the training has them."""
    values_BT: Tensor | None = None
    """Of the value head, before the step."""
    returns_BT: Tensor | None = None

    @property
    def counted(self) -> int:
        return int(needed(self.counts_B).sum())


class Laid(NamedTuple):
    """Answers laid out in rows."""

    batch: Batch
    rows: list[list[int]]
    """Numbers of the answers in each row, in their order."""

    def placed(self, values: Sequence[Tensor]) -> Tensor:
        """Each answer's values, one for each of its tokens, where its tokens are predicted; (B, T)."""
        flat_N = torch.cat([values[number] for row in self.rows for number in row]).float()
        return torch.zeros(self.batch.targets_BT.shape).masked_scatter(self.batch.targets_BT != IGNORE, flat_N)

    def found(self, flat_N: Tensor, lengths: Sequence[int]) -> dict[int, Tensor]:
        """Values at the targets, in the order of the rows, by the number of the answer that they belong to."""
        order = [number for row in self.rows for number in row]
        return dict(zip(order, torch.split(flat_N, [lengths[number] for number in order]), strict=True))


def lay_out(prompts: Sequence[Prompt], rollouts: Sequence[Rollout], pad: int) -> Laid:
    """Prompts with their answers in rows as long as the longest of them, as few as will do. Only what was written is a
    target."""
    lengths = [len(prompt.tokens) + len(rollout.tokens) for prompt, rollout in zip(prompts, rollouts, strict=True)]
    rows = packed(lengths, max(lengths))
    shape = (len(rows), max(lengths))
    inputs, targets = np.full(shape, pad, np.int64), np.full(shape, IGNORE, np.int64)
    documents = np.full(shape, PADDING, np.int64)
    for row, numbers in enumerate(rows):
        start = 0
        for place, number in enumerate(numbers):
            asked, written = prompts[number].tokens, rollouts[number].tokens
            stop = start + lengths[number]
            inputs[row, start:stop] = (*asked, *written)
            documents[row, start:stop] = place
            targets[row, start + len(asked) - 1 : stop - 1] = written  # each stands where it is predicted
            start = stop
    return Laid(Batch(*map(torch.from_numpy, (inputs, targets, documents))), rows)

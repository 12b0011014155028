"""On-policy distillation: the student answers itself, and the teacher says at each token what it would have said.

A student that only ever reads good answers does not learn to go on from its own mistakes. So in a share of the rows it
answers anew in each step, by the weights as they are, and learns there from the teacher's distributions; the answers
themselves are no examples, and no gradient goes through the drawing of them (GKD: Agarwal et al., arXiv 2306.13649).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from windlass.build.adapt.data.conversations import Encoded
from windlass.build.adapt.data.packing import PackedExamples
from windlass.build.adapt.rl.practice import seed_of
from windlass.build.adapt.rl.prompts import Prompt
from windlass.build.adapt.rl.rollouts import Rollout, Rollouts
from windlass.build.adapt.rl.tally import Tally
from windlass.build.training.data.batches import Batch, Number


@dataclass(slots=True)
class OwnAnswers:
    """Implements `training.data.batches.OnPolicy`. `len` counts rows."""

    rows: Sequence[tuple[Prompt, Encoded]]
    """What is asked, and the whole with the answer that was given."""
    share: float
    """Of the rows, those in which the student answers."""
    write: Callable[[], Rollouts]
    """Who writes for it; asked for when the first answers are wanted."""
    seed: int
    pad: int
    tally: Tally = field(default_factory=Tally)

    def __len__(self) -> int:
        return len(self.rows)

    def updates(self, numbers: Sequence[Number], step: int, size: int) -> Sequence[Sequence[Batch]]:
        """The batches of one step, of `size` rows each: a function of seed, step and weights."""
        seeds = [seed_of(self.seed, step, number, 0) for number in numbers]
        own = [place for place, seed in enumerate(seeds) if random.Random(seed).random() < self.share]
        asked = [self.rows[numbers[place][1]][0].tokens for place in own]
        written = self.write().sample(asked, [seeds[place] for place in own]) if own else []
        read = [self.rows[number][1] for _, number in numbers]
        for place, prompt, rollout in zip(own, asked, written, strict=True):
            read[place] = answered(prompt, rollout)
        self.tally.begin()
        if own:
            self.tally.mean("own_tokens", torch.tensor([len(rollout.tokens) for rollout in written]))
            self.tally.mean("own_cut", torch.tensor([not rollout.ended for rollout in written]))
        return [[self._batch(read[first : first + size]) for first in range(0, len(read), size)]]

    def _batch(self, read: Sequence[Encoded]) -> Batch:
        packed = PackedExamples(read, max(map(len, read)), pad=self.pad)
        return packed.batch([(0, row) for row in range(len(packed))])


def answered(prompt: Sequence[int], rollout: Rollout) -> Encoded:
    tokens = np.array([*prompt, *rollout.tokens], np.int64)
    return Encoded(tokens, np.arange(len(tokens)) >= len(prompt))

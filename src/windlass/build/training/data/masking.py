"""Masked language modelling: some tokens are hidden, and an encoder says what they were.

Devlin et al. (arXiv 1810.04805): of the chosen tokens 80 % become the mask token, 10 % another token and 10 % stay, so
that the encoder must know every token's context whether it sees a mask or not. Each epoch hides others (Liu et al.,
arXiv 1907.11692).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.build.training.data.batches import IGNORE, Batch, Number, Ring, documents, tensor
from windlass.build.training.data.shard import Shard

_MASKED = 0.8
_REPLACED = 0.1


class MaskedExamples:
    """Windows with hidden tokens. What is hidden depends on the seed and the window's number, on nothing else."""

    def __init__(
        self,
        shard: Shard,
        context: int,
        *,
        isolate: bool,
        seed: int,
        share: float,
        mask: int,
        ordinary: NDArray[np.int64],
    ) -> None:
        """`ordinary`: ids of the tokens that may take another's place, none of them special."""
        self._ring, self._isolate, self._seed = Ring(shard, context, seed), isolate, seed
        self._share, self._mask, self._ordinary = share, mask, ordinary

    def __len__(self) -> int:
        return len(self._ring)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        whole, inputs, targets = [], [], []
        for epoch, number in numbers:
            tokens, fresh = self._ring.window(epoch, number)
            hidden, said = self._hide(tokens, fresh, np.random.default_rng([self._seed, epoch, number, 2]))
            whole.append(tokens)
            inputs.append(hidden)
            targets.append(said)
        apart = documents(np.stack(whole), self._ring.shard.separator) if self._isolate else None
        return Batch(tensor(inputs), tensor(targets), None if apart is None else torch.from_numpy(apart))

    def _hide(
        self, tokens: NDArray[np.int64], fresh: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        hidden, targets = tokens.copy(), np.full_like(tokens, IGNORE)
        text = np.flatnonzero(tokens[:fresh] != self._ring.shard.separator)
        chosen = generator.permutation(text)[: max(1, round(self._share * len(text)))]
        targets[chosen] = tokens[chosen]
        fate = generator.random(len(chosen))
        hidden[chosen[fate < _MASKED]] = self._mask
        replaced = chosen[(fate >= _MASKED) & (fate < _MASKED + _REPLACED)]
        hidden[replaced] = generator.choice(self._ordinary, len(replaced))
        return hidden, targets

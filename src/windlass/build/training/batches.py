"""Which tokens come in which step: a pure function of the seed and of a small state that travels with the caller.

The shard is cut into windows of context + 1 tokens (neighbours share one, so every token is predicted once an
epoch); each epoch shifts the cuts and shuffles the windows anew. Nothing is dropped but the ends of the shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.training.shard import Shard
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class DataState:
    """Where the data stands: windows already taken of the current epoch."""

    epoch: int = 0
    position: int = 0


def next_batch(shard: Shard, state: DataState, *, batch: int, context: int, seed: int) -> tuple[Tensor, DataState]:
    """Tokens of shape (batch, context + 1), int64, and the state after them."""
    rows: list[NDArray[Any]] = []
    epoch, position = state.epoch, state.position
    while len(rows) < batch:
        starts = _starts(len(shard), context, seed, epoch)
        for start in starts[position : position + batch - len(rows)]:
            rows.append(shard.tokens[start : start + context + 1])
            position += 1
        if position >= len(starts):
            epoch, position = epoch + 1, 0
    return torch.from_numpy(np.stack(rows).astype(np.int64)), DataState(epoch, position)


@lru_cache(maxsize=4)
def _starts(tokens: int, context: int, seed: int, epoch: int) -> NDArray[np.int64]:
    generator = np.random.default_rng([seed, epoch])
    spare = tokens - 1 - context
    if spare < 0:
        raise InputError(
            f"The training text has {tokens:,} tokens, fewer than one sequence of {context + 1}.",
            "Give more text or a shorter context.",
        )
    shift = int(generator.integers(min(context, spare + 1)))
    starts = np.arange(shift, tokens - context, context, dtype=np.int64)
    generator.shuffle(starts)
    return starts

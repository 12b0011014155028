"""Held-out bits per byte: how many bits the model needs, on average, to spell one byte of text it has not seen.

    bits per byte = sum of nats over all held-out tokens / ln 2 / UTF-8 bytes of the held-out text

It does not depend on the tokenizer, so it compares with compressors. Every token, and the separator after every
document, is predicted exactly once. Windows of the model's whole context overlap: each after the first predicts only
its last `fresh` tokens, so these see at least context - fresh tokens before them, and a document's beginning sees
the end of the one before, behind a separator, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from windlass.build.training.batches import IGNORE, Batch, documents
from windlass.build.training.objectives import Loss
from windlass.build.training.shard import Shard

FRESH = 0.75
"""Share of a window that is predicted; the rest is what it looks back on."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


@torch.no_grad()
def score(
    loss_of: Callable[[Batch], Loss],
    context: int,
    shard: Shard,
    *,
    isolate: bool = False,
    batch: int = 8,
    tick: Callable[[int], None] | None = None,
) -> HeldOut:
    """Scores the whole shard with the causal loss of a model that reads `context` tokens.

    All batches have one shape, so that a compiled model is compiled once. `tick` is told the number of tokens
    predicted so far.
    """
    nats, done = 0.0, 0
    length = min(context, len(shard) - 1)
    windows = _windows(len(shard) - 1, length)
    for i in range(0, len(windows), batch):
        rows = windows[i : i + batch]
        rows += [(rows[-1][0], length)] * (min(batch, len(windows)) - len(rows))  # filling, predicts nothing
        tokens = np.stack([shard.tokens[a : a + length + 1] for a, _ in rows]).astype(np.int64)
        skipped = np.arange(length) < np.array([skip for _, skip in rows])[:, None]
        apart = documents(tokens[:, :-1], shard.separator) if isolate else None
        loss = loss_of(
            Batch(
                torch.from_numpy(tokens[:, :-1]),
                torch.from_numpy(np.where(skipped, IGNORE, tokens[:, 1:])),
                None if apart is None else torch.from_numpy(apart),
            )
        )
        nats += float(loss.sum)
        done += loss.counted
        if tick is not None:
            tick(done)
    assert done == len(shard) - 1, f"{done} tokens predicted of {len(shard) - 1}"
    return HeldOut(nats, done, shard.bytes)


def _windows(last: int, length: int) -> list[tuple[int, int]]:
    """(start, how many first predictions to skip) of windows that predict tokens 1 to `last` exactly once."""
    fresh = max(1, int(length * FRESH))
    windows = [(0, 0)]
    covered = length
    while covered < last:
        covered = min(covered + fresh, last)
        before = windows[-1][0] + length
        windows.append((covered - length, length - (covered - before)))
    return windows

"""Held-out bits per byte: how many bits the model needs, on average, to spell one byte of text it has not seen.

    bits per byte = sum of nats over all held-out tokens / ln 2 / UTF-8 bytes of the held-out text

It does not depend on the tokenizer, so it compares with compressors. Every token, and the separator after every
document, is predicted exactly once. Windows of the model's whole context overlap: each after the first predicts only
its last `fresh` tokens, so these see at least context - fresh tokens before them, and a document's beginning sees
the end of the one before, behind a separator, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from windlass.build.training.shard import Shard
from windlass.build.transformer.decoder import Decoder

FRESH = 0.5
"""Share of a window that is predicted; the rest is what it looks back on."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


@torch.inference_mode()
def score(
    model: Decoder,
    shard: Shard,
    *,
    batch: int = 16,
    dtype: torch.dtype | None = None,
    tick: Callable[[int], None] | None = None,
) -> HeldOut:
    """Scores the whole shard; `tick` is told the number of tokens predicted so far."""
    nats, done = 0.0, 0
    for tokens, predicted in _windows(shard, model.config.context, batch):
        logits = model(tokens[:, :-1], dtype=dtype)
        keep = slice(logits.shape[1] - predicted, None)
        loss = F.cross_entropy(logits[:, keep].flatten(0, 1).float(), tokens[:, 1:][:, keep].flatten(), reduction="sum")
        nats += float(loss)
        done += predicted * len(tokens)
        if tick is not None:
            tick(done)
    assert done == len(shard) - 1, f"{done} tokens predicted of {len(shard) - 1}"
    return HeldOut(nats, done, shard.bytes)


def _windows(shard: Shard, context: int, batch: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Batches (tokens of one length, how many last ones to predict) that cover tokens 1 … end exactly once."""
    fresh = max(1, int(context * FRESH))
    last = len(shard) - 1  # index of the last token to predict
    first = min(context, last)
    yield _stack(shard, [(0, first)]), first
    ends = list(range(first + fresh, last + 1, fresh))
    for i in range(0, len(ends), batch):
        yield _stack(shard, [(end - context, end) for end in ends[i : i + batch]]), fresh
    covered = ends[-1] if ends else first
    if covered < last:
        yield _stack(shard, [(max(0, last - context), last)]), last - covered


def _stack(shard: Shard, spans: list[tuple[int, int]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([shard.tokens[a : b + 1] for a, b in spans]).astype(np.int64))

"""What a model makes of text that it has not seen.

A decoder is measured in bits per byte: how many bits it needs, on average, to spell one byte.

    bits per byte = sum of nats over all held-out tokens / ln 2 / UTF-8 bytes of the held-out text

That does not depend on the tokenizer, so it compares with compressors. Every token, and the separator after every
document, is predicted exactly once. Windows of the model's whole context overlap: each after the first predicts only
its last `FRESH` share, so these tokens see at least the rest of a window before them. Documents are as isolated as in
training.

The other objectives are measured by what they are trained for, on examples that are the same for every run: nats per
hidden token, and how often the likeliest one is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from windlass.build.training.data.batches import IGNORE, Batch, Examples, documents
from windlass.build.training.data.shard import Shard
from windlass.build.training.objectives import Loss

FRESH = 0.75
"""Share of a window that is predicted; the rest is what it looks back on."""

Tick = Callable[[int], None]
LossOf = Callable[[Batch], Loss]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeldOut:
    nats: float
    tokens: int
    """Predicted."""
    bytes: int | None = None
    """UTF-8 bytes of the text they spell; None where only some of it is predicted."""
    right: int | None = None
    """How often the likeliest token was the right one; None where it was not counted."""

    @property
    def loss(self) -> float:
        """Nats per predicted token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        assert self.bytes is not None, "bits per byte are for objectives that predict all of the text"
        return self.nats / math.log(2) / self.bytes

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None else self.right / self.tokens

    def metrics(self) -> dict[str, float]:
        """As they are logged and stored with the model."""
        found = {"heldout_loss": self.loss}
        if self.bytes is not None:
            found["heldout_bpb"] = self.bits_per_byte
        if self.accuracy is not None:
            found["heldout_accuracy"] = self.accuracy
        return found

    def __str__(self) -> str:
        if self.bytes is not None:
            return f"{self.bits_per_byte:.4f} bits per byte over {self.bytes:,} bytes"
        right = "" if self.accuracy is None else f", {self.accuracy:.1%} right"
        return f"{self.loss:.4f} nats a target{right}, over {self.tokens:,} targets"


@torch.no_grad()
def score(
    loss_of: LossOf,
    context: int,
    shard: Shard,
    *,
    isolate: bool = False,
    batch: int = 8,
    most: int | None = None,
    tick: Tick | None = None,
) -> HeldOut:
    """Bits per byte of the shard with the causal loss of a model that reads `context` tokens.

    With `most`, only about so many tokens are predicted, in windows spread evenly over the text, which is taken to have
    as many bytes a token everywhere. All batches have one shape, so that a compiled model is compiled once. `tick` is
    told the number of tokens predicted so far.
    """
    nats, done = 0.0, 0
    length = min(context, len(shard) - 1)
    windows = _thinned(_windows(len(shard) - 1, length), most, int(length * FRESH))
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
    if most is None:
        assert done == len(shard) - 1, f"{done} tokens predicted of {len(shard) - 1}"
    return HeldOut(nats, done, round(shard.bytes * done / (len(shard) - 1)))


@torch.no_grad()
def score_examples(
    loss_of: LossOf, examples: Examples, *, batch: int = 8, most: int | None = None, tick: Tick | None = None
) -> HeldOut:
    """The loss over one epoch of examples, or about `most` of their targets spread evenly over it."""
    nats, done, right = 0.0, 0, 0
    for group in _grouped(spread(examples, most), batch):
        made = examples.batch([(0, number) for number in group])
        if not made.counted:
            continue
        loss = loss_of(made)
        nats += float(loss.sum)
        done += loss.counted
        right += int(loss.metrics["right"])
        if tick is not None:
            tick(done)
    return HeldOut(nats, done, right=right)


def spread(examples: Examples, most: int | None) -> list[int]:
    """Numbers of examples, spread evenly over an epoch, that hold about `most` targets; None: of all."""
    return _thinned(list(range(len(examples))), most, examples.batch([(0, 0)]).counted)


def _thinned(items: list[T], most: int | None, each: int) -> list[T]:
    """Evenly spread items that hold about `most` targets, `each` in one."""
    stride = 1 if most is None else max(1, len(items) * max(each, 1) // most)
    return items[::stride]


def _grouped(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


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

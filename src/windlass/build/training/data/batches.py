"""Which examples come in which step: a pure function of the seed and of a small state that travels with the caller.

The text is a ring: one document after another, a separator before each, and behind the last one the first again. Each
epoch cuts the ring at a new place into windows and shuffles them, so that every token of the text is trained on
exactly once an epoch: a document longer than a window goes on in the next, and nothing is cropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.training.data.shard import Shard

IGNORE = -100
"""A target that is not counted: the value that PyTorch's own cross-entropy ignores."""

Number = tuple[int, int]
"""Epoch, and number of the example in it."""


@dataclass(frozen=True, slots=True)
class DataState:
    """Where the data stands: examples already taken of the current epoch."""

    epoch: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What an objective reads: tensors, one example a row. An objective that needs more has a batch that adds it."""

    inputs_BT: Tensor
    targets_BT: Tensor
    """What each position should say, `IGNORE` where nothing is counted."""
    documents_BT: Tensor | None = None
    """Number of the document that each position belongs to; None: all see each other."""
    source_BS: Tensor | None = None
    """What an encoder reads beside: the text with gaps, or the other half of a pair."""
    source_documents_BS: Tensor | None = None

    @property
    def counted(self) -> int:
        """Targets that count."""
        return int((self.targets_BT != IGNORE).sum())

    @property
    def tokens(self) -> int:
        """Positions that the model reads."""
        return self.inputs_BT.numel() + (0 if self.source_BS is None else self.source_BS.numel())

    @property
    def sequences(self) -> int:
        """Texts that the model reads, none of which sees another; boundaries inside of rows are not considered."""
        return len(self.inputs_BT)

    @property
    def divisible(self) -> int:
        """Into so many parts `rows` can divide it."""
        return len(self.targets_BT)

    def to(self, device: torch.device) -> Self:
        return self._each(lambda value: value.to(device, non_blocking=True))

    def rows(self, which: slice) -> Self:
        return self._each(lambda value: value[which])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in values.items()}
        return type(self)(**changed)


class Examples(Protocol):
    """An objective's examples: so many an epoch, each a pure function of the seed and its number."""

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[Number]) -> Batch: ...


@runtime_checkable
class OnPolicy(Protocol):
    """Examples that the model writes itself, anew in each step: a pure function of the numbers, the step and the
    weights."""

    def __len__(self) -> int: ...

    def updates(self, numbers: Sequence[Number], step: int, size: int) -> Sequence[Sequence[Batch]]:
        """The passes, of `size` examples each, of every update that the step takes on what was written."""
        ...


def updates(
    examples: Examples | OnPolicy, numbers: Sequence[Number], step: int, size: int
) -> Sequence[Sequence[Batch]]:
    """The passes of every update of a step. Examples that are there before it take one."""
    if isinstance(examples, OnPolicy):
        return examples.updates(numbers, step, size)
    return [[examples.batch(numbers[first : first + size]) for first in range(0, len(numbers), size)]]


def take(examples: Sized, state: DataState, count: int, seed: int) -> tuple[list[Number], DataState]:
    """The numbers of the next `count` examples, and the state after them."""
    found: list[Number] = []
    epoch, position = state.epoch, state.position
    while len(found) < count:
        order = _order(len(examples), seed, epoch)
        for number in order[position : position + count - len(found)]:
            found.append((epoch, int(number)))
            position += 1
        if position >= len(order):
            epoch, position = epoch + 1, 0
    return found, DataState(epoch, position)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)


class Ring:
    """A shard, cut into windows of `length` tokens anew each epoch."""

    def __init__(self, shard: Shard, length: int, seed: int) -> None:
        self.shard, self.length, self.seed = shard, length, seed
        self.tokens = shard.tokens[:-1]  # the separator at the end is the one at the beginning

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.length)

    def window(self, epoch: int, number: int, more: int = 0) -> tuple[NDArray[np.int64], int]:
        """`length + more` tokens as int64, and how many of the first `length` no window before this one held."""
        first = number * self.length
        start = _cut(len(self.tokens), self.seed, epoch) + first
        places = np.arange(start, start + self.length + more)
        return self.tokens.take(places, mode="wrap").astype(np.int64), min(self.length, len(self.tokens) - first)


@lru_cache(maxsize=8)
def _cut(tokens: int, seed: int, epoch: int) -> int:
    return int(np.random.default_rng([seed, epoch, 1]).integers(tokens))


def documents(tokens: NDArray[np.int64], separator: int) -> NDArray[np.int64]:
    """Number of the document that each token belongs to, along the last axis; a separator begins one."""
    return np.cumsum(tokens == separator, axis=-1)


def tensor(rows: Sequence[NDArray[Any]]) -> Tensor:
    """Rows of equal length as one int64 tensor."""
    return torch.from_numpy(np.stack(rows).astype(np.int64, copy=False))


class CausalExamples:
    """Windows in which every token is to be predicted from those before it."""

    def __init__(self, shard: Shard, context: int, *, isolate: bool, seed: int) -> None:
        self._ring, self._isolate = Ring(shard, context, seed), isolate

    def __len__(self) -> int:
        return len(self._ring)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        inputs, targets = [], []
        for epoch, number in numbers:
            tokens, fresh = self._ring.window(epoch, number, more=1)
            inputs.append(tokens[:-1])
            targets.append(np.where(np.arange(len(tokens) - 1) < fresh, tokens[1:], IGNORE))
        apart = documents(np.stack(inputs), self._ring.shard.separator) if self._isolate else None
        return Batch(tensor(inputs), tensor(targets), None if apart is None else torch.from_numpy(apart))

"""Pairs for contrastive training: two passages of a document that follow one another.

Neighbours speak of the same thing, and passages of other documents rarely do: a signal that any text holds (the
unsupervised pairs of Neelakantan et al., arXiv 2201.10005, and Izacard et al., arXiv 2112.09118).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.build.training.data.batches import Batch, Number
from windlass.build.training.data.shard import Shard
from windlass.core.errors import InputError

SHORTEST = 16
"""Tokens of the shortest passage."""


class PairExamples:
    """Pairs of passages of at most `context` tokens, filled up with `pad`."""

    def __init__(self, shard: Shard, context: int, *, pad: int) -> None:
        self._tokens, self._context, self._pad = shard.tokens, context, pad
        self._pairs = _pairs(np.flatnonzero(shard.tokens == shard.separator), context)
        if not len(self._pairs):
            raise InputError(
                f"No document has two passages of {SHORTEST} tokens.", "Give longer documents for contrastive training."
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        """`source_BS` holds first passages, `inputs_BT` second ones. Their documents are 0, and -1 where filled up. The
        target of a row is its own number: which of the second passages follows."""
        bounds = [self._pairs[number] for _, number in numbers]
        first, first_documents = self._filled([(a, b) for a, b, _ in bounds])
        second, second_documents = self._filled([(b, c) for _, b, c in bounds])
        return Batch(second, torch.arange(len(bounds))[:, None], second_documents, first, first_documents)

    def _filled(self, bounds: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = np.full((len(bounds), self._context), self._pad, np.int64)
        outside = np.full((len(bounds), self._context), -1)
        for row, (begin, end) in enumerate(bounds):
            tokens[row, : end - begin] = self._tokens[begin:end]
            outside[row, : end - begin] = 0
        return torch.from_numpy(tokens), torch.from_numpy(outside)


def _pairs(separators: NDArray[np.int64], context: int) -> NDArray[np.int64]:
    """(begin, middle, end) of every pair: whole passages as long as they last, then what remains, cut in half."""
    found: list[tuple[int, int, int]] = []
    for before, after in zip(separators[:-1].tolist(), separators[1:].tolist()):
        at = before + 1
        while after - at >= 2 * SHORTEST:
            half = min(context, (after - at) // 2)
            found.append((at, at + half, at + 2 * half))
            at += 2 * half
    return np.array(found, np.int64).reshape(-1, 3)

"""Several short examples in one row, none of which sees another.

Rows are filled best fit first (Ding et al., arXiv 2404.10830): the longest examples get rows of their own, and each
shorter one goes where it leaves the least empty. Nothing is cropped, and about one position in a hundred is padding.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.build.adapt.data.conversations import Encoded
from windlass.build.training.data.batches import IGNORE, Batch, Number

PADDING = -1
"""The document of positions that hold nothing."""


def packed(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Numbers of the examples in each row of `size` positions. Every example must fit into a row."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (positions left, row), in order
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[number]
        assert 0 < length <= size, f"example {number} has {length} tokens, a row {size}"
        place = bisect.bisect_left(room, (length, -1))
        left, row = room.pop(place) if place < len(room) else (size, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(number)
        bisect.insort(room, (left - length, row))
    return rows


class PackedExamples:
    """Examples for the next-token objective, as rows of `size` positions."""

    def __init__(
        self,
        examples: Sequence[Encoded],
        size: int,
        *,
        pad: int,
        packing: bool = True,
        rows: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """`rows`: numbers of the examples in each row, where somebody else has packed them."""
        self._examples, self._size, self._pad = examples, size, pad
        lengths = [len(example) for example in examples]
        self.rows = rows or (packed(lengths, size) if packing else [[number] for number in range(len(lengths))])

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        rows = [self._row(self.rows[number]) for _, number in numbers]
        inputs, targets, documents = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
        return Batch(inputs, targets, documents)

    def _row(self, numbers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        inputs = np.full(self._size, self._pad, np.int64)
        targets = np.full(self._size, IGNORE, np.int64)
        documents = np.full(self._size, PADDING, np.int64)
        start = 0
        for place, number in enumerate(numbers):
            example = self._examples[number]
            stop = start + len(example)
            inputs[start:stop] = example.tokens
            documents[start:stop] = place
            # The last position of an example predicts nothing: what follows it is another one.
            targets[start : stop - 1] = np.where(example.learned[1:], example.tokens[1:], IGNORE)
            start = stop
        return inputs, targets, documents

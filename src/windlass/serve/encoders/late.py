"""Vectors of the parts of a text from one reading of the whole: late chunking (Günther et al., arXiv 2409.04701).

The encoder reads the document, and a passage's vector is the mean of its tokens' vectors, which know what stands
around the passage. What is longer than the encoder reads goes through windows that overlap by half; each token's
vector comes from the window in which it stands nearest to the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.serve.encoders.reading import TOKENS_PER_BATCH, Reader

Hidden = Callable[[Sequence[list[int]]], Sequence[NDArray[np.float32]]]
"""Rows of tokens -> the vectors (tokens, width) of each row."""


@dataclass(frozen=True, slots=True)
class Pooled:
    sums: NDArray[np.float32]
    """Shape (spans, width): of the vectors of each span's tokens."""
    counts: NDArray[np.int64]
    """Shape (spans,): tokens of each span."""
    tokens: int
    """Read in all, what windows share and what stands above them included."""


def pool(text: str, spans: Sequence[tuple[int, int]], above: str, reader: Reader, hidden: Hidden, width: int) -> Pooled:
    """A token belongs to the spans that hold its last character. Raises `InputError` for a span outside of the text."""
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise InputError(f"The text has {len(text)} characters, but {start}:{end} is to be embedded.")
    whole = reader.whole(text)
    ordered = np.array(spans, np.int64).reshape(-1, 2)
    firsts, ends = np.searchsorted(whole.ends, ordered[:, 0] + 1), np.searchsorted(whole.ends, ordered[:, 1] + 1)
    sums = np.zeros((len(spans), width), np.float32)
    before, after = reader.around
    head = [*before, *reader.whole(above).ids[: reader.limit // 4].tolist()]
    size = reader.limit - len(head) - len(after)
    read = 0
    for batch in _batches(list(_windows(len(whole.ids), size)), size):
        rows = [[*head, *whole.ids[left:right].tolist(), *after] for left, right, _, _ in batch]
        read += sum(map(len, rows))
        for (left, _, keep, until), vectors_TC in zip(batch, hidden(rows), strict=True):
            for i in np.flatnonzero((firsts < until) & (ends > keep)):
                low, high = max(firsts[i], keep), min(ends[i], until)
                offset = len(head) - left
                sums[i] += vectors_TC[low + offset : high + offset].sum(0)
    return Pooled(sums, ends - firsts, read)


def _windows(tokens: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """What each window reads (first token, end), and which of it is taken from there (first, end)."""
    if tokens <= size:
        yield 0, tokens, 0, tokens
        return
    lefts = [*range(0, tokens - size, size // 2), tokens - size]
    borders = [(before + size + left) // 2 for before, left in pairwise(lefts)]
    for left, keep, until in zip(lefts, [0, *borders], [*borders, tokens], strict=True):
        yield left, left + size, keep, until


def _batches(windows: Sequence[tuple[int, int, int, int]], size: int) -> Iterator[Sequence[tuple[int, int, int, int]]]:
    several = max(TOKENS_PER_BATCH // max(size, 1), 1)
    for at in range(0, len(windows), several):
        yield windows[at : at + several]

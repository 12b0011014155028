"""Span corruption: an encoder reads a text with gaps, a decoder writes what stood in them.

    text      Thank you for inviting me to your party last week
    source    Thank you <0> me to your party <1> week <end>
    target    <0> for inviting <1> last <end>

Raffel et al. (arXiv 1910.10683, section 3.1.4): 15 % of the tokens in spans of 3 on average. All sources, and all
targets, are equally long, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.build.training.data.batches import Batch, Number, Ring, documents, tensor
from windlass.build.training.data.shard import Shard
from windlass.core.errors import InputError

Ids = NDArray[np.int64]


def corruption(length: int, share: float, span: float) -> tuple[int, int]:
    """Of a text of `length` tokens: how many are hidden, and in how many spans."""
    hidden = min(max(round(length * share), 1), length - 1)
    spans = min(max(round(hidden / span), 1), hidden, length - hidden)
    return hidden, spans


def lengths(source: int, share: float, span: float) -> tuple[int, int]:
    """Tokens of the longest text whose corrupted source has at most `source` tokens, and tokens of its target.

    Both hold a sentinel for every span and one end. Raises `InputError` when nothing fits.
    """

    def sizes(length: int) -> tuple[int, int]:
        hidden, spans = corruption(length, share, span)
        return length - hidden + spans + 1, hidden + spans + 1

    length = 1
    while sizes(length + 1)[0] <= source:
        length += 1
    if length < 2:
        raise InputError(f"A context of {source} tokens is too short for spans.", "Set model.context to 16 or more.")
    return length, sizes(length)[1]


class SpanExamples:
    """Windows with gaps, and what stood in them."""

    def __init__(
        self,
        shard: Shard,
        context: int,
        *,
        isolate: bool,
        seed: int,
        share: float,
        span: float,
        sentinels: Sequence[int],
        end: int,
        start: int,
    ) -> None:
        """`end` closes source and target; `start` is what the decoder reads before its first token."""
        self.length, self.target_length = lengths(context, share, span)
        self._ring, self._isolate, self._seed = Ring(shard, self.length, seed), isolate, seed
        self._hidden, self._spans = corruption(self.length, share, span)
        self._sentinels, self._end, self._start = np.array(sentinels, np.int64), end, start

    def __len__(self) -> int:
        return len(self._ring)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        rows = [self._corrupted(epoch, number) for epoch, number in numbers]
        sources, targets, source_documents, target_documents = zip(*rows, strict=True)
        return Batch(
            inputs_BT=tensor([self._shifted(t, d) for t, d in zip(targets, target_documents)]),
            targets_BT=tensor(targets),
            documents_BT=tensor(target_documents) if self._isolate else None,
            source_BS=tensor(sources),
            source_documents_BS=tensor(source_documents) if self._isolate else None,
        )

    def _corrupted(self, epoch: int, number: int) -> tuple[Ids, Ids, Ids, Ids]:
        """Source, target, and the document of each of their tokens. A span belongs to the document it begins in."""
        tokens, _ = self._ring.window(epoch, number)
        owner = documents(tokens, self._ring.shard.separator)
        generator = np.random.default_rng([self._seed, epoch, number, 3])
        kept = _parts(self.length - self._hidden, self._spans, generator)
        gone = _parts(self._hidden, self._spans, generator)
        source: list[Ids] = []
        target: list[Ids] = []
        places: list[Ids] = []
        begun: list[Ids] = []
        at = 0
        for sentinel, before, inside in zip(self._sentinels, kept, gone):
            gap = at + before
            source += [tokens[at:gap], sentinel[None]]
            places += [owner[at:gap], owner[gap : gap + 1]]
            target += [sentinel[None], tokens[gap : gap + inside]]
            begun.append(np.full(inside + 1, owner[gap]))
            at = gap + inside
        end = np.array([self._end])
        last = begun[-1][-1:]
        return (
            np.concatenate([*source, end]),
            np.concatenate([*target, end]),
            np.concatenate([*places, last]),
            np.concatenate([*begun, last]),
        )

    def _shifted(self, target: Ids, owner: Ids) -> Ids:
        """What the decoder reads: the target one place later. An isolated document's first place reads no other's."""
        read = np.concatenate([[self._start], target[:-1]])
        if self._isolate:
            read[1:][np.diff(owner) != 0] = self._start
        return read


def _parts(total: int, count: int, generator: np.random.Generator) -> Ids:
    """`total` cut into `count` parts of at least one, every such cut being as likely."""
    cuts = np.sort(generator.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))

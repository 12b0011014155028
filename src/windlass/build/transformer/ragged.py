"""Several texts in one pass, each read on from where its own cache ends: what a serving engine does in every step.

The tokens of all texts stand in one row, so that every matrix is read once for all (Orca: Yu et al., OSDI 2022); only
attention goes through the texts one by one, or is done for all of them by a `Kernel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig

Together = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer for all parts: the layer's number, queries (1, H, T, D), keys and values (1, K, T, D) ->
(1, H, T, D). Turns queries and keys to their positions, and stores the new keys and values in the caches, behind what
they hold."""


class Parts(NamedTuple):
    """The row's texts, one after another. Whoever makes the pass sets `stretched` of each cache and advances it."""

    lengths: Sequence[int]
    """New tokens of each text. The row may be longer: what stands behind them is padding."""
    caches: Sequence[KVCache]
    """Of one text each, and with room for its new tokens."""
    kernel: Kernel | None = None
    singly: bool = False
    """Each position looks by itself, in the same arithmetic whatever is read along with it or was read before."""

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def places(self) -> list[int]:
        """The position of each token in its text."""
        rows = zip(self.caches, self.lengths, strict=True)
        return [place for cache, new in rows for place in range(cache.length, cache.length + new)]

    def spans(self) -> list[tuple[KVCache, int, int]]:
        """Cache, first position and end of each stretch that looks by itself."""
        rows = [(cache, cache.length, cache.length + new) for cache, new in zip(self.caches, self.lengths, strict=True)]
        if not self.singly:
            return rows
        return [(cache, place, place + 1) for cache, start, end in rows for place in range(start, end)]


class Kernel(Protocol):
    """Looks for all parts of a pass at once."""

    def plan(
        self, config: TransformerConfig, local: bool, parts: Parts, rotation: tuple[Tensor, Tensor] | None
    ) -> Together | None:
        """Called once per pass and kind of layer (`local`: it sees the window only), before the caches hold the new
        tokens. `rotation`: cosine and sine of the row's positions, where they are turned at all. None: this it cannot
        do, and the reference shall; so too where `parts.singly` asks for more than it can promise."""
        ...

"""Texts that begin alike in one row, each token once: a tree, in which a token sees those between the root and itself.

Attention does not care where in a row a key stands, only where in its text. So a forest of texts is one pass over its
nodes with a mask that says which node is an ancestor of which (Cai et al., Medusa, arXiv 2401.10774, verify guesses
that way), and what many texts share is computed once.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Branches(NamedTuple):
    """Of a row (B = 1) of T new tokens behind those that a cache holds."""

    places_S: Tensor
    """The place of each attended position in its text, int64: first those in the cache, then the T new ones."""
    seen_TS: Tensor
    """Where each new position looks: at itself and at those between it and the root of its tree."""
    reach: int
    """Tokens of the longest text among them (LongRoPE turns by it)."""

    @property
    def new_places(self) -> Tensor:
        return self.places_S[-self.seen_TS.shape[0] :]

    @property
    def distances(self) -> Tensor:
        """Place of the key - place of the query."""
        return self.places_S - self.new_places[:, None]

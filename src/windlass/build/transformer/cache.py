"""The key/value cache: what attention needs to remember of the positions already read."""

from __future__ import annotations

import torch
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.core.errors import InputError


class KVCache:
    """Keys and values of `length` positions for every layer, in buffers of `capacity` positions.

    Allocated once, so decoding copies only the new position. All sequences of the batch have the same length. Layers
    with a window keep every position too: the cache can then go back to any length, and what they no longer see is
    not read.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        batch: int = 1,
        capacity: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = capacity or config.context
        self.length = 0
        shape = (config.layers, batch, config.kv_heads, self.capacity, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.tokens = torch.zeros(batch, self.capacity, dtype=torch.int64, device=device)
        """What was read; LongRoPE has to read it again when a sequence outgrows the original context."""
        self.stretched = False
        """Whether the keys were turned by LongRoPE's long factors."""

    @property
    def room(self) -> int:
        """How many more positions fit."""
        return self.capacity - self.length

    def note(self, tokens_BT: Tensor) -> None:
        """Keeps the tokens of a pass that is about to begin. Raises `InputError` when they do not fit."""
        end = self.length + tokens_BT.shape[1]
        if end > self.capacity:
            raise InputError(
                f"The sequence grows to {end} tokens, but the model reads at most {self.capacity}.",
                "Shorten the prompt or ask for fewer new tokens.",
            )
        self.tokens[:, self.length : end] = tokens_BT

    def extend(
        self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor, first: int = 0, at: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Stores the new positions of one layer, behind the others or from `at` on; returns keys and values of all
        positions from `first` to the last new one (views)."""
        start = self.length if at is None else at
        end = start + k_BKTD.shape[2]
        self.keys[layer, :, :, start:end] = k_BKTD
        self.values[layer, :, :, start:end] = v_BKTD
        return self.keys[layer, :, :, first:end], self.values[layer, :, :, first:end]

    def advance(self, positions: int) -> None:
        """Called once per forward pass, after the last layer."""
        self.length += positions

    def grow(self, capacity: int) -> None:
        """Makes room for `capacity` positions in all. Takes half of the new memory on top while it copies."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(*old.shape[:3], capacity, old.shape[4])
            new[:, :, :, : self.length] = old[:, :, :, : self.length]
            setattr(self, name, new)
            del old, new
        tokens = self.tokens.new_zeros(len(self.tokens), capacity)
        tokens[:, : self.length] = self.tokens[:, : self.length]
        self.tokens, self.capacity = tokens, capacity

    def truncate(self, length: int) -> None:
        """Forgets the positions from `length` on (to share a prefix, or to take back a guess)."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} positions to {length}")
        self.length = length

    def keep(self, positions: Tensor) -> None:
        """Forgets all but these positions (int64) and moves them together, in the order given."""
        moved = (positions != torch.arange(len(positions), device=positions.device)).nonzero()
        start = int(moved[0]) if len(moved) else len(positions)  # a beginning that all share stays where it is
        for held in (self.keys, self.values):
            held[:, :, :, start : len(positions)] = held[:, :, :, positions[start:]]
        self.length = len(positions)

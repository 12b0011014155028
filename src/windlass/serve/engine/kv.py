"""Memory of what was read: a slab for each running sequence, and blocks of finished ones for whoever begins alike.

A sequence's keys and values lie in one piece, so attention reads them as they are. Beside the slabs stand copies of
whole blocks, found by the hash of all tokens up to their end (vLLM: Kwon et al., arXiv 2309.06180, section 4.4): a
sequence whose prompt begins with known blocks copies them instead of computing them. A copy costs a few microseconds a
token, and needs no attention that reads scattered memory.

The slab of a sequence that has ended is kept too while there is room: memory that was used before costs no page faults,
and whoever begins like its last owner finds it filled, and copies nothing.

All three share one budget. Slabs in use come first; then, up to half of the budget for both, slabs that are kept; then
blocks, the least recently used going first; then further slabs.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig
from windlass.core.errors import NoMemory

BLOCK = 16
"""Positions of a block. A prompt finds what it shares with others up to a multiple of it."""


def block_keys(tokens: Sequence[int], root: bytes, known: Sequence[bytes] = ()) -> list[bytes]:
    """A key for each whole block of `tokens`, which says everything from `root` (what else the vectors depend on) to
    the block's end. `known`: the first ones, from an earlier call."""
    keys = list(known)
    for start in range(len(keys) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
        before = keys[-1] if keys else hashlib.blake2b(root, digest_size=16).digest()
        said = array("q", tokens[start : start + BLOCK]).tobytes()
        keys.append(hashlib.blake2b(before + said, digest_size=16).digest())
    return keys


class Slab:
    """Keys, values and the model's last hidden vectors of one sequence. The latter give the log-probabilities of a
    prompt that was read for someone else."""

    def __init__(self, config: TransformerConfig, blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        self.blocks = blocks
        self.cache = KVCache(config, capacity=blocks * BLOCK, dtype=dtype, device=device)
        self.hidden_SC = torch.zeros(self.cache.capacity, config.hidden, dtype=dtype, device=device)

        self.torn = False
        """Whether it broke while it grew."""

    def grow(self, blocks: int, context: int) -> None:
        self.torn = True
        self.cache.grow(min(blocks * BLOCK, context))
        old_SC = self.hidden_SC
        self.hidden_SC = old_SC.new_zeros(self.cache.capacity, old_SC.shape[1])
        self.hidden_SC[: len(old_SC)] = old_SC
        self.blocks, self.torn = blocks, False


class _Block(NamedTuple):
    keys: Tensor
    """(layers, K, BLOCK, D)"""
    values: Tensor
    hidden: Tensor


class KVStore:
    def __init__(
        self,
        config: TransformerConfig,
        tokens: int,
        *,
        share: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Room for `tokens` positions in all. `share`: keep blocks for others."""
        self.total = tokens // BLOCK
        """Blocks that there is room for."""
        self.held = 0
        """Blocks that slabs take."""
        self._config, self._share, self._dtype, self._device = config, share, dtype, torch.device(device)
        self._spare: list[tuple[Slab, Sequence[bytes]]] = []
        """Slabs of sequences that have ended, the oldest first, with the keys of the blocks in them."""
        self._cached: OrderedDict[bytes, _Block] = OrderedDict()
        # The least recently used first. A chain is always used from its end to its root, so no block stands before
        # one that continues it, and forgetting from the front never leaves one that cannot be found.

    @property
    def cached(self) -> int:
        """Blocks kept for others."""
        return len(self._cached)

    def open(self, positions: int, keys: Sequence[bytes] = (), most: int = 0) -> Slab | None:
        """A slab of at least so many positions, if it can be one that holds the blocks of `keys`, or None when slabs
        already take too much. The length of its cache is what it holds of them. `most`: positions that it may come to;
        while there is room, one that was kept and is as large already is not too large. Raises `NoMemory` when the
        machine has less than it was thought to have."""
        blocks = _blocks(positions)
        largest = max(blocks * 3 // 2, min(_blocks(most), self.total // 2 - self.held))
        fit = [(_alike(keys, held), slab) for slab, held in self._spare if blocks <= slab.blocks <= largest]
        alike, spare = max(fit, key=lambda one: (one[0], -one[1].blocks), default=(0, None))
        if spare is not None and self.held + spare.blocks <= self.total:
            self._spare = [one for one in self._spare if one[0] is not spare]
            self.held += spare.blocks
            spare.cache.length = alike * BLOCK
            return spare
        return self._take(blocks, lambda: Slab(self._config, blocks, self._dtype, self._device))

    def reserve(self, slab: Slab, positions: int, most: int) -> bool:
        """Makes a slab hold at least `positions`, and if there is room for it half as many more, up to `most`: so a
        long answer is moved a few times only. False when slabs already take too much. Raises `NoMemory`; the slab can
        then only be closed."""
        wanted = _blocks(positions)
        if wanted <= slab.blocks:
            return True
        roomy = max(wanted, min(slab.blocks * 3 // 2, _blocks(most)))

        def grown(blocks: int) -> Slab:
            slab.grow(blocks, self._config.context)
            return slab

        return any(self._take(blocks - slab.blocks, partial(grown, blocks)) for blocks in (roomy, wanted))

    def close(self, slab: Slab, keys: Sequence[bytes] = ()) -> None:
        """Gives a slab's memory back; `keys` are those of the blocks that it still holds for others."""
        self.held -= slab.blocks
        if self._free >= slab.blocks and not slab.torn:
            self._spare.append((slab, keys if self._share else ()))

    def known(self, keys: Sequence[bytes]) -> int:
        """How many blocks from the first on are kept."""
        return next((i for i, key in enumerate(keys) if key not in self._cached), len(keys))

    def lead(self, slab: Slab, keys: Sequence[bytes]) -> int:
        """Fills a slab that was just opened with the blocks known of `keys`; how many positions it then holds."""
        held, known = slab.cache.length // BLOCK, keys[: self.known(keys)]
        for i, key in enumerate(known[held:], held):
            block, at = self._cached[key], slice(i * BLOCK, (i + 1) * BLOCK)
            slab.cache.keys[:, 0, :, at] = block.keys
            slab.cache.values[:, 0, :, at] = block.values
            slab.hidden_SC[at] = block.hidden
        self._use(known)
        slab.cache.length = max(held, len(known)) * BLOCK
        return slab.cache.length

    def save(self, slab: Slab, keys: Sequence[bytes]) -> None:
        """Keeps copies of the slab's first blocks, where they are not known and as far as there is room."""
        if not self._share:
            return
        self._use(keys)
        room = self.total - self.held - sum(key in self._cached for key in keys)
        for i, key in enumerate(keys):
            if key in self._cached:
                continue
            if room < 1:
                break
            room -= 1
            place = self._forget(1)
            at = slice(i * BLOCK, (i + 1) * BLOCK)
            cache = slab.cache
            parts = (cache.keys[:, 0, :, at], cache.values[:, 0, :, at], slab.hidden_SC[at])
            try:
                if place is None:
                    place = _Block(*(torch.empty_like(part) for part in parts))
                self._cached[key] = _Block(*(old.copy_(part) for old, part in zip(place, parts, strict=True)))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self.clear()  # it was to help others, who now need the place more
                return
        self._use(keys)

    def clear(self) -> None:
        """Forgets all that is kept for others."""
        self._cached.clear()
        self._spare.clear()

    @property
    def _free(self) -> int:
        """Blocks that nobody uses and nothing is kept in."""
        return self.total - self.held - len(self._cached) - sum(slab.blocks for slab, _ in self._spare)

    def _take(self, blocks: int, make: Callable[[], Slab]) -> Slab | None:
        """What `make` makes of so many further blocks, if need be in the place of all that is kept for others."""
        if self.held + blocks > self.total:
            return None
        self._forget(blocks, coming=blocks)
        try:
            slab = make()
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.clear()
            try:
                slab = make()
            except Exception as again:
                raise no_memory(again) from again
        self.held += blocks
        return slab

    def _forget(self, places: int, coming: int = 0) -> _Block | None:
        """Forgets kept slabs and blocks until so many places are free, `coming` of them for a slab; the last block that
        went, whose memory the next one can have."""
        gone = None
        while self._free < places:
            slabs = self.held + coming + sum(slab.blocks for slab, _ in self._spare)
            if self._spare and (slabs > self.total // 2 or not self._cached):
                self._spare.pop(0)
            else:
                _, gone = self._cached.popitem(last=False)
        return gone

    def _use(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            if key in self._cached:
                self._cached.move_to_end(key)


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no memory: Python's, PyTorch's for a GPU, or that of its allocator for a CPU, which
    has no class of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def no_memory(error: Exception) -> Exception:
    """The error as those who asked are told."""
    if not out_of_memory(error):
        return error
    return NoMemory(
        "The machine has no memory left for this request.",
        "Ask again later or for less; start the server with a smaller --kv-tokens or --max-batch.",
    )


def _alike(keys: Sequence[bytes], held: Sequence[bytes]) -> int:
    """How many keys both begin with."""
    return next(
        (i for i, (one, other) in enumerate(zip(keys, held, strict=False)) if one != other), min(len(keys), len(held))
    )


def _blocks(positions: int) -> int:
    return -(-positions // BLOCK)

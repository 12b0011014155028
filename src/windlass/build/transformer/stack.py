"""The part that all three architectures share: embedded tokens in, the last block's normalised output out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.attention import STRIPE, KeysValues, Sight, as_mask, visible
from windlass.build.transformer.block import Block
from windlass.build.transformer.branches import Branches
from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import RopeScaling, TransformerConfig
from windlass.build.transformer.gradients import by_hand, rounded
from windlass.build.transformer.norm import norm_of
from windlass.build.transformer.positions import (
    alibi_slopes,
    positions_in_documents,
    relative_buckets,
    sinusoids,
)
from windlass.build.transformer.ragged import Parts
from windlass.build.transformer.rope import frequencies, rotations
from windlass.build.transformer.side_by_side import SHORT, shelves
from windlass.core.errors import InputError


@lru_cache(maxsize=64)
def _frequencies(
    dims: int, theta: float, scaling: RopeScaling | None, long: bool, device: torch.device
) -> tuple[Tensor, float]:
    """Kept where they are used: copying them in every pass would make a GPU wait."""
    frequency, factor = frequencies(dims, theta, scaling, long)
    return frequency.to(device), factor


class Stack(nn.Module):
    """`enter` prepares a pass, `through` runs it; between them a caller may treat the blocks as it likes."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, cross: bool = False) -> None:
        super().__init__()
        self.config = config

        def table(rows: int, width: int, wanted: bool) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(rows, width)) if wanted else None

        self.positions = table(config.context, config.hidden, config.position == "learned")
        self.relative = table(config.relative_buckets, config.heads, config.position == "relative")
        self.token_types = table(config.token_types, config.hidden, config.token_types > 0)
        self.embedding_norm = norm_of(config) if config.embedding_norm else None
        self.blocks = nn.ModuleList(Block(config, layer, cross) for layer in range(config.layers))
        self.norm: nn.Module = nn.Identity() if config.norm_placement == "post" else norm_of(config)

    def enter(
        self,
        x_BTC: Tensor,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        *,
        types_BT: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        parts: Parts | None = None,
        branches: Branches | None = None,
    ) -> tuple[Tensor, list[Sight]]:
        """What the first block reads, and each block's sight: the parts of a pass that do not repeat.

        `documents_BT` (int64) keeps attention inside each document and counts positions from its start; `lengths` says
        the same of a single row that holds nothing but whole documents (behind which there may then be padding),
        `parts` of one that holds the next parts of several texts, and `branches` of one that continues different places
        of the cache. `types_BT` (int64): kinds of segments. Raises `InputError` when the sequence is longer than the
        model reads.
        """
        start = cache.length if cache is not None else 0
        end = start + x_BTC.shape[1] if lengths is None else longest(lengths, x_BTC)
        if parts is not None:
            end = max(1 + place for place in parts.places())
        elif branches is not None:
            end = branches.reach
        if end > self.config.context:
            raise InputError(
                f"The sequence has {end} tokens, but the model reads at most {self.config.context}.",
                "Shorten the prompt or ask for fewer new tokens.",
            )
        if sum(given is not None for given in (documents_BT, branches or cache, lengths, parts)) > 1:
            raise ValueError("documents, a cache (of one document per sequence), lengths and parts exclude each other")
        if documents_BT is not None:
            positions = positions_in_documents(documents_BT)
        elif parts is not None:
            places = parts.places() + [0] * (x_BTC.shape[1] - parts.total)
            positions = torch.tensor(places, device=x_BTC.device)
        elif lengths is not None:
            counted = torch.arange(end, device=x_BTC.device)
            positions = torch.cat([counted[:length] for length in lengths])
        elif branches is not None:
            positions = branches.new_places
        else:
            positions = torch.arange(start, end, device=x_BTC.device)
        if self.positions is not None:
            x_BTC = x_BTC + self.positions[positions].to(x_BTC.dtype)
        elif self.config.position == "sinusoidal":
            x_BTC = x_BTC + sinusoids(positions, self.config.hidden).to(x_BTC.dtype)
        if self.token_types is not None:
            x_BTC = x_BTC + self.token_types[0 if types_BT is None else types_BT].to(x_BTC.dtype)
        elif types_BT is not None:
            raise InputError("Types of segments are given, but this model knows none.", "Leave them out.")
        if self.embedding_norm is not None:
            x_BTC = self.embedding_norm(x_BTC)
        kinds = [self.config.local(layer) for layer in range(self.config.layers)]
        if parts is not None:
            sights = {local: self._sight_of_parts(local, positions, parts) for local in set(kinds)}
        elif branches is not None:
            sights = {local: self._sight_of_branches(local, branches, cache) for local in set(kinds)}
        elif lengths is not None:
            sights = {local: self._sight_by_stretch(local, lengths, x_BTC.device) for local in set(kinds)}
            filling = self._filling(x_BTC)
            if filling:
                real = x_BTC.shape[1]
                x_BTC = F.pad(x_BTC, (0, 0, 0, filling))
                sights = {local: sight._replace(real=real) for local, sight in sights.items()}
        else:
            sights = {local: self._sight(local, positions, documents_BT, cache, end) for local in set(kinds)}
        return x_BTC, [sights[local] for local in kinds]

    def _filling(self, x_BTC: Tensor) -> int:
        """Positions of padding behind the texts of a row; whoever calls `enter` with lengths leaves them out again."""
        costly = x_BTC.dtype == torch.bfloat16 and x_BTC.device.type == "cpu" and by_hand()
        return rounded(x_BTC.shape[1]) - x_BTC.shape[1] if costly and self.config.experts is None else 0

    def through(
        self,
        x_BTC: Tensor,
        sights: list[Sight],
        routing: list[Tensor] | None = None,
        memory: Tensor | Sequence[KeysValues] | None = None,
        memory_sight: Sight | None = None,
    ) -> Tensor:
        """All blocks and the last norm. `memory`: what the cross-attention of all blocks looks at, or of each."""
        memories = [memory] * len(sights) if memory is None or isinstance(memory, Tensor) else memory
        for block, sight, own in zip(self.blocks, sights, memories, strict=True):
            x_BTC = block(x_BTC, sight, routing, own, memory_sight)
        normalised: Tensor = self.norm(x_BTC)
        return normalised

    def remember(self, x_BSC: Tensor) -> list[KeysValues]:
        """What the cross-attention of each block will look at, of another stack's output."""
        return [block.cross.remember(x_BSC) for block in self.blocks if isinstance(block, Block) and block.cross]

    def _sight(
        self, local: bool, positions: Tensor, documents_BT: Tensor | None, cache: KVCache | None, end: int
    ) -> Sight:
        """What the layers of one kind see: rotations, and a mask only where plain causal or full sight will not do."""
        config = self.config
        seen = self._seen(local, positions.shape[-1], end, documents_BT, cache, positions.device)
        return seen._replace(rotation=self._rotation(local, positions, end)) if config.position == "rope" else seen

    def _seen(
        self,
        local: bool,
        new: int,
        end: int,
        documents_BT: Tensor | None,
        cache: KVCache | None,
        device: torch.device,
    ) -> Sight:
        """A sight without its rotation: what the last `new` of `end` positions see."""
        config = self.config
        start = end - new
        window = config.window if local else None
        first = max(0, start - window + 1) if window is not None and config.causal else 0
        seen = end - first
        if window is not None and window >= (seen if config.causal else 2 * seen):
            window = None
        biased = config.position in ("alibi", "relative")
        alone = new == 1 and start > 0  # the newest position sees all that the cache holds from `first` on
        if not biased and window is None and documents_BT is None and (start == 0 or alone):
            return Sight(config.causal and not alone, cache=cache, first=first)
        may = visible(new, seen, causal=config.causal, window=window, documents_BT=documents_BT, device=device)
        if biased:
            key_S = torch.arange(seen, device=device)
            mask = self._bias(key_S - key_S[seen - new :, None]).masked_fill(~may, float("-inf"))
        else:
            mask = as_mask(may)
        return Sight(False, mask, cache=cache, first=first, ordered=config.causal and start == 0)

    def _sight_of_parts(self, local: bool, positions: Tensor, parts: Parts) -> Sight:
        """All positions are turned at once, then each text looks at its own cache."""
        rotation = None
        if self.config.position == "rope":
            stretched = [cache.stretched for cache in parts.caches]
            if not any(stretched):
                rotation = self.turned(local, positions, False)
            else:  # LongRoPE turns each text by its own length
                lengths = [*parts.lengths, len(positions) - parts.total]
                rows = zip(torch.split(positions, lengths), [*stretched, False], strict=True)
                cos, sin = zip(*(self.turned(local, row, long) for row, long in rows), strict=True)
                rotation = torch.cat(cos), torch.cat(sin)
        real = parts.total if parts.total < len(positions) else None
        together = parts.kernel.plan(self.config, local, parts, rotation) if parts.kernel is not None else None
        if together is not None:
            return Sight(together=together, real=real)
        stretches = tuple(
            (1, end - at, self._seen(local, end - at, end, None, cache, positions.device)._replace(at=at))
            for cache, at, end in parts.spans()
        )
        return Sight(rotation=rotation, stretches=stretches, real=real)

    def _sight_of_branches(self, local: bool, branches: Branches, cache: KVCache | None) -> Sight:
        """Who sees whom was told; what remains are windows, biases and rotations by the places in the texts."""
        config = self.config
        may = branches.seen_TS
        if local and config.window is not None:
            may = may & (branches.distances > -config.window)
        rotation = self._rotation(local, branches.new_places, branches.reach) if config.position == "rope" else None
        if config.position in ("alibi", "relative"):
            mask = self._bias(branches.distances).masked_fill(~may, float("-inf"))
            return Sight(False, mask, rotation, cache)
        if len(may) <= STRIPE:
            return Sight(False, as_mask(may), rotation, cache)
        # Neighbours are of few branches, and see little of the others: a fifth of all keys, among choices of questions.
        stripes = [(rows, rows.any(0).nonzero()[:, 0]) for rows in torch.split(may, STRIPE)]
        return Sight(
            rotation=rotation, cache=cache, glimpses=tuple((keys, as_mask(rows[:, keys])) for rows, keys in stripes)
        )

    def _sight_by_stretch(self, local: bool, lengths: Sequence[int], device: torch.device) -> Sight:
        """Of a row of whole documents: one sight for all neighbours of equal length, or nearly equal."""
        found = []
        for length, same in groupby(lengths):
            positions = torch.arange(length, device=device)
            found.append((len(list(same)), length, self._sight(local, positions, None, None, length)))
        plain = self.config.attention_cap is None and self.config.kv_heads == self.config.heads
        learning = by_hand() and device.type == "cpu"
        if plain and learning and max(lengths) <= SHORT and all(own == Sight() for *_, own in found):
            return Sight(shelves=shelves(lengths))
        return Sight(stretches=tuple(found))

    def _rotation(self, local: bool, positions: Tensor, end: int) -> tuple[Tensor, Tensor]:
        config = self.config
        reach = end if positions.ndim == 1 or not config.stretched(end) else int(positions.max()) + 1
        cos, sin = self.turned(local, positions, config.stretched(reach))
        scaled = not (local and config.local_rope_theta is not None)
        if scaled and positions.ndim == 2 and config.stretched(reach):
            raise InputError(
                f"A document has {reach} tokens, for which LongRoPE turns all positions differently: it cannot be "
                "packed with shorter ones.",
                "Give each document a row of its own.",
            )
        return (cos, sin) if positions.ndim == 1 else (cos[:, None], sin[:, None])  # (B, 1, T, D)

    def turned(self, local: bool, positions: Tensor, long: bool) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the positions in layers of one kind; `long`: by LongRoPE's long factors, if it has any."""
        config = self.config
        theta, scaling = config.rope_theta, config.rope_scaling
        if local and config.local_rope_theta is not None:
            theta, scaling = config.local_rope_theta, None
        frequency, factor = _frequencies(
            config.rotary_dim, theta, scaling, long and scaling is not None, positions.device
        )
        return rotations(positions, frequency, factor)

    def _bias(self, distance_TS: Tensor) -> Tensor:
        """What the distance of query and key adds to each head's scores, (H, T, S)."""
        config = self.config
        if self.relative is None:
            return -alibi_slopes(config.heads).to(distance_TS.device)[:, None, None] * distance_TS.abs()
        bucket_TS = relative_buckets(
            distance_TS, causal=config.causal, buckets=config.relative_buckets, far=config.relative_distance
        )
        return self.relative.float()[bucket_TS].permute(2, 0, 1)


def longest(lengths: Sequence[int], x_BTC: Tensor) -> int:
    """The longest of the documents that a row consists of. Raises `InputError` unless they fill it exactly."""
    rows, tokens = x_BTC.shape[:2]
    if rows != 1 or not lengths or min(lengths) < 1 or sum(lengths) != tokens:
        raise InputError(f"{rows} row(s) of {tokens} tokens cannot be split into texts of lengths {list(lengths)[:8]}.")
    return max(lengths)

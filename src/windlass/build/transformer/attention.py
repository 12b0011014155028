"""Attention: what each position may look at (`Sight`), and the looking itself (`Attention`).

Vaswani et al. (arXiv 1706.03762); grouped queries: Ainslie et al. (arXiv 2305.13245).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.gradients import by_hand, looked
from windlass.build.transformer.linear import Linear, fused
from windlass.build.transformer.norm import RMSNorm
from windlass.build.transformer.ragged import Together
from windlass.build.transformer.rope import rotate
from windlass.build.transformer.side_by_side import Shelf, side_by_side

_SHORT = 512
"""Up to this many tokens the explicit formula, compiled, is faster on a CPU than the fused kernel."""
_TINY = 64
"""Up to this many tokens PyTorch's kernel in float32 is faster on the way back than anything in bfloat16."""
STRIPE = 128
"""So many queries at a time, where none looks ahead: more and smaller stripes save little and cost time to compile."""


KeysValues = tuple[Tensor, Tensor]


class Sight(NamedTuple):
    """All that attention depends on beside the vectors. Computed once per pass and shared by layers of one kind."""

    causal: bool = False
    """Each position sees itself and those before it, and `mask` says nothing more."""
    mask: Tensor | None = None
    """Broadcasts to (B, H, T, S). Boolean: True where a position may look; float: added to the scores."""
    rotation: tuple[Tensor, Tensor] | None = None
    """Cosine and sine of the T positions' angles; broadcast to (B, H, T, rotary dimensions)."""
    cache: KVCache | None = None
    first: int = 0
    """The first cached position that any of the T still sees."""
    at: int | None = None
    """Where in the cache the T belong; None: behind all that it holds."""
    ordered: bool = False
    """`mask` lets no position see a later one either, and T = S: what lies ahead need not be computed."""
    stretches: tuple[tuple[int, int, Sight], ...] = ()
    """Of a row (B = 1) that holds texts, or parts of texts, one after another: how many neighbours have the same
    length, that length, and what each of them sees. Then nothing but the rotation is said here."""
    together: Together | None = None
    """Does what `stretches` would."""
    shelves: tuple[Shelf, ...] = ()
    """The same as `stretches`, of short texts that are learned from."""
    real: int | None = None
    """Positions of the row before its padding; None: there is none."""
    glimpses: tuple[tuple[Tensor, Tensor], ...] = ()
    """For each `STRIPE` queries in turn the keys that any of them sees (int64), and the mask over these; instead of
    `mask`, where most of it would say no."""


def visible(
    new: int,
    total: int,
    *,
    causal: bool,
    window: int | None = None,
    documents_BT: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Where each of the last `new` of `total` positions may look: boolean, (new, total) or (B, 1, new, total).

    A causal window is the last `window` positions, the own one included; otherwise it reaches window/2 to each side.
    Positions of different documents never see each other.
    """
    key_S = torch.arange(total, device=device)
    query_T1 = key_S[total - new :, None]
    half = total if window is None else window // 2
    back, ahead = (total if window is None else window - 1, 0) if causal else (half, half)
    seen = (key_S >= query_T1 - back) & (key_S <= query_T1 + ahead)
    if documents_BT is not None:
        seen = seen & (documents_BT[:, None, :, None] == documents_BT[:, None, None, :])
    return seen


def as_mask(seen: Tensor) -> Tensor:
    """What `visible` tells, as a sight's mask: numbers to add to the scores where the sequence is short, since compiled
    code does that much faster than it selects (docs/lab.md); as it is where a number a pair would take up memory."""
    if max(seen.shape[-2:]) > _SHORT:
        return seen
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, float("-inf"))


class Attention(nn.Module):
    """Of a sequence to itself, or to another one that was remembered."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.layer = config.heads, config.kv_heads, config.head_dim, layer
        self.scale, self.cap = config.score_scale, config.attention_cap
        self.query = Linear(config.hidden, config.heads * config.head_dim, config.qkv_bias)
        self.key = Linear(config.hidden, config.kv_heads * config.head_dim, config.qkv_bias)
        self.value = Linear(config.hidden, config.kv_heads * config.head_dim, config.qkv_bias)
        self.output = Linear(config.heads * config.head_dim, config.hidden, config.output_bias)
        self.query_norm, self.key_norm = _head_norm(config), _head_norm(config)

    def forward(self, x_BTC: Tensor, sight: Sight, memory: Tensor | KeysValues | None = None) -> Tensor:
        """`memory`: the other sequence (B, S, C), or what `remember` made of it."""
        if memory is None:
            q, k, v = fused(x_BTC, self.query, self.key, self.value)
            k_BKSD, v_BKSD = self._keys_values(k, v)
        else:
            q = self.query(x_BTC)
            k_BKSD, v_BKSD = self.remember(memory) if isinstance(memory, Tensor) else memory
        q_BHTD = self._split(q)
        if self.query_norm is not None:
            q_BHTD = self.query_norm(q_BHTD)
        return self.output(self._look(q_BHTD, k_BKSD, v_BKSD, sight).transpose(1, 2).flatten(2))

    def remember(self, x_BSC: Tensor) -> KeysValues:
        """Keys and values of another sequence, (B, K, S, D) each: made once, however often they are looked at."""
        return self._keys_values(*fused(x_BSC, self.key, self.value))

    def _keys_values(self, k: Tensor, v: Tensor) -> KeysValues:
        k_BKSD = self._split(k)
        return (k_BKSD if self.key_norm is None else self.key_norm(k_BKSD)), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, heads x D) -> (B, heads, T, D)"""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _look(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, sight: Sight) -> Tensor:
        """(B, H, T, D): each head's weighted sum of the values that it sees."""
        if sight.rotation is not None:
            q_BHTD, k_BKSD = rotate(q_BHTD, *sight.rotation), rotate(k_BKSD, *sight.rotation)
        if sight.shelves:
            return side_by_side(q_BHTD, k_BKSD, v_BKSD, sight.shelves, self.scale)
        if sight.real is not None:
            q, k, v = (x[:, :, : sight.real] for x in (q_BHTD, k_BKSD, v_BKSD))
            seen = self._look(q, k, v, sight._replace(rotation=None, real=None))
            return F.pad(seen, (0, 0, 0, q_BHTD.shape[2] - sight.real))
        if sight.together is not None:
            return sight.together(self.layer, q_BHTD, k_BKSD, v_BKSD)
        if sight.stretches:
            return self._look_by_stretch(q_BHTD, k_BKSD, v_BKSD, sight)
        if sight.cache is not None:
            k_BKSD, v_BKSD = sight.cache.extend(self.layer, k_BKSD, v_BKSD, sight.first, sight.at)
        if sight.glimpses:
            return torch.cat(
                [
                    self._attend(q, k_BKSD[:, :, keys], v_BKSD[:, :, keys], Sight(mask=mask))
                    for q, (keys, mask) in zip(torch.split(q_BHTD, STRIPE, dim=2), sight.glimpses, strict=True)
                ],
                dim=2,
            )
        return self._attend(q_BHTD, k_BKSD, v_BKSD, sight)

    def _look_by_stretch(self, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor, sight: Sight) -> Tensor:
        """The same, (1, H, T, D), where neighbours of equal length are a batch of their own: no mask, no padding."""
        out = []
        # Split at once: the way back of a slice fills as much memory as all stretches have, that of a split its own.
        sizes = [rows * length for rows, length, _ in sight.stretches]
        parts = zip(*(torch.split(x[0], sizes, dim=1) for x in (q_1HTD, k_1KTD, v_1KTD)), strict=True)
        for (rows, length, own), qkv in zip(sight.stretches, parts, strict=True):
            q, k, v = (x.view(x.shape[0], rows, length, self.head_dim).transpose(0, 1) for x in qkv)
            out.append(self._look(q, k, v, own).transpose(1, 2).flatten(0, 1))
        return (out[0] if len(out) == 1 else torch.cat(out)).transpose(0, 1)[None]

    def _attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, sight: Sight) -> Tensor:
        """The formula where the fused kernel is slower or cannot do it (it caps no scores), else the kernel."""
        group, mask, on_cpu = self.heads // self.kv_heads, sight.mask, q_BHTD.device.type == "cpu"
        explicit = self.cap is not None or (
            on_cpu and torch.compiler.is_compiling() and max(q_BHTD.shape[2], k_BKSD.shape[2]) <= _SHORT
        )
        learning = on_cpu and not explicit and q_BHTD.dtype == torch.bfloat16 and by_hand()
        if learning and max(q_BHTD.shape[2], k_BKSD.shape[2]) <= _TINY:
            return self._attend(q_BHTD.float(), k_BKSD.float(), v_BKSD.float(), sight).to(torch.bfloat16)
        # The kernel can share key/value heads by itself, which halves the time of reading a cache (docs/lab.md). When
        # training, repeating them is faster; and on a GPU a mask would then rule the fast kernels out.
        shares = not explicit and not torch.is_grad_enabled() and (on_cpu or mask is None)
        if group > 1 and not shares:
            k_BKSD, v_BKSD = (x.repeat_interleave(group, dim=1) for x in (k_BKSD, v_BKSD))
        if explicit:
            return _explicit(q_BHTD, k_BKSD, v_BKSD, sight, self.scale, self.cap)
        if learning and q_BHTD.shape[2] == k_BKSD.shape[2] and not (mask is not None and mask.requires_grad):
            ordered = sight.causal or sight.ordered
            return looked(q_BHTD * self.scale, k_BKSD, v_BKSD, _added(mask, q_BHTD), ordered)
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q_BHTD.dtype)
        return F.scaled_dot_product_attention(
            q_BHTD, k_BKSD, v_BKSD, attn_mask=mask, is_causal=sight.causal, scale=self.scale, enable_gqa=shares
        )


def _head_norm(config: TransformerConfig) -> RMSNorm | None:
    return RMSNorm(config.head_dim, config.norm_eps, config.norm_offset) if config.qk_norm else None


def _explicit(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, sight: Sight, scale: float, cap: float | None) -> Tensor:
    """Attention as the formula says, softmax in float32. `torch.compile` fuses what stands between the two matrix
    products; where no position looks ahead, stripes of queries leave out the keys ahead of them, and what one stripe
    needs stays in the cache. Both passes together take less than half of the fused kernel's time (docs/lab.md)."""
    length = q_BHTD.shape[2]
    stripe = min(length, STRIPE) if sight.causal or sight.ordered else length
    parts = []
    for start in range(0, length, stripe):
        stop = min(start + stripe, length)
        end = stop if sight.causal or sight.ordered else k_BHSD.shape[2]
        mask = _rows(sight, start, stop, end, q_BHTD.device)
        parts.append(_formula(q_BHTD[:, :, start:stop], k_BHSD[:, :, :end], v_BHSD[:, :, :end], mask, scale, cap))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _rows(sight: Sight, start: int, stop: int, end: int, device: torch.device) -> Tensor | None:
    """The mask of queries from `start` to `stop` and keys before `end`."""
    if sight.causal:
        return torch.full((stop - start, end), float("-inf"), device=device).triu(start + 1)
    if sight.mask is None:
        return None
    rows = sight.mask if sight.mask.shape[-2] == 1 else sight.mask[..., start:stop, :]
    return rows[..., :end]


def _added(mask: Tensor | None, q_BHTD: Tensor) -> Tensor | None:
    """A mask as numbers of four dimensions."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))
    return None if mask is None else mask.to(q_BHTD.dtype).view(*[1] * (4 - mask.ndim), *mask.shape)


def _formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, cap: float | None) -> Tensor:
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    # Softmax, but divided by the weights' sum after the product, in which far fewer numbers are left.
    weights = (scores - scores.amax(-1, keepdim=True).detach()).exp().to(v.dtype)
    total = weights.sum(-1, keepdim=True, dtype=torch.float32)
    return (torch.matmul(weights, v) / total).to(v.dtype)

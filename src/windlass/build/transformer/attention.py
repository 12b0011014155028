"""Causal self-attention with rotary positions and grouped key/value heads.

Vaswani et al. (arXiv 1706.03762); grouped queries: Ainslie et al. (arXiv 2305.13245).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import DecoderConfig
from windlass.build.transformer.linear import Linear, fused
from windlass.build.transformer.rope import rotate

_SHORT = 512
"""Up to this many tokens the explicit formula, compiled, is faster on a CPU than the fused kernel."""


class Attention(nn.Module):
    __call__: Callable[..., Tensor]

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.layer = config.heads, config.kv_heads, config.head_dim, layer
        self.query = Linear(config.hidden, config.heads * config.head_dim)
        self.key = Linear(config.hidden, config.kv_heads * config.head_dim)
        self.value = Linear(config.hidden, config.kv_heads * config.head_dim)
        self.output = Linear(config.heads * config.head_dim, config.hidden)

    def forward(self, x_BTC: Tensor, cos_TD: Tensor, sin_TD: Tensor, cache: KVCache | None = None) -> Tensor:
        B, T, _ = x_BTC.shape
        q, k, v = fused(x_BTC, self.query, self.key, self.value)
        q_BHTD = rotate(q.view(B, T, self.heads, self.head_dim).transpose(1, 2), cos_TD, sin_TD)
        k_BKTD = rotate(k.view(B, T, self.kv_heads, self.head_dim).transpose(1, 2), cos_TD, sin_TD)
        v_BKTD = v.view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        if cache is None:
            out_BHTD = self._attend(q_BHTD, k_BKTD, v_BKTD, None, causal=True)
        else:
            k_BKSD, v_BKSD = cache.extend(self.layer, k_BKTD, v_BKTD)
            mask_TS = _shifted_causal(T, k_BKSD.shape[2], x_BTC.device) if cache.length and T > 1 else None
            out_BHTD = self._attend(q_BHTD, k_BKSD, v_BKSD, mask_TS, causal=not cache.length)
        return self.output(out_BHTD.transpose(1, 2).reshape(B, T, self.heads * self.head_dim))

    def _attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        # Repeating the few key/value heads costs little, and the fused kernel then runs on every backend.
        group = self.heads // self.kv_heads
        k_BHSD = k_BKSD.repeat_interleave(group, dim=1) if group > 1 else k_BKSD
        v_BHSD = v_BKSD.repeat_interleave(group, dim=1) if group > 1 else v_BKSD
        if causal and torch.compiler.is_compiling() and q_BHTD.shape[2] <= _SHORT and q_BHTD.device.type == "cpu":
            return _explicit(q_BHTD, k_BHSD, v_BHSD)
        return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=mask, is_causal=causal)


def _explicit(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
    """Attention as the formula says, softmax in float32. `torch.compile` fuses what stands between the two matrix
    products, and both passes together take 0.6 of the fused kernel's time (docs/lab.md)."""
    T, D = q_BHTD.shape[-2:]
    scores_BHTT = (q_BHTD @ k_BHTD.transpose(-1, -2)).float() * D**-0.5
    future_TT = torch.ones(T, T, dtype=torch.bool, device=q_BHTD.device).triu(1)
    weights_BHTT = scores_BHTT.masked_fill(future_TT, float("-inf")).softmax(-1)
    return torch.matmul(weights_BHTT.to(v_BHTD.dtype), v_BHTD)


def _shifted_causal(new: int, total: int, device: torch.device) -> Tensor:
    """True where one of `new` last positions may look: at itself and everything before it; shape (new, total)."""
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new)

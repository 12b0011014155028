"""Attention of all texts of a pass in one call of the kernel in `native/attention.cpp`.

PyTorch's attention takes sequences of one length, so an engine would call it for each text by itself, in each layer. It
also adds up in an order that hangs on how many queries come at once; the kernel's order hangs on positions only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.ragged import Parts
from windlass.serve.engine.arithmetic import native


class NativeAttention:
    """A `ragged.Kernel` for float32 on a CPU. What a position finds has the same bits whatever is read along with it
    and however its text was cut into passes. Raises `native.Unavailable` where there are no kernels."""

    def __init__(self) -> None:
        native.library()

    def plan(
        self, config: TransformerConfig, local: bool, parts: Parts, rotation: tuple[Tensor, Tensor] | None
    ) -> Looking | None:
        """None for what the kernel does not know: distances as biases, capped scores, other numbers than float32."""
        if config.position in ("alibi", "relative") or config.attention_cap is not None or not config.causal:
            return None
        tensors = [tensor for cache in parts.caches for tensor in (cache.keys, cache.values)]
        if any(t.dtype != torch.float32 or t.device.type != "cpu" or t.stride(-2) != t.shape[-1] for t in tensors):
            return None
        table, offset = [], 0
        for cache, new in zip(parts.caches, parts.lengths, strict=True):
            keys, values = cache.keys, cache.values
            if keys.stride() != values.stride() or cache.length + new > keys.shape[3]:
                raise ValueError(f"a cache of {keys.shape[3]} positions cannot hold {cache.length} and {new} new ones")
            row = (keys.data_ptr(), values.data_ptr(), keys.stride(0), keys.stride(2), cache.length, new, offset)
            table.append(row)
            offset += new
        cos, sin = (None, None) if rotation is None else (x.float().contiguous() for x in rotation)
        if cos is not None and cos.shape[0] < offset:
            raise ValueError(f"{offset} positions are to be turned by {cos.shape[0]} rotations")
        return Looking(config, (config.window or 0) if local else 0, torch.tensor(table), offset, cos, sin)


class Looking:
    """What the positions of one pass look at, in all layers of one kind: a `ragged.Together`."""

    def __init__(
        self,
        config: TransformerConfig,
        window: int,
        table_P7: Tensor,
        tokens: int,
        cos: Tensor | None,
        sin: Tensor | None,
    ) -> None:
        self._kernel = native.library().windlass_attend
        self._alive = table_P7, cos, sin
        self.tokens = tokens
        self.native = native.Sight(
            *(table_P7.data_ptr(), len(table_P7)),
            *(None if x is None else x.data_ptr() for x in (cos, sin)),
            0 if cos is None else cos.shape[-1],
            *(config.heads, config.kv_heads, config.head_dim, window, config.score_scale),
        )
        """What the kernels know it by, while it lives."""

    def __call__(self, layer: int, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_1HTD, k_1KTD, v_1KTD))
        _, heads, tokens, dim = q.shape
        if any(x.dtype != torch.float32 for x in (q, k, v)):
            raise ValueError(f"the kernel reads float32, not {q.dtype}")
        if tokens != self.tokens:
            raise ValueError(f"{tokens} positions are looked from, but the parts have {self.tokens}")
        out_THD = torch.empty(tokens, heads, dim)
        views = (number for x in (q, k, v) for number in (x.data_ptr(), x.stride(1), x.stride(2)))
        self._kernel(self.native, layer, *views, out_THD.data_ptr())
        return out_THD.transpose(0, 1)[None]


def kernel_here() -> NativeAttention | None:
    """The kernel, or None where there are no native kernels."""
    return None if native.unavailable() is not None else NativeAttention()

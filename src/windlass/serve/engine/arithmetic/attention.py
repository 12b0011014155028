"""Attention of all texts of a pass in one call of the kernel in `native/attention.cpp`.

PyTorch's attention takes sequences of one length, so an engine would call it for each text by itself, in each layer. It
also adds up in an order that hangs on how many queries come at once; the kernel's order hangs on positions only.
"""

from __future__ import annotations

from array import array

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
        if (table_P7 := table(parts)) is None:
            return None
        cos, sin = (None, None) if rotation is None else (x.float().contiguous() for x in rotation)
        if cos is not None and cos.shape[0] < parts.total:
            raise ValueError(f"{parts.total} positions are to be turned by {cos.shape[0]} rotations")
        sight = sight_of(config, local, cos, sin)
        sight.parts, sight.count = table_P7.buffer_info()[0], len(parts.caches)
        return Looking(sight, parts.total, (table_P7, cos, sin))


def table(parts: Parts) -> array[int] | None:
    """Where the kernel finds each text's keys and values, as its source says; None where it cannot read them. Raises
    `ValueError` for a cache without room for what is new."""
    rows, offset = array("q"), 0
    for cache, new in zip(parts.caches, parts.lengths, strict=True):
        keys, values = cache.keys, cache.values
        if keys.dtype != torch.float32 or keys.device.type != "cpu" or keys.stride(-2) != keys.shape[-1]:
            return None
        if keys.stride() != values.stride() or cache.length + new > keys.shape[3]:
            raise ValueError(f"a cache of {keys.shape[3]} positions cannot hold {cache.length} and {new} new ones")
        strides = keys.stride()
        rows.extend((keys.data_ptr(), values.data_ptr(), strides[0], strides[2], cache.length, new, offset))
        offset += new
    return rows


def sight_of(config: TransformerConfig, local: bool, cos: Tensor | None, sin: Tensor | None) -> native.Sight:
    """Without parts. `cos` and `sin` are kept by the caller."""
    pointers = (None if x is None else x.data_ptr() for x in (cos, sin))
    return native.Sight(
        *(None, 0, *pointers, 0 if cos is None else cos.shape[-1], False),
        *(config.heads, config.kv_heads, config.head_dim, (config.window or 0) if local else 0, config.score_scale),
    )


class Looking:
    """What the positions of one pass look at, in all layers of one kind: a `ragged.Together`."""

    def __init__(self, sight: native.Sight, tokens: int, alive: object) -> None:
        """`alive`: what the sight points to."""
        self._kernel = native.library().windlass_attend
        self._sight, self._tokens, self._alive = sight, tokens, alive

    def __call__(self, layer: int, q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_1HTD, k_1KTD, v_1KTD))
        _, heads, tokens, dim = q.shape
        if any(x.dtype != torch.float32 for x in (q, k, v)):
            raise ValueError(f"the kernel reads float32, not {q.dtype}")
        if tokens != self._tokens:
            raise ValueError(f"{tokens} positions are looked from, but the parts have {self._tokens}")
        out_THD = torch.empty(tokens, heads, dim)
        views = (number for x in (q, k, v) for number in (x.data_ptr(), x.stride(1), x.stride(2)))
        self._kernel(self._sight, layer, *views, out_THD.data_ptr())
        return out_THD.transpose(0, 1)[None]


def kernel_here() -> NativeAttention | None:
    """The kernel, or None where there are no native kernels."""
    return None if native.unavailable() is not None else NativeAttention()

"""Gradients by hand, of the parts between the matrix products, where nothing compiles them.

What these parts cost is reading and writing memory. Autograd keeps every step between input and output in float32 and
goes over each of them again; by hand the input alone is kept, in its own precision, and the way back takes about half
as many passes. `torch.compile` does this by itself, and better, so these are for everything that is not compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def by_hand() -> bool:
    """Whether gradients are wanted, and no compiler will make them."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def rms_norm(x: Tensor, weight_C: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension, computed in float32 and rounded to the dtype of x."""
    apply: Callable[..., Tensor] = _RMSNorm.apply
    return apply(x, weight_C, eps)


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    apply: Callable[..., Tensor] = _GatedSiLU.apply
    return apply(gate, up)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `rope.rotate`, of vectors that are turned whole."""
    apply: Callable[..., Tensor] = _Turned.apply
    return apply(x, cos, sin)


def looked(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Tensor | None, ordered: bool) -> Tensor:
    """Each query's weighted sum of the values, (B, H, T, D), of queries that are scaled already.

    `mask` is added to the scores, (1 or B, 1 or H, T, T); `ordered`: no query looks ahead. On a CPU in bfloat16 this
    takes a third of the time of PyTorch's fused kernel, whose way back is slow there (docs/lab.md).
    """
    apply: Callable[..., Tensor] = _Looked.apply
    return apply(q_BHTD, k_BHTD, v_BHTD, mask, ordered)


def rounded(count: int) -> int:
    """Rows that a product in bfloat16 has instead of so many, at most a sixteenth more: for each new shape oneDNN makes
    and keeps code, 0.7 MB and a millisecond of it, and texts come in all lengths."""
    step = max(8, (1 << max(count - 1, 1).bit_length()) // 32)
    return -(-count // step) * step


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        inverse = torch.rsqrt(torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1] + eps)
        ctx.save_for_backward(x, weight_C, inverse)
        return wide.mul_(inverse).mul_(weight_C).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_C, inverse = ctx.saved_tensors
        normal = x.to(torch.float32, copy=True).mul_(inverse)
        wide = gradients[0].to(torch.float32, copy=True)
        of_weight = (wide * normal).flatten(0, -2).sum(0).to(weight_C.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None
        wide.mul_(weight_C)
        along = torch.linalg.vecdot(wide, normal).unsqueeze(-1) / x.shape[-1]
        return wide.addcmul_(normal, along, value=-1).mul_(inverse).to(x.dtype), of_weight, None


class _GatedSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (wide,) = gradients
        of_gate: Tensor = torch.ops.aten.silu_backward(wide * up, gate)
        return of_gate, F.silu(gate).mul_(wide)


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(gradients[0], cos, sin, -1), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    """Forwards (1) or back (-1): the way back of a turn is the turn back."""
    first, second = x.chunk(2, dim=-1)
    out = x * cos
    ahead, behind = out.chunk(2, dim=-1)
    sin_ahead, sin_behind = sin.chunk(2, dim=-1)
    ahead.addcmul_(second, sin_ahead, value=-way)
    behind.addcmul_(first, sin_behind, value=way)
    return out


_STRIPE = 256
"""So many queries at a time: what they all weigh never has to be in memory."""
_UNIT = 32
"""Texts are filled up to a multiple, for the reason that `rounded` tells."""


class _Looked(torch.autograd.Function):
    """The weights are made again on the way back, one text and one stripe of its queries at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, ordered: bool) -> Tensor:
        ctx.mask, ctx.ordered = mask, ordered
        ctx.save_for_backward(q, k, v)
        out = torch.empty_like(q)
        for text in range(len(q)):
            queries, keys, values = (_filled(x[text]) for x in (q, k, v))
            for start, stop, end in _stripes(queries, ordered):
                weights = _weights(queries, keys, mask, ordered, text, q.shape[2], start, stop, end)
                out[text, :, start:stop] = (weights @ values[:, :end])[:, : q.shape[2] - start]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        q, k, v = ctx.saved_tensors
        length, found = q.shape[2], tuple(torch.empty_like(x) for x in (q, k, v))
        for text in range(len(q)):
            queries, keys, values, wide = (_filled(x[text]) for x in (q, k, v, gradients[0]))
            of_q, of_k, of_v = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
            for start, stop, end in _stripes(queries, ctx.ordered):
                weights = _weights(queries, keys, ctx.mask, ctx.ordered, text, length, start, stop, end)
                of_v[:, :end] += weights.transpose(-1, -2) @ wide[:, start:stop]
                of_weights = wide[:, start:stop] @ values[:, :end].transpose(-1, -2)
                of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                of_q[:, start:stop] = of_scores @ keys[:, :end]
                of_k[:, :end] += of_scores.transpose(-1, -2) @ queries[:, start:stop]
            for whole, one in zip(found, (of_q, of_k, of_v), strict=True):
                whole[text] = one[:, :length]
        return *found, None, None


def _filled(x_HTD: Tensor) -> Tensor:
    return F.pad(x_HTD, (0, 0, 0, -x_HTD.shape[1] % _UNIT)).contiguous()


def _stripes(queries: Tensor, ordered: bool) -> list[tuple[int, int, int]]:
    """First and end of some queries, and the end of the keys that they may see."""
    length = queries.shape[1]
    stops = [min(start + _STRIPE, length) for start in range(0, length, _STRIPE)]
    return [(stop - 1 - (stop - 1) % _STRIPE, stop, stop if ordered else length) for stop in stops]


def _weights(
    queries: Tensor, keys: Tensor, mask: Tensor | None, ordered: bool, text: int, length: int, start: int, stop: int,
    end: int,
) -> Tensor:  # fmt: skip
    """What each query gives each key, (H, stop - start, end); nothing to those that a text was filled up with."""
    scores = queries[:, start:stop] @ keys[:, :end].transpose(-1, -2)
    if mask is not None:
        own = mask[text if len(mask) > 1 else 0, :, start:stop, :end]
        scores[:, : own.shape[1], : own.shape[2]] += own
    if ordered:  # whoever comes before what a text was filled up with does not see it either
        scores[:, :, start:] += scores.new_full((stop - start, end - start), float("-inf")).triu_(1)
    else:
        scores[:, :, length:] = float("-inf")
    return torch.softmax(scores, -1)

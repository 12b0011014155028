"""The small steps between matrix products, each by one call of `native/rows.cpp`.

PyTorch makes six passes of an RMS norm and two of a gate, which is what a decoding step of a small model mostly waits
for once its products are fast. Both are what the decoder's own modules compute, in float32; anything else they meet
(other dtypes, autograd) goes to those.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from windlass.build.transformer.mlp import ACTIVATIONS, MLP
from windlass.build.transformer.norm import RMSNorm
from windlass.serve.engine.arithmetic import native


class FusedNorm(nn.Module):
    """An `RMSNorm` in one pass. Raises `native.Unavailable` where there are no kernels."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.norm = norm
        self._kernel = native.library().windlass_rms_norm
        self.weight = (1.0 + norm.weight if norm.offset else norm.weight).detach().float().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        if _readable(x) and _rows(x) is None:
            x = x.contiguous()
        rows = _rows(x)
        if rows is None:
            return self.norm(x)
        count, stride = rows
        out = torch.empty(x.shape)
        width = x.shape[-1]
        self._kernel(x.data_ptr(), count, width, stride, self.weight.data_ptr(), self.norm.eps, out.data_ptr())
        return out


def silu_gate(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up in one pass. Raises `native.Unavailable` where there are no kernels."""
    rows = _rows(gate)
    if rows is None or rows != _rows(up):
        return nn.functional.silu(gate) * up
    out = torch.empty(gate.shape)
    count, stride = rows
    native.library().windlass_silu_mul(gate.data_ptr(), up.data_ptr(), count, gate.shape[-1], stride, out.data_ptr())
    return out


def fuse(model: nn.Module) -> list[Callable[[], None]]:
    """Puts norms and gates of one pass in the places of the modules' own; returns what undoes each. Raises
    `native.Unavailable` where there are no kernels."""
    undo: list[Callable[[], None]] = []
    for owner in list(model.modules()):
        for name, module in list(owner.named_children()):
            if isinstance(module, RMSNorm):
                setattr(owner, name, FusedNorm(module))
                undo.append(partial(setattr, owner, name, module))
        if isinstance(owner, MLP) and owner.activation is ACTIVATIONS["silu"]:
            undo.append(partial(setattr, owner, "gating", owner.gating))
            owner.gating = silu_gate
    return undo


def largest(x_NV: Tensor) -> tuple[Tensor, Tensor]:
    """The largest number of each row, (N,), NaN where the row holds one, and its place, (N,) int64.

    PyTorch would wake a team of threads of its own for that, one more that wants a processor: at 16 rows of 32,000
    numbers it worked, and mostly waited, for 2 ms of processor time in each step (docs/lab.md).
    """
    rows = _rows(x_NV) if x_NV.dim() == 2 and x_NV.numel() and native.unavailable() is None else None
    if rows is None:
        most_N, place_N = x_NV.max(dim=-1)
        return most_N, place_N
    count, stride = rows
    most_N, place_N = torch.empty(count), torch.empty(count, dtype=torch.int64)
    native.library().windlass_largest(
        x_NV.data_ptr(), count, x_NV.shape[-1], stride, most_N.data_ptr(), place_N.data_ptr()
    )
    return most_N, place_N


def _rows(x: Tensor) -> tuple[int, int] | None:
    """How many vectors x holds and how far apart they lie; None where the kernels cannot read them."""
    if not _readable(x):
        return None
    width = x.shape[-1]
    if x.is_contiguous():
        return (x.numel() // width if width else 0), width
    if x.stride(-1) != 1 or x.dim() < 2:
        return None
    for i in range(x.dim() - 2):
        if x.shape[i] != 1 and x.stride(i) != x.stride(i + 1) * x.shape[i + 1]:
            return None  # the vectors do not lie equally far apart
    return x.numel() // width, x.stride(-2)


def _readable(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad

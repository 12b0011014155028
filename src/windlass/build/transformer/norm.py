"""The two norms: both compute in float32 and return the dtype of what they were given.

RMSNorm (Zhang and Sennrich, arXiv 1910.07467) rescales a vector to unit root-mean-square; LayerNorm (Ba et al., arXiv
1607.06450) also takes its mean away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.gradients import by_hand, rms_norm


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension; with `offset`, times 1 + weight."""

    __call__: Callable[..., Tensor]

    def __init__(self, width: int, eps: float, offset: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        if by_hand():
            return rms_norm(x, 1.0 + self.weight if self.offset else self.weight, self.eps)
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (1.0 + self.weight if self.offset else self.weight)).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / deviation * weight + bias over the last dimension."""

    __call__: Callable[..., Tensor]

    def __init__(self, width: int, eps: float, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        if x.device.type == "cpu":  # its kernel computes in float32 by itself, and keeps no copy of x for the way back
            return F.layer_norm(x, self.weight.shape, self.weight.float(), bias, self.eps)
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), bias, self.eps).to(x.dtype)


def norm_of(config: TransformerConfig) -> RMSNorm | LayerNorm:
    """A norm of the residual stream, of the configured kind."""
    if config.norm == "rms":
        return RMSNorm(config.hidden, config.norm_eps, config.norm_offset)
    return LayerNorm(config.hidden, config.norm_eps, config.norm_bias)

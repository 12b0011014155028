"""RMSNorm (Zhang and Sennrich, arXiv 1910.07467): rescales each vector to unit root-mean-square."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension; computed in float32, returned in the dtype of `x`."""

    __call__: Callable[..., Tensor]

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)

"""A linear map whose arithmetic follows its input.

Weights stay in float32 and are cast to the dtype of the activations they meet, so the precision of a whole
forward pass is decided in one visible place: the dtype of the residual stream. No autocast context is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """y = x W^T (+ b) with W of shape (outputs, inputs), as in `torch.nn.Linear`."""

    __call__: Callable[..., Tensor]

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        """This map and others of the same input as one matrix product: see `fused`."""
        maps = (self, *others)
        if few(x) or any(type(m) is not Linear for m in maps):  # others may do more than multiply
            return tuple(m(x) for m in maps)
        return joined(x, maps)


_FEW = 128


def few(x: Tensor) -> bool:
    """Whether joining weights would cost more than it gains."""
    return x.shape[:-1].numel() <= _FEW


def joined(x: Tensor, maps: Sequence[Linear]) -> tuple[Tensor, ...]:
    """Weights and biases of all maps as one matrix product, whatever else the maps do."""
    weight = torch.cat([m.weight.to(x.dtype) for m in maps])
    biases = [m.bias.to(x.dtype) for m in maps if m.bias is not None]
    out = F.linear(x, weight, torch.cat(biases) if biases else None)
    return torch.split(out, [m.weight.shape[0] for m in maps], dim=-1)


def fused(x: Tensor, *maps: Linear) -> tuple[Tensor, ...]:
    """Several maps of the same input as one matrix product: fewer, larger products keep the cores busier.

    For a few vectors (a decoding step, a short query) joining the weights would cost more than it gains: there each
    map stays alone. Either all maps have a bias or none has. How it is done is the first map's choice, since an engine
    may hold the weights joined already.
    """
    return maps[0].together(x, *maps[1:])

"""LoRA: beside a matrix that stays as it is, the product of two thin ones (Hu et al., arXiv 2106.09685).

    y = W x + alpha / rank * B A x

A begins with random numbers and B with zeros, so that training begins with the model as it was.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.linear import Linear, few, joined


class LoRALinear(Linear):
    """A map of a frozen model with thin matrices beside it. Its weight keeps its name, so the base's tensors do too."""

    def __init__(self, base: Linear, rank: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = base.weight, base.bias
        outputs, inputs = base.weight.shape
        bound = 1 / math.sqrt(inputs)
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        self.scale, self.dropout = scale, dropout

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.added(x)

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        """The base's product of all maps at once, then what each of them adds."""
        maps: tuple[Linear, ...] = (self, *others)
        if few(x) or any(type(m) not in (Linear, LoRALinear) for m in maps):
            return tuple(m(x) for m in maps)
        outs = joined(x, maps)
        return tuple(out + m.added(x) if isinstance(m, LoRALinear) else out for out, m in zip(outs, maps, strict=True))

    def added(self, x: Tensor) -> Tensor:
        """What the thin matrices add, in the dtype of x."""
        if self.dropout and self.training:
            x = F.dropout(x, self.dropout)
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype) * self.scale)

    @torch.no_grad()
    def merged(self) -> Linear:
        """The map as one matrix."""
        outputs, inputs = self.weight.shape
        linear = Linear(inputs, outputs, bias=self.bias is not None)
        linear.weight.copy_(self.weight.float() + self.scale * (self.up.float() @ self.down.float()))
        if linear.bias is not None and self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear

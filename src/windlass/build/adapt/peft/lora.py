"""LoRA: beside a matrix that stays as it is, the product of two thin ones (Hu et al., arXiv 2106.09685).

    y = W x + s B A x

A begins with random numbers and B with zeros, so that training begins with the model as it was. s = alpha / rank, or
for rsLoRA alpha / sqrt(rank), with which large ranks learn as fast as small ones (Kalajdzievski, arXiv 2312.03732).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.adapt.peft.adapted import AdaptedLinear
from windlass.build.transformer.adapters.parts import LowRank
from windlass.build.transformer.linear import Linear


def begun(base: Linear, rank: int, alpha: float, rooted: bool, generator: torch.Generator) -> LowRank:
    """What training begins with: A as `torch.nn.Linear` would begin, B zero."""
    outputs, inputs = base.weight.shape
    bound = 1 / math.sqrt(inputs)
    down_RK = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
    return LowRank(down_RK, torch.zeros(outputs, rank), alpha, rooted)


class LoRALinear(AdaptedLinear):
    def __init__(self, base: Linear, part: LowRank, dropout: float = 0.0) -> None:
        super().__init__(base)
        self.down, self.up = nn.Parameter(part.down_RK.clone()), nn.Parameter(part.up_NR.clone())
        self.alpha, self.rooted, self.scale, self.dropout = part.alpha, part.rooted, part.scale, dropout

    def behind(self, out: Tensor, x: Tensor) -> Tensor:
        return out + self.added(self.left(x))

    def left(self, x: Tensor) -> Tensor:
        """What dropout leaves of the input."""
        return F.dropout(x, self.dropout) if self.dropout and self.training else x

    def added(self, x: Tensor) -> Tensor:
        """s B A x, in the dtype of x."""
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype) * self.scale)

    def part(self) -> LowRank:
        return LowRank(self.down, self.up, self.alpha, self.rooted)

    def matrix(self) -> Tensor:
        return self.base.weight.float() + self.scale * (self.up.float() @ self.down.float())

"""LoRA: beside a matrix that stays as it is, the product of two thin ones (Hu et al., arXiv 2106.09685).

    y = W x + s B A x

A begins with random numbers and B with zeros, so that training begins with the model as it was. s = alpha / rank, or
for rsLoRA alpha / sqrt(rank), with which large ranks learn as fast as small ones (Kalajdzievski, arXiv 2312.03732).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.adapt.peft.adapted import AdaptedLinear
from windlass.build.transformer.adapters.parts import LowRank
from windlass.build.transformer.gradients import by_hand
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

    def forward(self, x: Tensor) -> Tensor:
        return self.together(x)[0]

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        maps = [one for one in (self, *others) if isinstance(one, LoRALinear) and one._plain()]
        if by_hand() and len(maps) == 1 + len(others):
            return beside(x, maps)
        return super().together(x, *others)

    def _plain(self) -> bool:
        """Whether nothing but two products is added to the product of a frozen matrix."""
        frozen = type(self.base) is Linear and not any(p.requires_grad for p in self.base.parameters(recurse=False))
        return type(self) is LoRALinear and frozen and not (self.dropout and self.training)

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


def beside(x: Tensor, maps: Sequence[LoRALinear]) -> tuple[Tensor, ...]:
    """The maps of one input, with gradients by hand.

    What is thin is added by the products themselves to what is there, instead of by passes over memory of their own,
    and the way back keeps the input once and thin tensors, whereas autograd would keep the joined weights too.
    """
    apply: Callable[..., tuple[Tensor, ...]] = _Beside.apply
    tensors = [tensor for one in maps for tensor in (one.base.weight, one.down, one.up)]
    return apply(x, [(one.scale, one.base.bias) for one in maps], *tensors)


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, fixed: Sequence[tuple[float, Tensor | None]], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        x_NK, outs, thin = x.flatten(0, -2), [], []
        for (scale, bias), weight, down, up in zip(fixed, tensors[0::3], tensors[1::3], tensors[2::3], strict=True):
            thin_NR = F.linear(x_NK, down.to(x.dtype))
            out_NM = F.linear(x_NK, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
            outs.append(out_NM.addmm_(thin_NR, (up.to(x.dtype) * scale).T).view(*x.shape[:-1], -1))
            thin.append(thin_NR)
        ctx.scales = [scale for scale, _ in fixed]
        ctx.save_for_backward(x, *thin, *tensors)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, count = ctx.saved_tensors[0], len(ctx.scales)
        thin, tensors = ctx.saved_tensors[1 : 1 + count], ctx.saved_tensors[1 + count :]
        x_NK, of_x_NK, found = x.flatten(0, -2), None, []
        parts = zip(gradients, ctx.scales, thin, tensors[0::3], tensors[1::3], tensors[2::3], strict=True)
        for gradient, scale, thin_NR, weight, down, up in parts:
            out_NM = gradient.flatten(0, -2)
            of_thin_NR = out_NM @ (up.to(x.dtype) * scale)
            found += [None, (of_thin_NR.T @ x_NK).to(down.dtype), (out_NM.T @ thin_NR).to(up.dtype).mul_(scale)]
            if ctx.needs_input_grad[0]:
                wide = weight.to(x.dtype)
                of_x_NK = out_NM @ wide if of_x_NK is None else of_x_NK.addmm_(out_NM, wide)
                of_x_NK.addmm_(of_thin_NR, down.to(x.dtype))
        return (None if of_x_NK is None else of_x_NK.view(x.shape), None, *found)

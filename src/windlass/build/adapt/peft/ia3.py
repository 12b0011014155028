"""(IA)3: keys, values and the inner activations of MLPs, each times a number that is learned (Liu et al., 2205.05638).

Fewer numbers than LoRA of rank 1, and merged they cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from windlass.build.adapt.peft.adapted import AdaptedLinear
from windlass.build.transformer.adapters.parts import Rescaled
from windlass.build.transformer.linear import Linear


class IA3Linear(AdaptedLinear):
    def __init__(self, base: Linear, part: Rescaled) -> None:
        super().__init__(base)
        self.factors, self.on_input = nn.Parameter(part.factors), part.on_input

    def forward(self, x: Tensor) -> Tensor:
        if self.on_input:
            return self.base(x * self.factors.to(x.dtype))
        return self.behind(self.base(x), x)

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        if self.on_input or any(isinstance(one, IA3Linear) and one.on_input for one in others):
            return tuple(one(x) for one in (self, *others))  # they do not read the same any more
        return super().together(x, *others)

    def behind(self, out: Tensor, x: Tensor) -> Tensor:
        return out * self.factors.to(out.dtype)

    def part(self) -> Rescaled:
        return Rescaled(self.factors, self.on_input)

    def matrix(self) -> Tensor:
        factors = self.factors if self.on_input else self.factors[:, None]
        return self.base.weight.float() * factors

    def shift(self) -> Tensor | None:
        bias = super().shift()
        return bias if bias is None or self.on_input else bias * self.factors


def begun(base: Linear, on_input: bool) -> Rescaled:
    """Ones: the model as it was."""
    return Rescaled(torch.ones(base.weight.shape[1 if on_input else 0]), on_input)

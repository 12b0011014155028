"""A map of a frozen model with something trained beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from windlass.build.transformer.adapters.parts import Part
from windlass.build.transformer.linear import Linear


class AdaptedLinear(Linear, ABC):
    """The base map does its own arithmetic, whatever that is; each kind of adapter says what becomes of the product."""

    def __init__(self, base: Linear) -> None:
        nn.Module.__init__(self)
        self.base = base

    @abstractmethod
    def behind(self, out: Tensor, x: Tensor) -> Tensor:
        """The map's output, given the base's for the same input; both in the dtype of x."""

    @abstractmethod
    def part(self) -> Part:
        """What is trained, as a value that shares its memory."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """The weight of one plain map that does the same, float32."""

    def shift(self) -> Tensor | None:
        """Its bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.base(x), x)

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        """The bases' products of all maps at once, then what each adapter makes of its own."""
        maps: tuple[Linear, ...] = (self, *others)
        outs = self.base.together(x, *(one.base if isinstance(one, AdaptedLinear) else one for one in others))
        return tuple(
            one.behind(out, x) if isinstance(one, AdaptedLinear) else out for one, out in zip(maps, outs, strict=True)
        )

    @torch.no_grad()
    def merged(self) -> Linear:
        """The map as one matrix."""
        weight, bias = self.matrix(), self.shift()
        linear = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        linear.weight.copy_(weight)
        if linear.bias is not None and bias is not None:
            linear.bias.copy_(bias)
        return linear

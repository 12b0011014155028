"""A frozen base in 4 or 8 bits, beside which an adapter is trained (QLoRA: Dettmers et al., arXiv 2305.14314).

Only the maps of attention and MLPs are quantised; tables, norms and heads stay as they are. A map becomes numbers of
the activations' dtype when it is needed, and again on the way back: nothing of that size is kept between the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.adapt.peft.quantised_values import Quantised, dequantised, quantised
from windlass.build.transformer.attention import Attention
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import MLP


class QuantisedLinear(Linear):
    """y = x W^T (+ b) with a W that is never trained. Its codes are no part of the state: the base has them."""

    codes: Tensor
    scales: Tensor

    def __init__(self, plain: Linear, bits: int) -> None:
        nn.Module.__init__(self)
        small = quantised(plain.weight, bits)
        self.shape, self.bits, self.bias = small.shape, small.bits, plain.bias
        self.register_buffer("codes", small.codes, persistent=False)
        self.register_buffer("scales", small.scales, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # no parameter: made anew each time
        """W in float32."""
        return dequantised(Quantised(self.codes, self.scales, self.shape))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Product.apply(x, self.codes, self.scales, self.shape)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(x.dtype)

    @torch.no_grad()
    def plain(self) -> Linear:
        """The map with the rounded numbers, float32."""
        linear = Linear(self.shape[1], self.shape[0], bias=self.bias is not None)
        linear.weight.copy_(self.weight)
        if linear.bias is not None and self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear


class _Product(torch.autograd.Function):
    """x W^T. Plain autograd would keep every dequantised W until the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.shape = shape
        return F.linear(x, dequantised(Quantised(codes, scales, shape), x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        codes, scales = ctx.saved_tensors
        return grads[0] @ dequantised(Quantised(codes, scales, ctx.shape), grads[0].dtype), None, None, None


def quantise(model: nn.Module, bits: int | None) -> None:
    """Puts the maps of a model's blocks into so many bits, in place, one at a time; None: leaves them as they are."""
    if bits is not None:
        _replace(model, lambda linear: QuantisedLinear(linear, bits) if type(linear) is Linear else linear)


def dequantise(model: nn.Module) -> None:
    """Makes plain float32 maps of those in few bits, rounded as they are, in place."""
    _replace(model, lambda linear: linear.plain() if isinstance(linear, QuantisedLinear) else linear)


@contextlib.contextmanager
def unrounded(model: nn.Module, base: nn.Module) -> Iterator[None]:
    """Within the block the maps in few bits are those of `base`, which is the same model as it was before; what stands
    beside them stays."""
    plain = dict(base.named_modules())
    places = [
        (owner, child, linear, plain[f"{name}.{child}".removesuffix(".base")])
        for name, owner in model.named_modules()
        for child, linear in owner.named_children()
        if isinstance(linear, QuantisedLinear)
    ]
    try:
        for owner, child, _, whole in places:
            setattr(owner, child, whole)
        yield
    finally:
        for owner, child, rounded, _ in places:
            setattr(owner, child, rounded)


def state_of(model: nn.Module) -> Mapping[str, Tensor]:
    """The model's state, with the weights of quantised maps that have no adapter."""
    small = {f"{name}.weight": one.weight for name, one in model.named_modules() if isinstance(one, QuantisedLinear)}
    return {**model.state_dict(), **small}


def numbers(model: nn.Module) -> int:
    """Parameters of a model, whatever they are kept in."""
    small = sum(one.shape[0] * one.shape[1] for one in quantised_maps(model))
    return small + sum(parameter.numel() for parameter in model.parameters())


def told(model: nn.Module) -> str:
    """What is quantised, for the person who watches; empty where nothing is."""
    maps = quantised_maps(model)
    if not maps:
        return ""
    count = sum(one.shape[0] * one.shape[1] for one in maps)
    size = sum(one.codes.nbytes + one.scales.nbytes for one in maps)
    return (
        f"; {count:,} are frozen in {maps[0].bits} bits, {size / 1e6:,.1f} MB with their scales instead of "
        f"{count * 4 / 1e6:,.1f} in float32"
    )


def quantised_maps(model: nn.Module) -> list[QuantisedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantisedLinear)]


def _replace(model: nn.Module, other: Callable[[Linear], Linear]) -> None:
    for owner in list(model.modules()):
        if isinstance(owner, Attention | MLP):
            for child, linear in list(owner.named_children()):
                if isinstance(linear, Linear):
                    setattr(owner, child, other(linear))

"""Where a model multiplies, and what may be put there in place of its own `Linear`s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.attention import Attention
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import MLP


class Product(Protocol):
    """x (..., inputs) -> x W^T + b (..., outputs) in the dtype of x, of weights that it holds in its own way."""

    bytes: int
    """What one pass reads of the weights."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Served(Linear):
    """A `Linear` whose outputs are `rows` of a product, which others of the same input may share."""

    def __init__(self, product: Product, rows: slice) -> None:
        nn.Module.__init__(self)  # no parameters: the product holds the weights
        self.product, self.rows = product, rows

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)[..., self.rows]

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        parts = [other.rows for other in others if isinstance(other, Served) and other.product is self.product]
        if len(parts) < len(others):
            return self(x), *(other(x) for other in others)
        out = self.product(x)
        return tuple(out[..., rows] for rows in (self.rows, *parts))


@dataclass(frozen=True, slots=True)
class Place:
    """Maps of the same input, attributes `names` of `owner`, to become one product."""

    owner: nn.Module
    names: tuple[str, ...]

    def joined(self) -> tuple[Tensor, Tensor | None]:
        maps: list[Any] = [getattr(self.owner, name) for name in self.names]
        if maps == [None]:  # a head that is the embedding
            embedding: Tensor = self.owner.embedding  # type: ignore[assignment]
            return embedding, None
        biases = [m.bias for m in maps if m.bias is not None]
        return torch.cat([m.weight for m in maps]), torch.cat(biases) if biases else None

    def replace(self, product: Product) -> Callable[[], None]:
        """Puts served maps in the places; returns what undoes it."""
        before: dict[str, Any] = {name: getattr(self.owner, name) for name in self.names}
        start = 0
        for name, linear in before.items():
            stop = start + (0 if linear is None else linear.weight.shape[0])
            setattr(self.owner, name, Served(product, slice(start, None if linear is None else stop)))
            start = stop

        def undo() -> None:
            for name, linear in before.items():
                setattr(self.owner, name, linear)

        return undo


def places(decoder: Decoder) -> Iterator[Place]:
    """Those of all blocks, and the head."""
    for module in list(decoder.modules()):
        if isinstance(module, Attention):
            yield Place(module, ("query", "key", "value"))
            yield Place(module, ("output",))
        elif isinstance(module, MLP):
            yield Place(module, ("up",) if module.gate is None else ("gate", "up"))
            yield Place(module, ("down",))
    yield Place(decoder, ("head",))


def error_of(product: Product, weight_NK: Tensor, bias_N: Tensor | None) -> float:
    """Root mean square of a product's deviation from float32, relative to the product's own, on normal inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, weight_NK.shape[1], generator=generator)  # not a power of two: kernels have tails
    expected = F.linear(x, weight_NK, bias_N)
    difference = (product(x) - expected).square().mean().sqrt()
    return float(difference / expected.square().mean().sqrt().clamp_min(1e-30))

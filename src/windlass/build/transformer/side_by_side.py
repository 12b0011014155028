"""Attention of short texts that stand one after another in a row, while they are trained on a CPU.

PyTorch's kernel takes texts of one length at a time, and of a dozen tokens its overhead is more than the arithmetic: 32
questions have a dozen lengths, and their attention took a tenth of a step (docs/lab.md). Here texts of about the same
length are filled up to the longest of them, and are one batch of products, in float32; the way back is by hand, since
autograd would take some dozen small steps for each product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

SHORT = 64
"""Tokens of a text, at most; of longer ones products alone are faster, and filling up costs more."""
_STEP = 16
"""Texts are filled up to a multiple."""
_AT_ONCE = 2048
"""Positions: what they weigh stays in the cache."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """N texts that follow each other in the row, as if each had L positions."""

    size: tuple[int, int]
    """N and L."""
    places_P: Tensor
    """Where in the row each of the N x L positions stands; behind the end of a text, the last one of the text."""
    mask_N1L: Tensor
    """What is added to scores: 0, and behind the end of a text minus infinity."""
    numbers_R: Tensor
    """Of the N x L positions those of the texts, in the order of the row."""
    where: slice
    """Where they stand in the row."""

    def filled(self, x_1HTD: Tensor) -> Tensor:
        """The shelf's part of the row, (N x H, L, D) in float32; behind the end of a text again what stands there."""
        return self._by_head(x_1HTD[0].transpose(0, 1).index_select(0, self.places_P))

    def padded(self, x_1HTD: Tensor) -> Tensor:
        """The same with zeros behind the end."""
        x_THD = x_1HTD[0].transpose(0, 1)
        zeros_PHD = x_THD.new_zeros(len(self.places_P), *x_THD.shape[1:])
        return self._by_head(zeros_PHD.index_copy_(0, self.numbers_R, x_THD[self.where]))

    def _by_head(self, x_PHD: Tensor) -> Tensor:
        x_NHLD = x_PHD.view(*self.size, *x_PHD.shape[1:]).transpose(1, 2)
        wide = torch.promote_types(x_PHD.dtype, torch.float32)
        return x_NHLD.to(wide, memory_format=torch.contiguous_format).flatten(0, 1)

    def weights(self, queries: Tensor, keys: Tensor, scale: float) -> Tensor:
        """What each query gives each key, (N x H, L, L): nothing to those behind the end."""
        scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
        scores.view(self.size[0], -1, self.size[1]).add_(self.mask_N1L)
        return torch.softmax(scores, -1)

    def put(self, x: Tensor, row_THD: Tensor) -> None:
        """Puts what was made of the texts, (N x H, L, D), where they stand in the row."""
        x_NLHD = x.view(self.size[0], -1, *x.shape[1:]).transpose(1, 2).to(row_THD.dtype)
        row_THD[self.where] = x_NLHD.flatten(0, 1).index_select(0, self.numbers_R)


def shelves(lengths: Sequence[int]) -> tuple[Shelf, ...]:
    """For a row of texts of these lengths, which had best be sorted."""
    return tuple(_shelves(lengths))


def _shelves(lengths: Sequence[int]) -> Iterator[Shelf]:
    start = 0
    for _, neighbours in groupby(lengths, key=lambda length: -(-length // _STEP)):
        alike = list(neighbours)
        most = max(1, _AT_ONCE // max(alike))
        for first in range(0, len(alike), most):
            own_N = torch.tensor(alike[first : first + most])
            firsts_N = start + own_N.cumsum(0) - own_N
            number_L = torch.arange(int(own_N.max()))
            real_NL = number_L < own_N[:, None]
            yield Shelf(
                (len(own_N), len(number_L)),
                (firsts_N[:, None] + torch.minimum(number_L, own_N[:, None] - 1)).flatten(),
                torch.zeros(real_NL.shape).masked_fill_(~real_NL, float("-inf"))[:, None],
                real_NL.flatten().nonzero().squeeze(1),
                slice(start, start + int(own_N.sum())),
            )
            start += int(own_N.sum())


def side_by_side(q_1HTD: Tensor, k_1HTD: Tensor, v_1HTD: Tensor, shelves: Sequence[Shelf], scale: float) -> Tensor:
    """Each query's weighted sum of the values of its text, (1, H, T, D); zeros for positions that are on no shelf."""
    apply: Callable[..., Tensor] = _SideBySide.apply
    return apply(q_1HTD, k_1HTD, v_1HTD, shelves, scale)


class _SideBySide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shelves: Sequence[Shelf], scale: float) -> Tensor:
        ctx.shelves, ctx.scale, kept = shelves, scale, []
        out_THD = _row_like(q)
        for shelf in shelves:
            queries, keys, values = (shelf.filled(x) for x in (q, k, v))
            weights = shelf.weights(queries, keys, scale)
            shelf.put(torch.bmm(weights, values), out_THD)
            kept += [queries, keys, values, weights]
        ctx.save_for_backward(*kept)
        return out_THD.transpose(0, 1)[None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        found = [_row_like(gradients[0]) for _ in range(3)]
        for number, shelf in enumerate(ctx.shelves):
            queries, keys, values, weights = ctx.saved_tensors[4 * number : 4 * number + 4]
            wide = shelf.padded(gradients[0])
            of_weights = torch.bmm(wide, values.transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            shelf.put(torch.bmm(of_scores, keys), found[0])
            shelf.put(torch.bmm(of_scores.transpose(1, 2), queries), found[1])
            shelf.put(torch.bmm(weights.transpose(1, 2), wide), found[2])
        return *(row_THD.transpose(0, 1)[None] for row_THD in found), None, None


def _row_like(x_1HTD: Tensor) -> Tensor:
    return x_1HTD.new_zeros(x_1HTD.shape[2], x_1HTD.shape[1], x_1HTD.shape[3])

"""What an adapter holds, apart from any model: one part for each of our maps that it changes.

Several of our maps may be one module elsewhere (query, key and value of Phi-3), so parts are joined and divided
without changing what they compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """W' x = W x + s B A x of R ranks, N outputs and K inputs.

    LoRA (Hu et al., arXiv 2106.09685) has s = alpha / R, rsLoRA (Kalajdzievski, arXiv 2312.03732) alpha / sqrt(R).
    With magnitudes it is DoRA (Liu et al., arXiv 2402.09353): row n of W + s B A is scaled to length magnitude n.
    """

    down_RK: Tensor
    up_NR: Tensor
    alpha: float
    rooted: bool = False
    """s is that of rsLoRA."""
    magnitude_N: Tensor | None = None

    @property
    def rank(self) -> int:
        return len(self.down_RK)

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rooted else self.rank)


@dataclass(frozen=True, slots=True, eq=False)
class Rescaled:
    """(IA)3 (Liu et al., arXiv 2205.05638): every input, or every output, times a number of its own."""

    factors: Tensor
    on_input: bool


Part = LowRank | Rescaled


VirtualKind = Literal["prompt", "prefix"]


@dataclass(frozen=True, slots=True, eq=False)
class Virtual:
    """What stands before every text, position by position (the rows)."""

    kind: VirtualKind
    """`prompt`: rows are what the first block reads there; `prefix`: all layers' keys and values, (layers, 2, kv heads,
    head dimensions), the keys turned for their positions already."""
    vectors: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of a table that were trained each by itself: those of a few tokens."""

    ids: tuple[int, ...]
    vectors_NC: Tensor
    """What stands in these rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    parts: Mapping[str, Part]
    """By the name of our map: `blocks.0.attention.query`."""
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of the model that were trained as they are, such as a new head, by our names."""
    virtual: Virtual | None = None
    rows: Mapping[str, Rows] = field(default_factory=dict)
    """By our names: `embedding`, `head.weight`."""


def joined(parts: Sequence[LowRank | None], outputs: Sequence[int]) -> LowRank:
    """Parts of maps that read the same and whose outputs stand one behind the other, as one part of all ranks.

    None is a map that nothing is added to. `outputs`: of each map. Magnitudes have all parts or none.
    """
    there = [part for part in parts if part is not None]
    first, ranks = there[0], sum(part.rank for part in there)
    up_NR = first.up_NR.new_zeros(sum(outputs), ranks)
    row = column = 0
    for part, rows in zip(parts, outputs, strict=True):
        if part is not None:
            up_NR[row : row + rows, column : column + part.rank] = part.up_NR * (part.scale / first.scale)
            column += part.rank
        row += rows
    magnitudes = [part.magnitude_N for part in there if part.magnitude_N is not None]
    alpha = first.scale * (math.sqrt(ranks) if first.rooted else ranks)
    down_RK = torch.cat([part.down_RK for part in there])
    return LowRank(down_RK, up_NR, alpha, first.rooted, torch.cat(magnitudes) if magnitudes else None)


def divided(part: LowRank, outputs: Sequence[int]) -> list[LowRank]:
    """The part of each map. They have the same A, as long as nobody trains them further."""
    none: list[Tensor | None] = [None] * len(outputs)
    magnitudes = none if part.magnitude_N is None else list(torch.split(part.magnitude_N, list(outputs)))
    ups = torch.split(part.up_NR, list(outputs))
    return [replace(part, up_NR=up.clone(), magnitude_N=one) for up, one in zip(ups, magnitudes, strict=True)]

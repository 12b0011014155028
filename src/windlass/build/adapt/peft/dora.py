"""DoRA: the direction of each row learns by LoRA, its length by a number of its own (Liu et al., arXiv 2402.09353).

    y = m / |W + s B A| (W + s B A) x        |.|: the length of each row

The paper takes lengths over what it calls columns: all weights of one output, which are rows here. As there (section
4.3), the length below the fraction carries no gradient, which costs nothing in accuracy and saves much memory.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from windlass.build.adapt.peft.lora import LoRALinear, begun
from windlass.build.transformer.adapters.parts import LowRank
from windlass.build.transformer.linear import Linear


def begun_with_lengths(base: Linear, rank: int, alpha: float, rooted: bool, generator: torch.Generator) -> LowRank:
    """LoRA's beginning, and each row as long as it is."""
    part = begun(base, rank, alpha, rooted, generator)
    return replace(part, magnitude_N=base.weight.detach().float().norm(dim=1))


class DoRALinear(LoRALinear):
    _squares: Tensor

    def __init__(self, base: Linear, part: LowRank, dropout: float = 0.0) -> None:
        super().__init__(base, part, dropout)
        assert part.magnitude_N is not None
        self.magnitude = nn.Parameter(part.magnitude_N.clone())
        self.register_buffer("_squares", base.weight.detach().float().square().sum(1), persistent=False)

    def behind(self, out: Tensor, x: Tensor) -> Tensor:
        """Dropout, as in PEFT, leaves out inputs of all that training changes, and none of the base's own."""
        factor_N = (self.magnitude / self._lengths()).to(x.dtype)
        bias = self.base.bias
        plain = out if bias is None else out - bias.to(x.dtype)
        left = self.left(x)
        if left is x:
            out = factor_N * (plain + self.added(x))
            return out if bias is None else out + bias.to(x.dtype)
        seen = self.base(left) if bias is None else self.base(left) - bias.to(x.dtype)
        changed = (factor_N - 1) * seen + factor_N * self.added(left)
        return (plain if bias is None else plain + bias.to(x.dtype)) + changed

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        """Of the rows of W + s B A, which is never made: |w + s b A|^2 = |w|^2 + 2 s (w A^T) b + s^2 b (A A^T) b."""
        down, up = self.down.float(), self.up.float() * self.scale
        crossed = ((self.base.weight.float() @ down.T) * up).sum(1)
        squares: Tensor = self._squares + 2 * crossed + ((up @ (down @ down.T)) * up).sum(1)
        return squares.clamp_min(1e-12).sqrt()

    def part(self) -> LowRank:
        return replace(super().part(), magnitude_N=self.magnitude)

    def matrix(self) -> Tensor:
        whole = super().matrix()
        factor_N: Tensor = self.magnitude / whole.norm(dim=1)
        return whole * factor_N[:, None]

"""Rotary position embedding (Su et al., arXiv 2104.09864) and the ways to stretch it to longer contexts.

Dimension i of a head is paired with dimension i + R/2, where R dimensions are turned (the layout of Hugging Face's
weights), and each pair is turned by an angle proportional to the position: the dot product of a query and a key then
depends on their distance only. Low frequencies that never completed a turn in pre-training are what fails beyond its
context; every stretching slows them down, and they differ in what they do to the high ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from windlass.build.transformer.config import RopeScaling
from windlass.build.transformer.gradients import by_hand
from windlass.build.transformer.gradients import turned as turn


def frequencies(dims: int, theta: float, scaling: RopeScaling | None, long: bool = False) -> tuple[Tensor, float]:
    """Angle per position of each of the dims/2 pairs, float32, and the factor of cosine and sine.

    `long` chooses LongRoPE's factors for sequences beyond the original context; the other kinds know no difference.
    """
    exponent = torch.arange(0, dims, 2, dtype=torch.float32) / dims
    plain = 1.0 / theta**exponent
    if scaling is None:
        return plain, 1.0
    match scaling.kind:
        case "linear":  # Chen et al., arXiv 2306.15595
            return plain / scaling.factor, 1.0
        case "llama3":
            return _llama3(plain, scaling), 1.0
        case "yarn":
            return _yarn(plain, dims, theta, scaling), _tempering(scaling)
        case "longrope":  # Ding et al., arXiv 2402.13753
            factors = scaling.long_factors if long else scaling.short_factors
            return 1.0 / (torch.tensor(factors, dtype=torch.float32) * theta**exponent), _tempering(scaling)


def rotations(positions: Tensor, frequency: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, float32: one more dimension than `positions`, of 2 x pairs."""
    angle = positions.float()[..., None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos() * factor, angle.sin() * factor


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns queries or keys to their positions; dimensions beyond the width of `cos` stay as they are."""
    turned = cos.shape[-1]
    if turned < x_BHTD.shape[-1]:
        return torch.cat([rotate(x_BHTD[..., :turned], cos, sin), x_BHTD[..., turned:]], dim=-1)
    if by_hand():
        return turn(x_BHTD, cos, sin)
    first, second = x_BHTD.chunk(2, dim=-1)
    quarter = torch.cat([-second, first], dim=-1)
    return x_BHTD * cos.to(x_BHTD.dtype) + quarter * sin.to(x_BHTD.dtype)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Long waves slowed down, short ones kept, a smooth passage between (Llama 3.1, arXiv 2407.21783)."""
    wavelength = 2 * math.pi / plain
    share_kept = (scaling.original_context / wavelength - scaling.low) / (scaling.high - scaling.low)
    share_kept = share_kept.clamp(0.0, 1.0)
    return (1 - share_kept) * plain / scaling.factor + share_kept * plain


def _yarn(plain: Tensor, dims: int, theta: float, scaling: RopeScaling) -> Tensor:
    """As Llama 3's, but the passage is linear in the dimension (Peng et al., arXiv 2309.00071, section 3.2)."""

    def dimension(turns: float) -> float:
        """Where a frequency completes so many turns within the original context."""
        return dims * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = dimension(scaling.fast), dimension(scaling.slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    ramp = (torch.arange(dims // 2, dtype=torch.float32) - first) / (last - first or 0.001)
    share_slowed = ramp.clamp(0.0, 1.0)
    return plain / scaling.factor * share_slowed + plain * (1 - share_slowed)


def _tempering(scaling: RopeScaling) -> float:
    """Longer sequences flatten the softmax; a larger dot product makes up for it."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_context))

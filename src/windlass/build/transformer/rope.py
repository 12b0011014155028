"""Rotary position embedding (Su et al., arXiv 2104.09864).

Dimension i of a head is paired with dimension i + D/2 (the layout of Hugging Face's Llama weights), and each pair
is turned by an angle proportional to the position: the dot product of a query and a key then depends on their
distance only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotations(positions: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each of shape (positions, head_dim), float32."""
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Turns queries or keys to their positions."""
    first, second = x_BHTD.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return x_BHTD * cos_TD.to(x_BHTD.dtype) + turned * sin_TD.to(x_BHTD.dtype)

"""Ways to tell positions apart that are not rotations: tables added to the input, and biases added to the scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def positions_in_documents(documents_BT: Tensor) -> Tensor:
    """The place of every position in its document, counted from 0; a new number starts a new document."""
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    starts_BT = torch.zeros_like(documents_BT)
    starts_BT[:, 1:] = torch.where(documents_BT[:, 1:] != documents_BT[:, :-1], index_T[1:], 0)
    return index_T - starts_BT.cummax(dim=1).values


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sine and cosine, alternating, of wavelengths from 2 pi to 10,000 x 2 pi (Vaswani et al., arXiv 1706.03762);
    one more dimension than `positions`, of `width`, float32."""
    pairs = (width + 1) // 2
    exponent = torch.arange(pairs, dtype=torch.float32, device=positions.device) * 2 / width
    angle = positions.float()[..., None] / 10_000.0**exponent
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :width]


def alibi_slopes(heads: int) -> Tensor:
    """How fast each head's scores fall with distance: 2^(-8/n), 2^(-16/n), ... for n heads when n is a power of two;
    else those of the next lower power, and every other one of the next higher (Press et al., arXiv 2108.12409)."""
    power = 2 ** math.floor(math.log2(heads))

    def geometric(n: int) -> list[float]:
        return [2 ** (-8 * (head + 1) / n) for head in range(n)]

    return torch.tensor(geometric(power) + geometric(2 * power)[::2][: heads - power])


def relative_buckets(distance: Tensor, *, causal: bool, buckets: int, far: int) -> Tensor:
    """The bucket of each `distance` (key position - query position), int64 (T5: Raffel et al., arXiv 1910.10683).

    Half of the buckets hold one small distance each, the others ever wider ranges up to `far`; when not causal, each
    direction has half of them all.
    """
    bucket = torch.zeros_like(distance)
    if not causal:
        buckets //= 2
        bucket = (distance > 0).long() * buckets
    steps = (-distance).clamp(min=0) if causal else distance.abs()
    exact = buckets // 2
    wide = (steps.clamp(min=1).float() / exact).log() / math.log(far / exact) * (buckets - exact)
    wide = (exact + wide.long()).clamp(max=buckets - 1)
    return bucket + torch.where(steps < exact, steps, wide)

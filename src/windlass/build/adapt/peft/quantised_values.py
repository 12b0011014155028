"""Matrices as small whole numbers, with one scale for each 64 of them.

4 bits: NF4 (QLoRA: Dettmers et al., arXiv 2305.14314). Its 16 values are quantiles of the normal distribution, which
weights resemble, and 0. Block and byte layout are those of bitsandbytes: row after row, 64 numbers a block, the first
of two in the upper half of a byte. The scales stay in float32, 0.5 bits a weight; they are not quantised once more.

8 bits: whole numbers from -127 to 127, by the largest number of the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The values of the paper's appendix E."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    codes: Tensor
    """4 bits: uint8, two codes a byte; 8 bits: int8. Whole blocks, so there may be more than the matrix has."""
    scales: Tensor
    """float32, of each block: its largest absolute number."""
    shape: tuple[int, int]

    @property
    def bits(self) -> int:
        return 4 if self.codes.dtype == torch.uint8 else 8


@torch.no_grad()
def quantised(matrix: Tensor, bits: int) -> Quantised:
    """Each number as the nearest that its block can have."""
    outputs, inputs = matrix.shape
    flat = matrix.detach().float().flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    shares = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    if bits == 8:
        return Quantised((shares * 127).round().to(torch.int8).flatten(), scales, (outputs, inputs))
    values = torch.tensor(NF4, device=matrix.device)
    codes = torch.bucketize(shares.flatten(), (values[1:] + values[:-1]) / 2).to(torch.uint8)
    return Quantised(codes[0::2] << 4 | codes[1::2], scales, (outputs, inputs))


def dequantised(one: Quantised, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that is computed with."""
    if one.bits == 8:
        shares = one.codes.float() / 127
    else:
        codes = torch.stack((one.codes >> 4, one.codes & 15), dim=-1)
        shares = torch.tensor(NF4, device=one.codes.device)[codes.int()]
    blocks = shares.view(-1, BLOCK) * one.scales[:, None]
    return blocks.flatten()[: prod(one.shape)].view(one.shape).to(dtype)

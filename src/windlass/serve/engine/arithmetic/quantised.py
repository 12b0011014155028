"""Matrix products with weights of 8 or 4 bits, by the kernel of `native/linear.cpp`.

Weights and activations are rounded in blocks along the inner dimension, each block with the scale that its largest
number needs; the activations always to 8 bits. One scale for a whole tensor, as PyTorch's own dynamic quantisation
has, lets a single outlier wipe out all the others, of other requests too. Outliers are the rule in trained
transformers (Dettmers et al., arXiv 2208.07339).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.serve.engine.arithmetic import native

PANEL = 16
"""Outputs that the kernel computes together."""
BLOCK = {8: 128, 4: 64}
"""Numbers that share a scale, by bits of a weight."""


def quantise(weight_NK: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers (N, blocks, BLOCK), from -127 to 127 or from -7 to 7, and scales (N, blocks), both in float32.

    A last block that the inputs do not fill is filled with zeros.
    """
    block, most = BLOCK[bits], 2 ** (bits - 1) - 1
    padded = F.pad(weight_NK.float(), (0, -weight_NK.shape[1] % block)).view(len(weight_NK), -1, block)
    scale = padded.abs().amax(-1) / most
    return (padded / scale.clamp_min(1e-30)[..., None]).round().clamp(-most, most), scale


def pack(weight_NK: Tensor, bits: int) -> Tensor:
    """Bytes in the order in which the kernel reads them (its source describes it), (panels, blocks, bytes)."""
    numbers, scale = quantise(F.pad(weight_NK, (0, 0, 0, -weight_NK.shape[0] % PANEL)), bits)
    panels, blocks = len(numbers) // PANEL, numbers.shape[1]
    offset = 2 ** (bits - 1)
    fours = (numbers + offset).to(torch.uint8).view(panels, PANEL, blocks, -1, 4).permute(0, 2, 3, 1, 4)
    if bits == 4:
        fours = fours[:, :, ::2] | fours[:, :, 1::2] << 4
    scale = scale.view(panels, PANEL, blocks).transpose(1, 2).contiguous()
    return torch.cat([fours.reshape(panels, blocks, -1), scale.view(torch.uint8)], dim=-1)


class Quantised:
    """x (..., inputs) -> x W^T + b (..., outputs), computed in whole numbers and given back in the dtype of x.

    A row's result is the same to the last bit in whatever batch it is. Raises `native.Unavailable` without kernels.
    """

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None, *, bits: int) -> None:
        self._kernel = native.library().windlass_linear
        self._outputs, self._inputs = weight_NK.shape
        self._weights = pack(weight_NK, bits)
        self._bias = None if bias_N is None else bias_N.float().contiguous()
        bias = None if self._bias is None else self._bias.data_ptr()
        self.native = native.Product(self._weights.data_ptr(), bias, self._inputs, self._outputs, bits)
        """What the kernels know it by, while it lives."""
        self.bytes = self._weights.numel()

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return self(x.float()).to(x.dtype)
        if x.shape[-1] != self._inputs:
            raise ValueError(f"vectors of {x.shape[-1]} numbers meet a matrix of {self._inputs} inputs")
        x = x.contiguous()
        out = torch.empty((*x.shape[:-1], self._outputs))
        self._kernel(self.native, x.data_ptr(), x.numel() // self._inputs, out.data_ptr(), False)
        return out

    def move(self, place: Tensor) -> None:
        """Holds the weights in `place`, so many bytes, from now on. Not while it multiplies."""
        self._weights = place.copy_(self._weights.flatten())
        self.native.weights = place.data_ptr()


def lay_together(products: Sequence[Quantised]) -> None:
    """Moves the weights of products that follow each other in every pass into one piece of memory of large pages.

    Pages of 4 KB make the processor look up an address for every other panel: reading is a third slower.
    """
    memory = mmap.mmap(-1, max(1, sum(product.bytes for product in products)), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    start = 0
    for product in products:
        product.move(torch.frombuffer(memory, dtype=torch.uint8, count=product.bytes, offset=start))
        start += product.bytes

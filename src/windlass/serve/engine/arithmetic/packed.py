"""float32 matrices in the order in which they are multiplied fastest on this processor.

The numbers are those of PyTorch's own product, but for the order of sums. On AMD's processors, which MKL treats like
others than its own, oneDNN takes less than half of the time; elsewhere about the same (docs/lab.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.gradients import rounded
from windlass.serve.engine.arithmetic.places import error_of, places

_FEW, _MANY = 8, 512
"""Rows: up to the first none are filled up; weights are laid for products of the second."""
_EXACT = 1e-5
"""Of one product: root mean square of what another order of sums says differently, relative to the product's own."""


def no_packing() -> str | None:
    """Why this machine cannot do it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this PyTorch has no oneDNN"
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this PyTorch's oneDNN packs no weights"
    return None


class Packed:
    """float32 as it is (oneDNN), weights in the order its kernel reads them: on processors that MKL does not know well
    twice as fast as its product, elsewhere about the same."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        self.bytes = 4 * weight_NK.numel()
        self._bias = bias_N
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_NK.contiguous(), _MANY)

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[:-1].numel()
        filling = rounded(rows) - rows if rows > _FEW else 0
        flat = F.pad(x.reshape(rows, -1), (0, 0, 0, filling))
        out: Tensor = torch.ops.mkldnn._linear_pointwise(flat, self._weight, self._bias, "none", [], "")
        return out[:rows].view(*x.shape[:-1], -1)


def pack(decoder: Decoder) -> None:
    """Packs the matrices of a decoder in place: for reading only, since packed weights can be neither trained nor
    saved.

    What is not float32 on a CPU, and what would give other numbers when packed, stays as it is.
    """
    weight = decoder.embedding
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or no_packing() is not None:
        return
    with torch.inference_mode():
        for place in places(decoder):
            weight_NK, bias_N = place.joined()
            product = Packed(weight_NK, bias_N)
            if error_of(product, weight_NK, bias_N) <= _EXACT:
                place.replace(product)

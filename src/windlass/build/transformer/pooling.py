"""From the vectors of tokens to one vector per text."""

from __future__ import annotations

from torch import Tensor


def mean_pool(x_BTC: Tensor, real_BT: Tensor) -> Tensor:
    """The mean over the positions where `real_BT` is true, (B, C), summed in float32 (SBERT, arXiv 1908.10084).

    A row without any such position gives NaN, which no loss survives unseen.
    """
    weight_BT1 = real_BT[..., None].float()
    mean_BC = (x_BTC.float() * weight_BT1).sum(1) / weight_BT1.sum(1)
    return mean_BC.to(x_BTC.dtype)

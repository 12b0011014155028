"""SwiGLU, the gated feed-forward layer (Shazeer, arXiv 2002.05202)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.config import DecoderConfig
from windlass.build.transformer.linear import Linear, fused


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))"""

    __call__: Callable[..., Tensor]

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate = Linear(config.hidden, config.ffn)
        self.up = Linear(config.hidden, config.ffn)
        self.down = Linear(config.ffn, config.hidden)

    def forward(self, x_BTC: Tensor) -> Tensor:
        gate_BTF, up_BTF = fused(x_BTC, self.gate, self.up)
        return self.down(F.silu(gate_BTF) * up_BTF)

"""The feed-forward layer, gated (SwiGLU, GeGLU: Shazeer, arXiv 2002.05202) or plain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.gradients import by_hand, gated_silu
from windlass.build.transformer.linear import Linear, fused

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class MLP(nn.Module):
    """down(act(gate(x)) * up(x)), or down(act(up(x))) when not gated."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, width: int | None = None) -> None:
        super().__init__()
        width = config.ffn if width is None else width
        self.gate = Linear(config.hidden, width, config.mlp_bias) if config.gated else None
        self.up = Linear(config.hidden, width, config.mlp_bias)
        self.down = Linear(width, config.hidden, config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]
        self.gating: Callable[[Tensor, Tensor], Tensor] = partial(_gated, self.activation)

    def forward(self, x_BTC: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x_BTC)))
        gate_BTF, up_BTF = fused(x_BTC, self.gate, self.up)
        return self.down(self.gating(gate_BTF, up_BTF))


def _gated(activation: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
    return gated_silu(gate, up) if activation is F.silu and by_hand() else activation(gate) * up

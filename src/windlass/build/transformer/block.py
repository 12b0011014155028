"""One layer, the same for decoder, encoder and encoder-decoder: attention, then the MLP, each added to the residual
stream. Where the norms stand is the configuration's choice."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from windlass.build.transformer.attention import Attention, KeysValues, Sight
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.mlp import MLP
from windlass.build.transformer.moe import MoE
from windlass.build.transformer.norm import norm_of


class Block(nn.Module):
    """With `cross`, a second attention, to the encoder's output, stands between the two parts."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, layer: int, cross: bool = False) -> None:
        super().__init__()
        sandwich = config.norm_placement == "sandwich"
        self.placement = config.norm_placement
        self.attention_norm: nn.Module = norm_of(config) if layer or config.first_norm else nn.Identity()
        self.attention = Attention(config, layer)
        self.attention_after_norm = norm_of(config) if sandwich else None
        self.cross_norm = norm_of(config) if cross else None
        self.cross = Attention(config, layer) if cross else None
        self.mlp_norm = norm_of(config)
        self.mlp = MoE(config, config.experts) if config.experts and config.sparse(layer) else MLP(config)
        self.mlp_after_norm = norm_of(config) if sandwich else None

    def forward(
        self,
        x_BTC: Tensor,
        sight: Sight,
        routing: list[Tensor] | None = None,
        memory: Tensor | KeysValues | None = None,
        memory_sight: Sight | None = None,
    ) -> Tensor:
        """`memory*`: what the cross-attention looks at. `routing` takes the balancing loss of the experts."""

        def feed(h_BTC: Tensor) -> Tensor:
            return self.mlp(h_BTC, routing) if isinstance(self.mlp, MoE) else self.mlp(h_BTC)

        x_BTC = self._add(x_BTC, lambda h: self.attention(h, sight), self.attention_norm, self.attention_after_norm)
        if self.cross is not None and self.cross_norm is not None:
            cross = self.cross
            x_BTC = self._add(x_BTC, lambda h: cross(h, memory_sight, memory), self.cross_norm, None)
        return self._add(x_BTC, feed, self.mlp_norm, self.mlp_after_norm)

    def _add(self, x_BTC: Tensor, part: Callable[[Tensor], Tensor], norm: nn.Module, after: nn.Module | None) -> Tensor:
        if self.placement == "post":
            summed: Tensor = norm(x_BTC + part(x_BTC))
            return summed
        branch = part(norm(x_BTC))
        return x_BTC + (branch if after is None else after(branch))

"""A mixture of experts: many MLPs, of which each token visits the few that a router chooses for it.

Shazeer et al. (arXiv 1701.06538); top-k routing as in Mixtral (arXiv 2401.04088); the balancing loss is that of Switch
(arXiv 2101.03961, equation 4), counted over all k choices of a token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import ACTIVATIONS, MLP


class MoE(nn.Module):
    """Letters beside the usual ones: N tokens of the whole batch, E experts, A visited by each token."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, experts: Experts) -> None:
        super().__init__()
        self.experts = experts
        E, width = experts.count, experts.ffn
        self.router = Linear(config.hidden, E)
        self.gate = nn.Parameter(torch.empty(E, width, config.hidden)) if config.gated else None
        self.up = nn.Parameter(torch.empty(E, width, config.hidden))
        self.down = nn.Parameter(torch.empty(E, config.hidden, width))
        self.activation = ACTIVATIONS[config.activation]
        self.shared = MLP(config, experts.shared_ffn) if experts.shared_ffn else None
        self.shared_gate = Linear(config.hidden, 1) if experts.shared_ffn else None

    def forward(self, x_BTC: Tensor, routing: list[Tensor] | None = None) -> Tensor:
        """The experts' weighted sum; appends the balancing loss to `routing` when that is given."""
        x_NC = x_BTC.flatten(0, 1)
        odds_NE = self.router(x_NC.float()).softmax(
            -1
        )  # float32: a close choice must not hang on rounding (Switch, 2.4)
        weight_NA, expert_NA = odds_NE.topk(self.experts.active, dim=-1)
        if self.experts.normalise:
            weight_NA = weight_NA / weight_NA.sum(-1, keepdim=True)
        if routing is not None:
            routing.append(balancing_loss(odds_NE, expert_NA))
        out_NC = (self._visit(x_NC, expert_NA) * weight_NA[..., None].to(x_NC.dtype)).sum(1)
        if self.shared is not None and self.shared_gate is not None:
            out_NC = out_NC + self.shared_gate(x_NC).sigmoid() * self.shared(x_NC)
        return out_NC.view_as(x_BTC)

    def _visit(self, x_NC: Tensor, expert_NA: Tensor) -> Tensor:
        """What each token's experts answer, (N, A, C).

        Tokens are sorted by expert, so that each expert reads its own as one matrix. Sorting back rather than adding
        up in place keeps the sum's order, and so every bit, the same on any device.
        """
        order = expert_NA.flatten().argsort(stable=True)
        counts = torch.bincount(expert_NA.flatten(), minlength=self.experts.count).tolist()
        parts = torch.split(x_NC[order // self.experts.active], counts)
        answers = torch.cat([self._expert(index, part) for index, part in enumerate(parts) if len(part)])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return answers[back].view(*expert_NA.shape, -1)

    def _expert(self, index: int, x: Tensor) -> Tensor:
        inner = F.linear(x, self.up[index].to(x.dtype))
        if self.gate is None:
            inner = self.activation(inner)
        else:
            inner = self.activation(F.linear(x, self.gate[index].to(x.dtype))) * inner
        return F.linear(inner, self.down[index].to(x.dtype))


def balancing_loss(odds_NE: Tensor, expert_NA: Tensor) -> Tensor:
    """E x sum over experts of (visits per token) x (mean odds): as large as A when every expert is visited equally
    often, E x A when all tokens visit the same. Only the odds carry a gradient."""
    E = odds_NE.shape[1]
    visits_E = torch.bincount(expert_NA.flatten(), minlength=E) / len(odds_NE)
    return E * (visits_E * odds_NE.mean(0)).sum()

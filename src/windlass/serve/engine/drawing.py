"""Drawing one token from each row of logits, from the likelier part of its distribution.

Top-k, top-p and min-p all keep the tokens above some cutoff, so each row needs one number, the highest of the three;
tokens that tie with the last one kept are kept too, so that the result does not hang on the order of a sort.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windlass.serve.engine.settings import Sampling

COLDEST = 1e-5
"""Lower temperatures are as good as 0, and would overflow."""


def draw(logits_RV: Tensor, settings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """One token for each row, int64 (R,), where its uniform number falls in the cumulative distribution."""
    weights_RV = kept_weights(logits_RV, settings)
    cumulative_RV = weights_RV.cumsum(-1, dtype=torch.float64)  # in float32 the tail of a large vocabulary is lost
    total_R1 = cumulative_RV[:, -1:].contiguous()
    at_R1 = total_R1 * torch.tensor(uniforms, dtype=torch.float64, device=logits_RV.device)[:, None]
    token_R1 = torch.searchsorted(cumulative_RV, at_R1, right=True)
    last_R1 = torch.searchsorted(cumulative_RV, total_R1)  # rounding must not lead behind the last one that was kept
    return torch.minimum(token_R1, last_R1)[:, 0]


def kept_weights(logits_RV: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """Probabilities up to a factor for each row: after the temperature, 0 where top-k, top-p, min-p or typical cut."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits_RV.device)[:, None]

    logits_RV = logits_RV.float()
    scaled_RV = logits_RV - logits_RV.amax(-1, keepdim=True)
    weights_RV = scaled_RV.div_(column([max(s.temperature, COLDEST) for s in settings])).exp_()
    if any(s.top_k or s.top_p < 1 or s.min_p for s in settings):
        cutoff_R1 = torch.maximum(_cutoff(weights_RV, settings), column([s.min_p for s in settings]))
        weights_RV.masked_fill_(weights_RV < cutoff_R1, 0)
    for row_V, s in zip(weights_RV, settings, strict=True):
        if s.typical_p < 1:
            row_V.masked_fill_(~_typical(row_V, s.typical_p), 0)
    return weights_RV


def _cutoff(weights_RV: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """The lowest weight that top-k and top-p keep of each row, (R, 1); the nucleus is one of the k likeliest."""
    cutoffs = torch.zeros(len(settings), 1, device=weights_RV.device)
    for row, s in enumerate(settings):
        if not s.top_k and s.top_p == 1:
            continue
        sorted_V = weights_RV[row].sort(descending=True).values
        if s.top_k:
            cutoffs[row] = sorted_V[min(s.top_k, len(sorted_V)) - 1]
            sorted_V = sorted_V[sorted_V >= cutoffs[row]]
        if s.top_p < 1:
            cumulative_V = sorted_V.cumsum(0, dtype=torch.float64)
            cutoffs[row] = sorted_V[int((cumulative_V < s.top_p * cumulative_V[-1]).sum())]
    return cutoffs


def _typical(weights_V: Tensor, mass: float) -> Tensor:
    """Which tokens are typical: those whose surprise is nearest to the distribution's entropy, of at least `mass`."""
    p_V = weights_V.double() / weights_V.sum(dtype=torch.float64)
    distance_V: Tensor = (-p_V.log() - torch.special.entr(p_V).sum()).abs()
    nearest_V, order_V = distance_V.sort(stable=True)
    last = int((p_V[order_V].cumsum(0) < mass).sum())
    return distance_V <= nearest_V[min(last, len(p_V) - 1)]

"""Both ends of every model: tokens become vectors, and vectors become scores of tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.linear import Linear


def embed(
    tokens_BT: Tensor,
    embedding_VC: Tensor,
    config: TransformerConfig,
    dtype: torch.dtype | None,
    *,
    by_rows: bool = False,
) -> Tensor:
    """The tokens' vectors, (B, T, C). `dtype` is the precision of all activations (None: that of the weights).

    `by_rows`: the embedding's gradient is sparse, with the rows of these tokens alone.
    """
    x_BTC = F.embedding(tokens_BT, embedding_VC, sparse=by_rows)
    if dtype is not None:
        x_BTC = x_BTC.to(dtype)
    return x_BTC if config.embedding_scale == 1.0 else x_BTC * config.embedding_scale


def scores(x_BTC: Tensor, head: Linear | Tensor, bias_V: Tensor | None, config: TransformerConfig) -> Tensor:
    """Logits (B, T, V) in the dtype of `x_BTC`, scaled and capped as configured. `head`: the map to the vocabulary, or
    just its matrix (the embedding, where that serves as both)."""
    bias_V = None if bias_V is None else bias_V.to(x_BTC.dtype)
    if isinstance(head, Tensor):
        logits_BTV = F.linear(x_BTC, head.to(x_BTC.dtype), bias_V)
    else:
        logits_BTV = head(x_BTC) if bias_V is None else head(x_BTC) + bias_V
    if config.logit_scale != 1.0:
        logits_BTV = logits_BTV * config.logit_scale
    cap = config.logit_cap
    return logits_BTV if cap is None else cap * torch.tanh(logits_BTV / cap)

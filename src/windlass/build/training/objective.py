"""Training objectives as pure functions of a model and a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.decoder import Decoder


def causal_lm(model: Decoder, tokens_BT: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Mean negative log-likelihood, in nats a token, of each token given those before it.

    `tokens_BT` holds one token more than the model reads; logits are normalised in float32.
    """
    logits_BTV = model(tokens_BT[:, :-1], dtype=dtype)
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())

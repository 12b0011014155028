"""Training objectives as pure functions of a model and a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.decoder import Decoder


def causal_lm(model: Decoder, tokens_BT: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Mean negative log-likelihood, in nats a token, of each token given those before it.

    `tokens_BT` holds one token more than the model reads.
    """
    return token_loss(model(tokens_BT[:, :-1], dtype=dtype), tokens_BT[:, 1:])


def token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats; the logits are normalised in float32 whatever their dtype."""
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())

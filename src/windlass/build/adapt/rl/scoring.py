"""Log-probabilities of what was written, in the arithmetic of training, and the values of a value head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from windlass.build.training.head import chunk_size
from windlass.build.transformer.decoder import Decoder


class ValueHead(nn.Module):
    """How good an answer will be, seen from each of its tokens; the decoder below learns with it."""

    __call__: Callable[..., Tensor]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x_NC: Tensor) -> Tensor:
        return x_NC.float() @ self.weight + self.bias


class Critic(nn.Module):
    """A decoder with a value head."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder, self.value = decoder, ValueHead(decoder.config.hidden)


def logprobs(decoder: Decoder, x_NC: Tensor, tokens_N: Tensor, temperature: float) -> Tensor:
    """Of the tokens that follow these vectors, float32, in the distribution at `temperature`. Of many positions, the
    logits of a part are in memory at a time, and computed again for the gradient."""
    chunk = chunk_size(decoder.config.vocab_size)
    score = partial(_logprobs, decoder, temperature)
    if len(tokens_N) <= chunk:
        return score(x_NC, tokens_N)
    parts = zip(torch.split(x_NC, chunk), torch.split(tokens_N, chunk), strict=True)
    return torch.cat([checkpoint(score, x, tokens, use_reentrant=False) for x, tokens in parts])


def _logprobs(decoder: Decoder, temperature: float, x_NC: Tensor, tokens_N: Tensor) -> Tensor:
    scores_NV = decoder.logits(x_NC).float() / temperature
    return scores_NV.gather(-1, tokens_N[:, None])[:, 0] - scores_NV.logsumexp(-1)

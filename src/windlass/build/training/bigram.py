"""A head start: fit embedding and head to the corpus' bigram counts before the first real step.

A decoder whose blocks still add nothing (see `transformer.init`) is a bigram model: the next token given one token.
For that model the whole corpus is one matrix of counts, so its exact loss costs no more than a single batch of
`vocab_size` tokens, and some dozens of full-batch steps take a second or two. Training by samples needs a large part
of a short run to get as far (docs/lab.md). Nothing is added to the model: only its starting point changes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.training.data.shard import Shard
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder

STEPS = 30
LARGEST_VOCABULARY = 8192
"""Above it the matrix of counts becomes too large to be worth it."""

_EMBEDDING_RATE = 0.1
_HEAD_RATE = 0.01
_DISCOUNT = 0.75


def bigram_start(model: Decoder, shard: Shard) -> float | None:
    """Fits `model.embedding` and the head in place; returns the loss reached in nats a token.

    None, and nothing done, for a tied head (one matrix cannot be both), a vocabulary beyond the largest, or a model
    whose tokens are more than their embedding before the first block. The loss
    is over smoothed counts, so rare pairs are not learned by heart.
    """
    vocabulary = model.config.vocab_size
    if model.head is None or vocabulary > LARGEST_VOCABULARY or not _alone(model.config):
        return None
    targets_VV, weights_V = bigrams(shard, vocabulary)
    head = model.head.weight
    optimizer = torch.optim.Adam(
        [{"params": [model.embedding], "rate": _EMBEDDING_RATE}, {"params": [head], "rate": _HEAD_RATE}],
        lr=0.0,
        betas=(0.8, 0.95),
    )
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (1 - step / STEPS)
        x_VC = model.norm(model.embedding.to(torch.bfloat16))
        with torch.no_grad():
            # The gradient of the cross-entropy written out: softmax minus target. Autograd would keep several
            # matrices of V x V.
            delta_VV = F.softmax(F.linear(x_VC, head.to(torch.bfloat16)).float(), dim=-1)
            delta_VV = delta_VV.sub_(targets_VV).mul_(weights_V[:, None]).to(torch.bfloat16)
            head.grad = (delta_VV.T @ x_VC).float()
            gradient_VC = delta_VV @ head.to(torch.bfloat16)
        (model.embedding.grad,) = torch.autograd.grad(x_VC, [model.embedding], gradient_VC)
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return _loss(model, targets_VV, weights_V)


def _alone(config: TransformerConfig) -> bool:
    """Whether a model without its blocks is embedding, norm and head, and nothing else."""
    plain = (config.position in ("rope", "alibi", "relative", "none"), config.norm_placement == "pre")
    one = (config.embedding_scale, config.logit_scale) == (1.0, 1.0)
    return all(plain) and one and config.logit_cap is None and not config.embedding_norm and not config.token_types


@torch.inference_mode()
def _loss(model: Decoder, targets_VV: Tensor, weights_V: Tensor) -> float:
    logits_VV = model.logits(model.norm(model.embedding.to(torch.bfloat16))).float()
    return -float((weights_V * (targets_VV * F.log_softmax(logits_VV, dim=-1)).sum(-1)).sum())


def bigrams(shard: Shard, vocabulary: int) -> tuple[Tensor, Tensor]:
    """p(next | token) of shape (V, V) with absolute discounting, and how often each token comes, of shape (V,).

    The discounted mass goes to tokens in proportion to how many different tokens they follow (Kneser-Ney).
    """
    tokens = np.asarray(shard.tokens, dtype=np.int64)
    counts = np.bincount(tokens[:-1] * vocabulary + tokens[1:], minlength=vocabulary**2).reshape(vocabulary, vocabulary)
    total = counts.sum(1)
    lower = (counts > 0).sum(0) + 0.1
    lower = lower / lower.sum()
    kept = np.maximum(counts - _DISCOUNT, 0.0)
    freed = total - kept.sum(1) + 1.0  # the 1 keeps tokens that never occurred well defined
    p_VV = (kept + freed[:, None] * lower) / (total + 1.0)[:, None]
    return torch.from_numpy(p_VV.astype(np.float32)), torch.from_numpy((total / total.sum()).astype(np.float32))

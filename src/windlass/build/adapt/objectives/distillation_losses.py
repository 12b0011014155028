"""How far a student's next token is from its teacher's, as pure functions of the logits of both.

All are sums over the vocabulary, one number a position, in nats; P is the teacher's distribution, Q the student's:

| divergence | is                                     | the student                                               |
|------------|----------------------------------------|-----------------------------------------------------------|
| `forward`  | KL(P, Q)                               | covers all that the teacher may say                       |
| `reverse`  | KL(Q, P)                               | says nothing that the teacher would not                   |
| `jsd`      | b KL(P, M) + (1 - b) KL(Q, M)          | between the two, and bounded; M = b P + (1 - b) Q         |

Forward: Hinton et al. (arXiv 1503.02531). The others: Agarwal et al. (GKD, arXiv 2306.13649).

`sorted` is for vocabularies that share nothing: both lists of probabilities, each in falling order, are compared place
by place, whatever tokens they belong to. That is the Wasserstein distance where every move between tokens costs the
same (ULD: Boizard et al., arXiv 2402.12030, equation 5).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Literal["forward", "reverse", "jsd", "sorted"]
HiddenDistance = Literal["mse", "cosine"]


def divergence(student_NV: Tensor, teacher_NV: Tensor, kind: Divergence, beta: float, temperature: float) -> Tensor:
    """Of logits divided by `temperature`, (N). `beta`: between 0 and 1, of `jsd` alone. Only `sorted` takes logits of
    different vocabularies."""
    if kind == "sorted":
        return between_sorted((student_NV / temperature).softmax(-1), (teacher_NV / temperature).softmax(-1))
    student_NV = (student_NV / temperature).log_softmax(-1)
    teacher_NV = (teacher_NV / temperature).log_softmax(-1)
    if kind == "forward":
        return kl(teacher_NV, student_NV)
    if kind == "reverse":
        return kl(student_NV, teacher_NV)
    mixed_NV = torch.logaddexp(teacher_NV + math.log(beta), student_NV + math.log1p(-beta))
    return beta * kl(teacher_NV, mixed_NV) + (1 - beta) * kl(student_NV, mixed_NV)


def kl(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """Kullback-Leibler divergence of q from p by their log-probabilities, (N)."""
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(-1)


def between_sorted(p_NV: Tensor, q_NW: Tensor) -> Tensor:
    """Sum of the absolute differences of probabilities in falling order, (N); the shorter list ends in zeros."""
    size = max(p_NV.shape[-1], q_NW.shape[-1])
    (p, q) = (F.pad(one.sort(-1, descending=True).values, (0, size - one.shape[-1])) for one in (p_NV, q_NW))
    return (p - q).abs().sum(-1)


def between_layers(student_NC: Tensor, teacher_NC: Tensor, kind: HiddenDistance) -> Tensor:
    """Of what two layers of equal width put out, (N): the mean of the squared differences (TinyBERT: Jiao et al., arXiv
    1909.10351), or 1 - cosine (DistilBERT: Sanh et al., arXiv 1910.01108)."""
    if kind == "mse":
        return (student_NC - teacher_NC).square().mean(-1)
    return 1 - F.cosine_similarity(student_NC, teacher_NC, dim=-1)

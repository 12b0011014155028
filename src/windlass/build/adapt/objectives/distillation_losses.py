"""How far a student's next token is from its teacher's, as pure functions of the logits of both.

All are sums over the vocabulary, one number a position, in nats; P is the teacher's distribution, Q the student's:

| divergence | is                                     | the student                                               |
|------------|----------------------------------------|-----------------------------------------------------------|
| `forward`  | KL(P, Q)                               | covers all that the teacher may say                       |
| `reverse`  | KL(Q, P)                               | says nothing that the teacher would not                   |
| `jsd`      | b KL(P, M) + (1 - b) KL(Q, M)          | between the two, and bounded; M = b P + (1 - b) Q         |

Forward: Hinton et al. (arXiv 1503.02531). The others: Agarwal et al. (GKD, arXiv 2306.13649).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["forward", "reverse", "jsd"]


def divergence(student_NV: Tensor, teacher_NV: Tensor, kind: Divergence, beta: float, temperature: float) -> Tensor:
    """Of logits divided by `temperature`, (N). `beta`: between 0 and 1, of `jsd` alone."""
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

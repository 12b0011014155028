"""Losses of preference optimisation: pure functions of log-probabilities, one number an example.

| loss    | source                                        | compares                                                   |
|---------|-----------------------------------------------|------------------------------------------------------------|
| sigmoid | DPO, Rafailov et al., arXiv 2305.18290        | log-ratios to the reference, of whole answers              |
| hinge   | SLiC, Zhao et al., arXiv 2305.10425           | the same                                                   |
| ipo     | Azar et al., arXiv 2310.12036, eq. 17         | the same, a token, as the authors' own results are         |
| kto     | Ethayarajh et al., arXiv 2402.01306          | one answer's log-ratio with the mean of mismatched ones    |
| orpo    | Hong et al., arXiv 2403.07691, eq. 6 and 7    | odds of both answers, a token; no reference                |
| simpo   | Meng et al., arXiv 2405.14734, eq. 6          | log-probabilities a token, with a margin; no reference     |
| reward  | Bradley and Terry (1952); arXiv 1706.03741    | scores of a reward model                                   |

A smoothing of s means that a share s of the labels is taken to be wrong: the loss is what is to be expected then
(conservative DPO, Mitchell 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid(margin_N: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """`margin_N`: log-ratio of the chosen answer less that of the rejected one. `beta`: how dear it is to leave the
    reference."""
    return _smoothed(lambda margin: -F.logsigmoid(beta * margin), margin_N, smoothing)


def hinge(margin_N: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """Nothing is gained beyond a margin of 1 / beta."""
    return _smoothed(lambda margin: torch.relu(1 - beta * margin), margin_N, smoothing)


def ipo(margin_N: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """A margin a token of 1 / (2 beta) is best: unlike the logistic loss, it does not ask for ever more of pairs that
    are ranked rightly."""
    return _smoothed(lambda margin: (margin - 1 / (2 * beta)) ** 2, margin_N, smoothing)


def kto(ratio_N: Tensor, good_N: Tensor, baseline: Tensor | float, beta: float) -> Tensor:
    """`ratio_N`: log-ratio of each answer; `good_N`: which were liked; `baseline`: `kto_baseline`, a constant."""
    ahead_N = beta * (ratio_N - baseline)
    return 1 - torch.sigmoid(torch.where(good_N, ahead_N, -ahead_N))


def kto_baseline(mismatched: Tensor) -> Tensor:
    """The reference point: an estimate of the divergence from the reference by log-ratios of answers to other prompts,
    `mismatched`, or their mean. A divergence is not negative."""
    return mismatched.mean().clamp(min=0)


def orpo(chosen_N: Tensor, rejected_N: Tensor, beta: float) -> Tensor:
    """Nats a token of the chosen answer, and how far the odds are from favouring it. Both are mean log-probabilities a
    token, below 0."""
    odds_N = (chosen_N - rejected_N) - (_log1mexp(chosen_N) - _log1mexp(rejected_N))
    return -chosen_N - beta * F.logsigmoid(odds_N)


def simpo(chosen_N: Tensor, rejected_N: Tensor, beta: float, margin: float, smoothing: float = 0.0) -> Tensor:
    """Mean log-probabilities a token; times beta, the chosen one's shall be above the other by `margin`."""
    ahead_N = beta * (chosen_N - rejected_N) - margin
    return _smoothed(lambda ahead: -F.logsigmoid(ahead), ahead_N, smoothing)


def bradley_terry(chosen_N: Tensor, rejected_N: Tensor, smoothing: float = 0.0) -> Tensor:
    """Nats that the scores leave unsaid about which answer was preferred."""
    return _smoothed(lambda ahead: -F.logsigmoid(ahead), chosen_N - rejected_N, smoothing)


def _smoothed(loss: Callable[[Tensor], Tensor], margin_N: Tensor, smoothing: float) -> Tensor:
    if not smoothing:
        return loss(margin_N)
    return (1 - smoothing) * loss(margin_N) + smoothing * loss(-margin_N)


def _log1mexp(logp_N: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact near 0 and far from it (Mächler 2012)."""
    logp_N = logp_N.clamp(max=-1e-6)  # an answer that is certain
    near_N = logp_N > -0.6931472
    safe_N = torch.where(near_N, logp_N, -1.0)  # what is not taken must have a gradient too, or it would be nan * 0
    far_N = torch.where(near_N, -1.0, logp_N)
    return torch.where(near_N, torch.log(-torch.expm1(safe_N)), torch.log1p(-torch.exp(far_N)))

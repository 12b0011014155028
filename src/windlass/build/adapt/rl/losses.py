"""Losses of reinforcement learning: pure functions of log-probabilities, each token by itself, shape (N,).

What the tokens weigh is given by the caller (`advantages.shares`), so that one function serves all normalisations. Log-
probabilities are natural, of the tokens that were written: `new` by the weights being trained, `old` by those of before
the step, `sampler` as reported by whoever wrote them, `reference` by the model before the training.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped(new_N: Tensor, old_N: Tensor, advantages_N: Tensor, low: float, high: float) -> Tensor:
    """PPO's clipped surrogate (Schulman et al., arXiv 1707.06347), to be made small; GRPO's too (Shao et al., arXiv
    2402.03300). Beyond 1 - low or 1 + high a ratio that the advantage asks for earns nothing more."""
    ratio_N = (new_N - old_N).exp()
    return -torch.minimum(ratio_N * advantages_N, ratio_N.clamp(1 - low, 1 + high) * advantages_N)


def divergence(new_N: Tensor, reference_N: Tensor) -> Tensor:
    """The k3 estimate of KL(new || reference) from tokens drawn by `new`: unbiased and never negative (Schulman,
    Approximating KL divergence, 2020)."""
    difference_N = reference_N - new_N
    return difference_N.exp() - difference_N - 1


def importance(old_N: Tensor, sampler_N: Tensor, cap: float) -> Tensor:
    """What each token weighs because another arithmetic drew it: the ratio of its probabilities, truncated (Ionides,
    Truncated importance sampling, 2008; for rollouts: Yao et al., On the rollout-training mismatch, 2025). It takes no
    gradient. Truncation trades variance for bias wherever a ratio is above `cap`; how often that was is logged."""
    return (old_N - sampler_N).detach().exp().clamp(max=cap)


def value_loss(values_N: Tensor, before_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """Half of the squared error of the values, or of the values kept within `clip` of what they were, whichever is
    larger: a value gains nothing from moving further in one step."""
    kept_N = before_N + (values_N - before_N).clamp(-clip, clip)
    return torch.maximum((values_N - returns_N).square(), (kept_N - returns_N).square()) / 2

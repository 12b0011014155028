"""How much better an answer was than expected, and how much each of its tokens weighs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windlass.build.adapt.rl.settings import Share

_SMALL = 1e-4
"""Added to a group's standard deviation: answers that differ by less are taken to be equally good."""


def relative(rewards_PG: Tensor, *, deviation: bool = True) -> Tensor:
    """GRPO's advantages (Shao et al., arXiv 2402.03300): each answer against the others to its prompt, so that no value
    model is needed. `deviation`: in standard deviations of the group. A group of equal rewards gives zeros."""
    apart_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    same_P1 = (rewards_PG == rewards_PG[:, :1]).all(dim=1, keepdim=True)  # the mean of equal numbers may be another
    apart_PG = apart_PG.masked_fill(same_P1, 0.0)
    return apart_PG / (rewards_PG.std(dim=1, keepdim=True) + _SMALL) if deviation else apart_PG


def generalised(rewards_T: Tensor, values_T: Tensor, discount: float, trace: float) -> Tensor:
    """Generalised advantages of one answer's tokens (Schulman et al., arXiv 1506.02438); it ends with the last."""
    found_T = torch.zeros_like(values_T)
    ahead = values_T.new_zeros(())
    for t in reversed(range(len(values_T))):
        following = values_T[t + 1] if t + 1 < len(values_T) else 0.0
        surprise = rewards_T[t] + discount * following - values_T[t]
        ahead = surprise + discount * trace * ahead
        found_T[t] = ahead
    return found_T


def whitened(advantages_N: Tensor) -> Tensor:
    """With mean 0 and variance 1 over all tokens of a step."""
    return (advantages_N - advantages_N.mean()) / (advantages_N.var() + 1e-8).sqrt()


def shares(lengths: Sequence[int], share: Share, longest: int) -> list[tuple[float, int]]:
    """For answers of so many tokens: what each of an answer's tokens weighs, and what the answer adds to the count that
    the weighted sum over all answers of a step is divided by.

    `sequence`: the mean over answers of the mean over tokens (GRPO). `token`: the mean over all tokens (DAPO).
    `constant`: the sum over tokens, divided by the answers and by the longest possible (Dr. GRPO).
    """
    if share == "sequence":
        return [(1 / length, 1) for length in lengths]
    if share == "token":
        return [(1.0, length) for length in lengths]
    return [(1 / longest, 1) for _ in lengths]

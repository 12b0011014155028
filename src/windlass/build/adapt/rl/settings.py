"""What a person may ask of reinforcement learning: the section `[rl]` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from windlass.core.errors import InputError

Share = Literal["sequence", "token", "constant"]


@dataclass(frozen=True, slots=True)
class RLSettings:
    rewards: tuple[str, ...] = ("number",)
    """What judges an answer: `number`, `json`, `pattern`, `cases`, `tests`. Their sum is what is learned."""
    weights: tuple[float, ...] = ()
    """Of the rewards, in their order; empty: 1 each."""
    group: int = 8
    """Answers to each prompt of a step."""
    answer_tokens: int = 128
    """An answer is cut there."""
    temperature: float = 1.0
    """Of the distribution that answers are drawn from, and which is trained; nothing of it is cut off."""
    deviation: bool = True
    """GRPO divides what an answer is better than its group by the group's standard deviation. Without it, prompts that
    are nearly always or nearly never solved weigh less (Dr. GRPO: Liu et al., arXiv 2503.20783)."""
    share: Share = "token"
    """What weighs the same: each `sequence` (GRPO), each `token` of a step (DAPO: Yu et al., arXiv 2503.14476), or each
    token of all steps, as if every answer had `answer_tokens` (`constant`: Dr. GRPO)."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    """A token's probability earns nothing more below 1 - low and above 1 + high times what it was (DAPO: 0.28)."""
    kl: float = 0.0
    """Weight of the divergence from the model as it was before the training; 0 saves its pass."""
    updates: int = 1
    """Of the weights, on the answers of each step."""
    importance_cap: float = 2.0
    """Each token weighs as much as the trainer's probability for it is of the sampler's, at most so much; 0: not
    corrected, only measured."""
    discount: float = 1.0
    trace: float = 0.95
    """PPO: lambda of generalised advantages (Schulman et al., arXiv 1506.02438)."""
    value_weight: float = 0.1
    """PPO: of the loss of the value head,"""
    value_clip: float = 0.2
    """which may move a value by so much in a step."""

    def __post_init__(self) -> None:
        if not self.rewards:
            raise InputError(
                "rl.rewards is empty, but something must judge the answers.", "Name rewards, as ['number']."
            )
        if self.weights and len(self.weights) != len(self.rewards):
            raise InputError(f"rl.weights has {len(self.weights)} numbers, but rl.rewards {len(self.rewards)} names.")
        for name in ("answer_tokens", "updates"):
            if getattr(self, name) < 1:
                raise InputError(f"rl.{name} is {getattr(self, name)}, but must be at least 1.")
        if self.group < 1:
            raise InputError(f"rl.group is {self.group}, but must be at least 1, and for GRPO 2.")
        for name in ("temperature", "clip_low", "clip_high", "value_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"rl.{name} is {getattr(self, name):g}, but must be more than 0.")
        for name in ("kl", "importance_cap", "value_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"rl.{name} is {getattr(self, name):g}, but must be at least 0.")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"rl.{name} is {getattr(self, name):g}, but must be between 0 and 1.")

    @property
    def weight_of(self) -> dict[str, float]:
        """Each reward's weight, by name."""
        return dict(zip(self.rewards, self.weights or (1.0,) * len(self.rewards), strict=True))

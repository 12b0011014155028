"""One step of reinforcement learning: answers by the weights as they are, their rewards, and batches to learn from.

What a step trains on is a function of the seed, the step and the weights, and of nothing else: a run that was stopped
goes on to the same answers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from windlass.build.adapt.rl.advantages import generalised, relative, shares, whitened
from windlass.build.adapt.rl.batches import Laid, RLBatch, lay_out
from windlass.build.adapt.rl.prompts import Prompt
from windlass.build.adapt.rl.rewards.reward import Answer, Reward
from windlass.build.adapt.rl.rollouts import Rollout, Rollouts
from windlass.build.adapt.rl.settings import RLSettings
from windlass.build.adapt.rl.tally import Tally
from windlass.build.training.data.batches import Batch, Number
from windlass.core.errors import InputError

_FLAT = 10
"""Steps without any difference between rewards, from the first one on, after which there is nothing to hope for."""


class Judged(NamedTuple):
    """Answers to prompts, in their order, and what the rewards made of them."""

    prompts: Sequence[Prompt]
    rollouts: Sequence[Rollout]
    rewards: Mapping[str, Tensor]
    """Of each reward, one number for each answer; float64."""
    total_R: Tensor
    """Their weighted sum."""

    @property
    def lengths(self) -> list[int]:
        return [len(rollout.tokens) for rollout in self.rollouts]


Score = Callable[[Batch], tuple[Tensor, Tensor | None]]
"""Log-probabilities and values at a batch's targets, (N)."""


@dataclass(slots=True)
class Practice:
    """Examples of which each step makes its own batches. `len` counts prompts."""

    prompts: Sequence[Prompt]
    asked: RLSettings
    rewards: Mapping[str, Reward]
    write: Callable[[], Rollouts]
    """Who writes the answers; asked for when the first are wanted."""
    text_of: Callable[[Sequence[int]], str]
    seed: int
    pad: int
    score: Score
    """By the weights that are trained,"""
    reference: Score | None = None
    """and by those from before the training, where the divergence from them counts."""
    critic: bool = False
    """Whether advantages are what a value head did not expect (PPO), or else what the group did not do (GRPO)."""
    tally: Tally = field(default_factory=Tally)
    flat: int = 0
    """Steps without any difference between rewards."""

    def __len__(self) -> int:
        return len(self.prompts)

    def updates(self, numbers: Sequence[Number], step: int, size: int) -> Sequence[Sequence[Batch]]:
        """The batches of each update of one step, `size` prompts in a pass with all their answers.

        Raises `InputError` when rewards have not differed since the first step.
        """
        group = self.asked.group
        asked = [self.prompts[number] for _, number in numbers for _ in range(group)]
        seeds = [seed_of(self.seed, step, number, nth) for number in numbers for nth in range(group)]
        judged = self.judged(asked, seeds)
        self._look_at(judged, step)
        parts = [range(first, min(first + size * group, len(asked))) for first in range(0, len(asked), size * group)]
        laid = [lay_out([asked[n] for n in part], [judged.rollouts[n] for n in part], self.pad) for part in parts]
        return [self._batches(judged, parts, laid)] * self.asked.updates

    def judged(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Judged:
        """New answers to the prompts, with their rewards. Raises `InputError` for a reward that is no number."""
        rollouts = self.write().sample([prompt.tokens for prompt in prompts], seeds)
        answers = [
            Answer(self.text_of(rollout.tokens), prompt.row) for prompt, rollout in zip(prompts, rollouts, strict=True)
        ]
        rewards = {name: _numbers(name, reward.judge(answers), answers) for name, reward in self.rewards.items()}
        weights = self.asked.weight_of
        total_R = torch.stack([weights[name] * rewards_R for name, rewards_R in rewards.items()]).sum(dim=0)
        return Judged(prompts, rollouts, rewards, total_R)

    def _batches(self, judged: Judged, parts: Sequence[range], laid: Sequence[Laid]) -> list[Batch]:
        asked, lengths = self.asked, judged.lengths
        old = self._scored(self.score, laid, parts, lengths) if self.critic or asked.updates > 1 else None
        reference = None if self.reference is None else self._scored(self.reference, laid, parts, lengths)
        returns: Sequence[Tensor] | None = None
        if self.critic:
            assert old is not None, "a value head is asked beforehand"
            advantages, returns = self._unexpected(judged, old, reference)
        else:
            relative_R = relative(judged.total_R.view(-1, asked.group), deviation=asked.deviation).flatten()
            advantages = [one.expand(length) for one, length in zip(relative_R, lengths, strict=True)]
        weighed = shares(lengths, asked.share, asked.answer_tokens)
        tokens_weigh = [torch.full((length,), weight) for (weight, _), length in zip(weighed, lengths, strict=True)]
        sampler = [torch.tensor(rollout.logprobs) for rollout in judged.rollouts]
        made: list[Batch] = []
        for part, one in zip(parts, laid, strict=True):

            def at(values: Sequence[Tensor] | None, part: range = part, one: Laid = one) -> Tensor | None:
                return None if values is None else one.placed([values[n] for n in part])

            made.append(
                RLBatch(
                    *(one.batch.inputs_BT, one.batch.targets_BT, one.batch.documents_BT),
                    advantages_BT=at(advantages),
                    shares_BT=at(tokens_weigh),
                    counts_B=torch.tensor([sum(weighed[part[n]][1] for n in row) for row in one.rows]),
                    sampler_BT=at(sampler),
                    old_BT=at(_column(old, 0)),
                    reference_BT=at(_column(reference, 0)),
                    values_BT=at(_column(old, 1)) if self.critic else None,
                    returns_BT=at(returns),
                )
            )
        return made

    @torch.no_grad()
    def _scored(
        self, score: Score, laid: Sequence[Laid], parts: Sequence[range], lengths: Sequence[int]
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each answer: its tokens' log-probabilities, and their values (zeros where there is no value head)."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for part, one in zip(parts, laid, strict=True):
            scores_N, values_N = (None if x is None else x.cpu() for x in score(one.batch))
            assert scores_N is not None
            own = [lengths[n] for n in part]
            scores = one.found(scores_N, own)
            values = one.found(torch.zeros_like(scores_N) if values_N is None else values_N, own)
            found |= {part[n]: (scores[n], values[n]) for n in scores}
        return [found[n] for n in range(len(found))]

    def _unexpected(
        self, judged: Judged, old: Sequence[tuple[Tensor, Tensor]], reference: Sequence[tuple[Tensor, Tensor]] | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """PPO's advantages and returns. An answer is rewarded at its last token; being unlike the reference costs at
        each (Ouyang et al., arXiv 2203.02155)."""
        asked, lengths = self.asked, judged.lengths
        advantages, returns = [], []
        for n, (scores_T, values_T) in enumerate(old):
            rewards_T = torch.zeros_like(values_T)
            if reference is not None:
                rewards_T -= asked.kl * (scores_T - reference[n][0])
            rewards_T[-1] += float(judged.total_R[n])
            advantages_T = generalised(rewards_T, values_T, asked.discount, asked.trace)
            advantages.append(advantages_T)
            returns.append(advantages_T + values_T)
        return list(torch.split(whitened(torch.cat(advantages)), lengths)), returns

    def _look_at(self, judged: Judged, step: int) -> None:
        """Notes what a person wants to see of the answers, and refuses to go on where there is nothing to learn."""
        total_PG = judged.total_R.view(-1, self.asked.group)
        same_P = (total_PG == total_PG[:, :1]).all(dim=1)
        nothing = bool((total_PG == total_PG[0, 0]).all()) if self.critic else bool(same_P.all())
        self.flat = self.flat + 1 if nothing else 0
        if self.flat >= _FLAT and step < _FLAT:
            cut = sum(not rollout.ended for rollout in judged.rollouts) / len(judged.rollouts)
            raise InputError(
                f"In the first {_FLAT} steps no two answers to the same prompt had different rewards (on average "
                f"{float(judged.total_R.mean()):g}; {cut:.0%} of the answers were cut), so nothing can be learned.",
                "Too hard: train on examples first (sft), choose easier prompts or a reward that gives parts. Cut: a "
                "larger rl.answer_tokens. Solved already: harder prompts.",
            )
        tally = self.tally
        tally.begin()
        tally.mean("reward", judged.total_R)
        if len(judged.rewards) > 1:
            for name, rewards_R in judged.rewards.items():
                tally.mean(f"reward_{name}", rewards_R)
        if self.asked.group > 1:
            tally.mean("reward_deviation", total_PG.std(dim=1))
        tally.mean("flat_groups", same_P)
        tally.mean("answer_tokens", torch.tensor(judged.lengths))
        tally.mean("cut", torch.tensor([not rollout.ended for rollout in judged.rollouts]))


def _column(scored: Sequence[tuple[Tensor, Tensor]] | None, place: int) -> list[Tensor] | None:
    return None if scored is None else [one[place] for one in scored]


def seed_of(seed: int, step: int, number: Number, nth: int) -> int:
    """Of the nth answer to a prompt in a step, which may hold the prompt twice where an epoch ends."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}/{number}/{nth}".encode(), digest_size=4).digest())


def _numbers(name: str, found: Sequence[float], answers: Sequence[Answer]) -> Tensor:
    if len(found) != len(answers):
        raise InputError(f"The reward '{name}' gave {len(found)} numbers for {len(answers)} answers.")
    for value, answer in zip(found, answers):
        if not math.isfinite(value):
            raise InputError(f"The reward '{name}' gave {value} for an answer to {answer.row.where}.")
    return torch.tensor(found, dtype=torch.float64)

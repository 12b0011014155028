"""GRPO and PPO as objectives of the training loop.

`grpo` (Shao et al., arXiv 2402.03300) compares the answers to one prompt with each other; `ppo` (Schulman et al., arXiv
1707.06347) with what a value head, trained along, expected. Both take their steps on answers that the model itself has
just written, judged by the rewards of `[rl]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from windlass.build.adapt.data.splitting import split_off
from windlass.build.adapt.objectives.comparing import decoder_of
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.adapt.rl.batches import RLBatch
from windlass.build.adapt.rl.losses import clipped, divergence, importance, value_loss
from windlass.build.adapt.rl.practice import Practice, Score, seed_of
from windlass.build.adapt.rl.prompts import Prompt, ends_of, prompts_of
from windlass.build.adapt.rl.rewards.known import REWARDS
from windlass.build.adapt.rl.rewards.reward import chosen
from windlass.build.adapt.rl.rollouts import PlainRollouts, Rollouts, Writing, twin
from windlass.build.adapt.rl.scoring import Critic, logprobs
from windlass.build.adapt.rl.settings import RLSettings
from windlass.build.adapt.rl.tally import Tally
from windlass.build.adapt.settings import TuneSettings
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss, needed
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class HeldOutReward:
    """Of one answer to each prompt that is held out, drawn with the same seeds in every measurement."""

    reward: float
    deviation: float
    """Of one answer."""
    answers: int
    tokens: float
    """Of an answer, on average."""
    cut: float
    each: Mapping[str, float]
    """Mean of each reward by itself, unweighted."""

    @property
    def loss(self) -> float:
        return -self.reward

    def metrics(self) -> dict[str, float]:
        apart = {f"heldout_reward_{name}": value for name, value in self.each.items()} if len(self.each) > 1 else {}
        return {
            "heldout_reward": self.reward,
            "heldout_answer_tokens": self.tokens,
            "heldout_cut": self.cut,
            **apart,
        }

    def __str__(self) -> str:
        sure = 1.96 * self.deviation / math.sqrt(self.answers)
        return f"reward {self.reward:.3f} \u00b1 {sure:.3f} over {self.answers:,} answers of {self.tokens:.1f} tokens"


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no decoder, settings that do not go together, unknown rewards, and rows
    that rewards cannot judge or that do not fit."""
    settings, asked = opened.settings, opened.settings.rl
    _check(settings)
    decoder = decoder_of(opened)
    rewards = chosen(asked.rewards, {**REWARDS, **opened.rewards})
    prompts, left_out = prompts_of(opened, asked.answer_tokens)
    for reward in rewards.values():
        for prompt in prompts:
            reward.check(prompt.row)
    train, heldout = split_off(
        prompts, lambda prompt: prompt.tokens, settings.data.heldout, settings.run.seed, "prompts"
    )
    attached(decoder, opened)
    critic = settings.objective.kind == "ppo"
    model: nn.Module = Critic(decoder) if critic else decoder
    before = {name: p.detach().clone() for name, p in decoder.named_parameters() if asked.kl and p.requires_grad}
    _, how = prepare_blocks(decoder, replace(settings.run, compile="no"), settings.schedule)
    writing = Writing(asked.answer_tokens, ends_of(opened), asked.temperature)
    dtype = dtype_of(settings.run)
    score = partial(_score, model, dtype, asked.temperature)

    @cache
    def rollouts() -> Rollouts:
        return (opened.rollouts or PlainRollouts)(twin(decoder), writing)

    @cache
    def first() -> Score:
        return partial(_score, twin(decoder, before), dtype, asked.temperature)

    def text_of(tokens: Sequence[int]) -> str:
        return str(opened.tokenizer.decode(list(tokens), skip_special_tokens=True))

    pad = opened.specials.separator if opened.specials.pad is None else opened.specials.pad
    practice = Practice(
        train,
        asked,
        rewards,
        rollouts,
        text_of,
        settings.run.seed,
        pad,
        score,
        (lambda batch: first()(batch)) if asked.kl else None,
        critic,
    )
    positions = max(len(prompt.tokens) for prompt in prompts) + asked.answer_tokens
    notes = [note for reward in rewards.values() if (note := reward.note())]
    lines = [
        *left_out,
        f"{len(train):,} prompts to train on, {len(heldout):,} held out; {asked.group} answers to each, of at most "
        f"{asked.answer_tokens:,} tokens, judged by {', '.join(rewards)}",
        *dict.fromkeys(notes),
        how,
    ]
    facts: dict[str, object] = {"prompts": len(train), "rewards": asked.weight_of}

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> HeldOutReward:
        return _measured(practice, heldout, most)

    def save(folder: Path) -> None:
        save_tuned(decoder, opened, folder, "CAUSAL_LM")

    loss = partial(_loss, score, asked, practice.tally)
    kind = stored_kind(settings)
    return Prepared(model, loss, practice, positions, measure, save, lines, facts, kind, noted=practice.tally.read)


def _check(settings: TuneSettings) -> None:
    asked, kind = settings.rl, settings.objective.kind
    if kind == "grpo" and asked.group < 2:
        raise InputError("rl.group is 1, but GRPO compares the answers to a prompt.", "Choose 4 or more, or 'ppo'.")
    if settings.adapter.dropout:
        raise InputError(
            f"adapter.dropout is {settings.adapter.dropout:g}, but answers are written without it, so that they would "
            "come from another model than the one that is trained.",
            "Leave it out.",
        )
    if settings.adapter.kind in ("prompt", "prefix"):
        raise InputError(
            f"adapter.kind is '{settings.adapter.kind}', with which '{kind}' does not work.", "Use 'lora'."
        )
    if settings.run.compile == "yes":
        raise InputError("run.compile is 'yes', but the answers have other lengths in every step.", "Leave it out.")


def _score(
    model: nn.Module, dtype: torch.dtype | None, temperature: float, batch: Batch
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of a batch's targets, and their values where there is a value head; (N), row after row."""
    decoder, value = (model.decoder, model.value) if isinstance(model, Critic) else (model, None)
    assert isinstance(decoder, Decoder)
    device = decoder.embedding.device
    batch = batch.to(device)
    mask_BT = batch.targets_BT != IGNORE
    x_NC = decoder.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=dtype)[mask_BT]
    found_N = logprobs(decoder, x_NC, batch.targets_BT[mask_BT], temperature)
    return found_N, None if value is None else value(x_NC)


def _loss(score: Score, asked: RLSettings, tally: Tally, batch: Batch) -> Loss:
    """The clipped surrogate of the tokens that were written, weighed as their batch says; with GRPO the divergence from
    the reference added, with PPO the loss of the values. What was found on the way is tallied."""
    assert isinstance(batch, RLBatch), "the batch was made for another objective"
    mask_BT = batch.targets_BT != IGNORE

    def at(tensor_BT: Tensor | None) -> Tensor:
        return needed(tensor_BT)[mask_BT]

    new_N, values_N = score(batch)
    old_N = new_N.detach() if batch.old_BT is None else at(batch.old_BT)
    sampler_N, advantages_N = at(batch.sampler_BT), at(batch.advantages_BT)
    each_N = clipped(new_N, old_N, advantages_N, asked.clip_low, asked.clip_high)
    if asked.importance_cap:
        each_N = each_N * importance(old_N, sampler_N, asked.importance_cap)
    _tally_mismatch(tally, old_N, sampler_N, asked.importance_cap)
    ratio_N = (new_N.detach() - old_N).exp()
    stopped_N = torch.where(advantages_N > 0, ratio_N > 1 + asked.clip_high, ratio_N < 1 - asked.clip_low)
    tally.mean("clipped", stopped_N & (advantages_N != 0))
    if batch.reference_BT is not None:
        apart_N = divergence(new_N, at(batch.reference_BT))
        tally.mean("kl", apart_N)
        if values_N is None:  # PPO has it in the rewards
            each_N = each_N + asked.kl * apart_N
    if values_N is not None:
        wrong_N = value_loss(values_N, at(batch.values_BT), at(batch.returns_BT), asked.value_clip)
        tally.mean("value_loss", wrong_N)
        each_N = each_N + asked.value_weight * wrong_N
    return Loss((each_N * at(batch.shares_BT)).sum(), batch.counted)


def _tally_mismatch(tally: Tally, old_N: Tensor, sampler_N: Tensor, cap: float) -> None:
    """How far the sampler's arithmetic is from the trainer's, before anything is corrected or truncated."""
    drift_N = old_N - sampler_N
    ratio_N = drift_N.exp()
    tally.mean("mismatch", drift_N.abs())
    tally.largest("mismatch_largest", drift_N.abs())
    tally.mean("mismatch_kl", ratio_N - 1 - drift_N)  # KL(sampler || trainer), as in `losses.divergence`
    tally.mean("importance", ratio_N)
    tally.mean("importance_capped", ratio_N > cap if cap else torch.zeros_like(ratio_N))
    tally.mean("entropy", -sampler_N)  # of the next token, in nats: what drawn tokens cost on average


def _measured(practice: Practice, prompts: list[Prompt], most: int | None) -> HeldOutReward:
    count = len(prompts) if most is None else max(1, min(len(prompts), most // practice.asked.answer_tokens))
    asked = [prompts[n * len(prompts) // count] for n in range(count)]
    judged = practice.judged(asked, [seed_of(practice.seed, -1, (0, number), 0) for number in range(count)])
    rewards_R = judged.total_R
    return HeldOutReward(
        float(rewards_R.mean()),
        float(rewards_R.std()) if count > 1 else math.inf,
        count,
        sum(judged.lengths) / count,
        sum(not rollout.ended for rollout in judged.rollouts) / count,
        {name: float(found_R.mean()) for name, found_R in judged.rewards.items()},
    )

"""Preference optimisation of decoders: answers that people preferred become likelier than those that they did not.

| objective | examples        | compares with             |
|-----------|-----------------|---------------------------|
| `dpo`     | pairs           | the model as it was       |
| `kto`     | single answers  | the model as it was       |
| `orpo`    | pairs           | nothing, and learns the chosen answer too |
| `simpo`   | pairs           | nothing, by log-probabilities a token     |

The losses are in `preference_losses`. Each example counts once, however long its answers are and however a step is
divided into passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windlass.build.adapt.data.answers import (
    CHOSEN,
    MISMATCHED,
    REJECTED,
    AnswerBatch,
    AnswerExamples,
    Look,
)
from windlass.build.adapt.data.preferences import Judged, feedback_of, pairs_of
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.objectives import preference_losses as losses
from windlass.build.adapt.objectives.comparing import decoder_of, described, encoded, uncompiled
from windlass.build.adapt.objectives.judgement import Judgement, judged_on, sums_of
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.objectives.reference import remember
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.adapt.sections import TuneObjectiveSettings
from windlass.build.training.data.batches import Batch
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.fitting import Tick
from windlass.build.training.head import token_nats
from windlass.build.training.objectives import Arithmetic, Loss, arithmetic
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Of the texts of a batch, (examples, sides)."""

    own: Tensor
    """Log-probabilities of the answers."""
    reference: Tensor
    """The same by the reference."""
    tokens: Tensor
    """How many tokens they are of."""
    there: Tensor
    baseline: Tensor | None

    @property
    def ratios(self) -> Tensor:
        return self.own - self.reference

    @property
    def means(self) -> Tensor:
        """A token."""
        return self.own / self.tokens.clamp(min=1)


Judge = Callable[[Likelihoods], tuple[Tensor, Tensor]]
"""The loss of each example, and the reward that the model implicitly gives to each answer, (examples, sides)."""


@dataclass(frozen=True, slots=True)
class Method:
    judge: Callable[[TuneObjectiveSettings, Sequence[Judged]], tuple[Judge, str]]
    """From the settings and what is trained on; and in words."""
    paired: bool = True
    referenced: bool = True
    """Whether its loss needs the reference."""


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no decoder or has no template, and for rows that nothing can be learned
    from or that do not fit."""
    settings, asked = opened.settings, opened.settings.objective
    method, model = METHODS[asked.kind], decoder_of(opened)
    judged, left_out = (pairs_of if method.paired else feedback_of)(opened.rows(), settings.data.unusable)
    examples, overlong = encoded(opened, judged, None if method.paired else mismatched(judged))
    sides = split([one.asked for one, _ in examples], settings.data.heldout, settings.run.seed)
    train, heldout = (AnswerExamples([examples[number][1] for number in side]) for side in sides)
    judge, line = method.judge(asked, [examples[number][0] for number in sides[0]])
    attached(model, opened)
    how = uncompiled(opened, model)
    math = arithmetic(model, dtype=dtype_of(settings.run))
    size = settings.data.micro_batch or settings.data.batch or 8

    def begin(loss_of: Spread) -> None:
        for part in (train, heldout) if method.referenced else (heldout,):
            remember(part, model, loss_of, size)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Judgement:
        return judged_on(heldout, loss_of, size, most, tick, surveyed=not method.paired)

    def save(folder: Path) -> None:
        save_tuned(model, opened, folder, "CAUSAL_LM")

    what = "pairs" if method.paired else "answers"
    return Prepared(
        model,
        partial(preference, model, judge=judge, math=math),
        train,
        max(len(answers) for _, answers in examples),
        measure,
        save,
        [*left_out, *overlong, described(train, heldout, what), line, how],
        {"examples": len(train), "tokens": train.tokens, "learned_tokens": train.learned},
        stored_kind(settings),
        begin=begin,
        survey=None if method.paired else partial(with_baseline, model),
    )


def mismatched(judged: Sequence[Judged]) -> list[Judged]:
    """For each prompt one that is answered otherwise: half of all further on, or the next behind that.

    Raises `InputError` when there is but one prompt.
    """
    found, count = [], len(judged)
    for number, one in enumerate(judged):
        others = (judged[(number + count // 2 + step) % count] for step in range(count))
        other = next((other for other in others if other.asked != one.asked), None)
        if other is None:
            raise InputError(
                f"{one.where}: all answers are to the same prompt, so none can be compared with answers to others.",
                "Give answers to several prompts.",
            )
        found.append(other)
    return found


# Passes -------------------------------------------------------------------------------------------------------------


def preference(model: Decoder, batch: Batch, judge: Judge, math: Arithmetic) -> Loss:
    """The loss of a batch, in sum over its examples. Metrics: sums for `Judgement`."""
    assert isinstance(batch, AnswerBatch), "the batch was made for another objective"
    x_TC = model.hidden_of_texts(batch.inputs_BT[0], batch.lengths, dtype=math.dtype)
    nats_BT = token_nats(model.logits, x_TC[None], batch.targets_BT, math.weights(), math.chunk)
    if isinstance(batch, Look):
        return Loss(nats_BT.sum(), batch.counted, {"nats": nats_BT})
    counts_BT = (batch.targets_BT >= 0).float()
    # As long as nobody asked it for more, the model is its own reference.
    known_BT = nats_BT.detach() if batch.reference_BT is None else batch.reference_BT
    found = Likelihoods(
        -batch.by_side(nats_BT),
        -batch.by_side(known_BT),
        batch.by_side(counts_BT),
        batch.there(),
        batch.baseline,
    )
    losses_N, rewards = judge(found)
    moved = ((known_BT - nats_BT.detach()) ** 2).sum() / 2
    metrics = sums_of(rewards.detach(), found.there) | {"tokens": counts_BT.sum(), "moved": moved}
    return Loss(losses_N.sum(), batch.counted, metrics)


def with_baseline(model: Decoder, loss_of: Spread, batches: Sequence[Batch]) -> Sequence[Batch]:
    """KTO's reference point, from the mismatched answers of all passes on all workers: the same however a step is
    divided. Nothing is learned from it, so it takes no backward pass."""
    model.eval()
    seen = [loss_of.seen(batch.of_sides(MISMATCHED)) for batch in batches if isinstance(batch, AnswerBatch)]
    model.train()
    total, count = loss_of.workers.total(sum(float(one.sum) for one in seen), sum(one.counted for one in seen))
    baseline = losses.kto_baseline(torch.tensor(total / count))
    own = (batch.of_sides(CHOSEN, REJECTED) for batch in batches if isinstance(batch, AnswerBatch))
    return [replace(batch, baseline=baseline) for batch in own]


# Methods ------------------------------------------------------------------------------------------------------------


def _dpo(asked: TuneObjectiveSettings, _: Sequence[Judged]) -> tuple[Judge, str]:
    beta, smoothing, kind = _or(asked.beta, 0.1), _or(asked.label_smoothing, 0.0), asked.loss or "sigmoid"
    loss = {"sigmoid": losses.sigmoid, "hinge": losses.hinge, "ipo": losses.ipo}[kind]

    def judge(found: Likelihoods) -> tuple[Tensor, Tensor]:
        ratios = found.ratios / found.tokens.clamp(min=1) if kind == "ipo" else found.ratios
        return loss(ratios[:, CHOSEN] - ratios[:, REJECTED], beta, smoothing), beta * ratios

    return judge, f"loss {kind}, beta {beta:g}, label smoothing {smoothing:g}; {_REFERENCE}"


def _kto(asked: TuneObjectiveSettings, trained: Sequence[Judged]) -> tuple[Judge, str]:
    liked = sum(one.chosen is not None for one in trained)
    disliked = len(trained) - liked
    if not liked or not disliked:
        raise InputError(
            f"All {len(trained):,} answers to train on were {'liked' if liked else 'not liked'}.",
            "Give answers of both kinds; to learn from good ones alone, use objective.kind 'sft'.",
        )
    beta, weight = _or(asked.beta, 0.1), _or(asked.liked_weight, disliked / liked)

    def judge(found: Likelihoods) -> tuple[Tensor, Tensor]:
        """Without a reference point: the log-ratios that it is made of."""
        if found.baseline is None:
            return found.ratios[:, MISMATCHED], beta * found.ratios
        good_N = found.there[:, CHOSEN]
        ratio_N = torch.where(good_N, found.ratios[:, CHOSEN], found.ratios[:, REJECTED])
        loss_N = losses.kto(ratio_N, good_N, found.baseline, beta) * torch.where(good_N, weight, 1.0)
        return loss_N, beta * (found.ratios - found.baseline)

    counts = f"{liked:,} liked, of weight {weight:.3g}, and {disliked:,} not, of weight 1"
    return judge, f"beta {beta:g}; {counts}; {_REFERENCE}"


def _orpo(asked: TuneObjectiveSettings, _: Sequence[Judged]) -> tuple[Judge, str]:
    beta = _or(asked.beta, 0.1)

    def judge(found: Likelihoods) -> tuple[Tensor, Tensor]:
        return losses.orpo(found.means[:, CHOSEN], found.means[:, REJECTED], beta), beta * found.means

    return judge, f"beta {beta:g}, without a reference"


def _simpo(asked: TuneObjectiveSettings, _: Sequence[Judged]) -> tuple[Judge, str]:
    beta, margin, smoothing = _or(asked.beta, 2.0), _or(asked.margin, 1.0), _or(asked.label_smoothing, 0.0)

    def judge(found: Likelihoods) -> tuple[Tensor, Tensor]:
        means = found.means
        return losses.simpo(means[:, CHOSEN], means[:, REJECTED], beta, margin, smoothing), beta * means

    return judge, f"beta {beta:g}, margin {margin:g}, label smoothing {smoothing:g}, without a reference"


def _or(value: float | None, usual: float) -> float:
    return usual if value is None else value


_REFERENCE = "the reference is the model as it is now, whose log-probabilities are computed once"
METHODS: Mapping[Any, Method] = {
    "dpo": Method(_dpo),
    "kto": Method(_kto, paired=False),
    "orpo": Method(_orpo, referenced=False),
    "simpo": Method(_simpo, referenced=False),
}

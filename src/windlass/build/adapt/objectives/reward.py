"""A reward model: a decoder learns to score answers as people preferred them.

The scores of two answers to one prompt are made to differ by the log-odds that the one is preferred (Bradley and Terry,
1952; Christiano et al., arXiv 1706.03741; for language, Stiennon et al., arXiv 2009.01325).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from windlass.build.adapt.data.answers import CHOSEN, REJECTED, SIDES, AnswerBatch, AnswerExamples, Answers
from windlass.build.adapt.data.conversations import Encoded
from windlass.build.adapt.data.preferences import pairs_of
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.objectives.comparing import decoder_of, described, encoded, uncompiled
from windlass.build.adapt.objectives.judgement import Judgement, judged_on, sums_of
from windlass.build.adapt.objectives.preference_losses import bradley_terry
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.attaching import adapter_of, attach_adapter, merge
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_adapter, stored_kind
from windlass.build.training.data.batches import Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss, needed
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.hf import load_links
from windlass.build.transformer.reward_model import RewardModel, reward_links, save_reward_model
from windlass.core.errors import InputError


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no decoder or has no template, and for rows that nothing can be learned
    from or that do not fit."""
    settings = opened.settings
    if settings.adapter.kind in ("prompt", "prefix"):
        raise InputError(
            f"adapter.kind is '{settings.adapter.kind}', which stores nothing but what stands before a text, and a "
            "reward model has a score of its own.",
            "Choose 'lora'.",
        )
    model = _begun(opened)
    links = reward_links(load_links(opened.base))
    pad = opened.specials.separator if opened.specials.pad is None else opened.specials.pad
    judged, left_out = pairs_of(opened.rows(), settings.data.unusable)
    examples, overlong = encoded(opened, judged)
    sides = split([one.asked for one, _ in examples], settings.data.heldout, settings.run.seed)
    train, heldout = (AnswerExamples([_unpadded(examples[number][1], pad) for number in side]) for side in sides)
    attached(model, opened, links)
    how = uncompiled(opened, model)
    smoothing = settings.objective.label_smoothing or 0.0
    size = settings.data.micro_batch or settings.data.batch or 8

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Judgement:
        return judged_on(heldout, loss_of, size, most, tick, surveyed=False)

    def save(folder: Path) -> None:
        if stored_kind(settings) == "adapter":
            save_adapter(model, opened, folder, "SEQ_CLS", links)
        else:
            whole, specials = _merged(model, opened), opened.specials
            save_reward_model(whole, folder, bos=specials.bos, eos=specials.separator, pad=pad)

    line = f"a score of its own is read off the last token; label smoothing {smoothing:g}"
    return Prepared(
        model,
        partial(reward, model, smoothing=smoothing, dtype=dtype_of(settings.run)),
        train,
        max(len(answers) for _, answers in examples),
        measure,
        save,
        [*left_out, *overlong, described(train, heldout, "pairs"), line, how],
        {"examples": len(train), "tokens": train.tokens},
        stored_kind(settings),
    )


def reward(model: RewardModel, batch: Batch, smoothing: float, dtype: torch.dtype | None) -> Loss:
    """The loss of a batch, in sum over its pairs. Metrics: sums for `Judgement`."""
    assert isinstance(batch, AnswerBatch), "the batch was made for another objective"
    scores_D: Tensor = model(batch.inputs_BT[0], batch.lengths, dtype=dtype)
    scores = scores_D.new_zeros(SIDES * batch.counted).index_copy(0, needed(batch.places_D), scores_D).view(-1, SIDES)
    losses_N = bradley_terry(scores[:, CHOSEN], scores[:, REJECTED], smoothing)
    return Loss(losses_N.sum(), batch.counted, sums_of(scores.detach(), batch.there()))


def _begun(opened: Opened) -> RewardModel:
    """The base with a score that says little yet, of variance 1 / (width + 1) (Stiennon et al., appendix B.1)."""
    model = RewardModel(decoder_of(opened))
    generator = torch.Generator().manual_seed(opened.settings.run.seed)
    nn.init.normal_(model.score.weight, std=(model.config.hidden + 1) ** -0.5, generator=generator)
    return model


def _merged(model: RewardModel, opened: Opened) -> RewardModel:
    """One model of base and adapter; the base is read again, as for `peft.storing.merged`."""
    if all(parameter.requires_grad for parameter in model.parameters()):
        return model
    fresh = _begun(opened)
    attach_adapter(fresh, adapter_of(model))
    merge(fresh)
    return fresh


def _unpadded(answers: Answers, pad: int) -> Answers:
    """Without the tokens at the end that fill up rows: a base without such a token fills up with its end of text, and
    whoever reads the score off the last token that is another looks before that."""
    chosen, rejected, other = (None if text is None else _shortened(text, pad) for text in answers.sides)
    return Answers((chosen, rejected, other))


def _shortened(text: Encoded, pad: int) -> Encoded:
    length = len(text)
    while length > 1 and text.tokens[length - 1] == pad:
        length -= 1
    return Encoded(text.tokens[:length], text.learned[:length])

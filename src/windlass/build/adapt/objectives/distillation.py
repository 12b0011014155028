"""Distillation: a student learns from what a teacher thinks of every next token, and not just from the one that came.

The teacher reads the same rows in the same pass, frozen. The loss of a token that counts is

    label_weight * nats of the token + (1 - label_weight) * temperature^2 * divergence of student and teacher

where the square keeps the gradients of the second part as large as they are at temperature 1 (Hinton et al., arXiv
1503.02531). Vectors of both models go through their heads together, a chunk of positions at a time, so that never more
logits are in memory than those of one chunk. Both must number tokens alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.adapt.objectives.comparing import decoder_of
from windlass.build.adapt.objectives.distillation_losses import Divergence, divergence
from windlass.build.adapt.objectives.preparing import LossOf, Prepared, scheduled
from windlass.build.adapt.objectives.sft import conversation_rows
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.adapt.settings import TuneObjectiveSettings
from windlass.build.tokenizer import load_tokenizer
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.data.batches import IGNORE, Batch, Examples
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.fitting import Tick
from windlass.build.training.head import Head, chunk_size, cross_entropy
from windlass.build.training.measuring.heldout import spread
from windlass.build.training.objectives import Arithmetic, Loss, arithmetic, balanced, routing_of
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned of the teacher."""

    divergence: Divergence
    beta: float
    temperature: float
    label_weight: float

    def __str__(self) -> str:
        kind = f"jsd with beta {self.beta:g}" if self.divergence == "jsd" else f"{self.divergence} KL"
        return (
            f"{kind} at temperature {self.temperature:g} weighs {1 - self.label_weight:g}, "
            f"the tokens of the rows {self.label_weight:g}"
        )


@dataclass(frozen=True, slots=True)
class Imitation:
    """What the student makes of rows that it was not trained on; all a token that counts."""

    loss: float
    tokens: int
    nats: float
    teacher: float
    """Nats of the teacher."""
    divergence: float
    """At the temperature."""
    accuracy: float
    agreement: float
    """How often student and teacher hold the same token for the likeliest."""

    def metrics(self) -> dict[str, float]:
        return {
            "heldout_loss": self.loss,
            "heldout_nats": self.nats,
            "heldout_teacher_nats": self.teacher,
            "heldout_divergence": self.divergence,
            "heldout_accuracy": self.accuracy,
            "heldout_agreement": self.agreement,
        }

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, divergence {self.divergence:.4f}, {self.agreement:.1%} as the teacher; "
            f"{self.nats:.4f} nats a target (the teacher {self.teacher:.4f}), {self.accuracy:.1%} right, "
            f"over {self.tokens:,} targets"
        )


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base or a teacher that is no decoder, for a teacher that numbers tokens otherwise or
    reads shorter rows, and for rows as `sft` does."""
    settings, lesson = opened.settings, lesson_of(opened.settings.objective)
    model, teacher = decoder_of(opened), teacher_of(opened)
    rows = conversation_rows(opened, opened.rows())
    if rows.size > teacher.config.context:
        raise InputError(
            f"objective.teacher: {settings.objective.teacher} reads {teacher.config.context:,} tokens, but a row has "
            f"{rows.size:,}.",
            f"Set model.context to {teacher.config.context}, or choose another teacher.",
        )
    attached(model, opened)
    schedule = scheduled(settings, len(rows.train))
    compiler, how = prepare_blocks(model, settings.run, schedule)
    prepare_blocks(teacher, replace(settings.run, recompute=False), schedule)
    head = head_of_both(model, teacher, lesson)
    both = chunk_size(model.config.vocab_size + teacher.config.vocab_size)
    math = arithmetic(model, dtype=dtype_of(settings.run), chunk=both)
    math = replace(math, head=head if compiler is None else compiler(head))
    parameters = sum(parameter.numel() for parameter in teacher.parameters())

    def begin(loss_of: Spread) -> None:
        teacher.to(loss_of.workers.device)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Imitation:
        return measured(rows.unseen, loss_of, settings.data.micro_batch or 8, most, tick)

    def save(folder: Path) -> None:
        save_tuned(model, opened, folder, "CAUSAL_LM")

    taught = f"{settings.objective.teacher} of {parameters:,} parameters teaches, frozen: {lesson}"
    return Prepared(
        model,
        partial(distil, model, teacher=teacher, math=math),
        rows.train,
        rows.size,
        measure,
        save,
        [*rows.lines, taught, how],
        rows.facts,
        stored_kind(settings),
        begin=begin,
        beside=teacher,
    )


def lesson_of(asked: TuneObjectiveSettings) -> Lesson:
    return Lesson(
        asked.divergence or "forward",
        0.5 if asked.beta is None else asked.beta,
        1.0 if asked.temperature is None else asked.temperature,
        0.5 if asked.label_weight is None else asked.label_weight,
    )


def teacher_of(opened: Opened) -> Decoder:
    """Frozen, without dropout. Raises `InputError` when it is no decoder or numbers tokens otherwise than the base."""
    name, folder = opened.settings.objective.teacher, opened.teacher
    assert folder is not None, "the settings demand a teacher"
    model = load_model(folder)
    if not isinstance(model, Decoder):
        raise InputError(f"objective.teacher: {name} is no decoder.", "Name one.")
    theirs, ours = load_tokenizer(folder).get_vocab(), opened.tokenizer.get_vocab()
    other = sum(theirs.get(token) != number for token, number in ours.items())
    if other or len(theirs) != len(ours):
        raise InputError(
            f"objective.teacher: {name} has another vocabulary of {len(theirs):,} tokens; {other:,} of the "
            f"{len(ours):,} tokens of {opened.base_name} are not there or have other numbers.",
            "Choose a teacher with the same tokenizer, or learn from what it answers: serve it, ask it, and "
            "`windlass tune chat --from traces --teacher NAME`.",
        )
    return model.eval().requires_grad_(False)


def distil(model: Decoder, batch: Batch, teacher: Decoder, math: Arithmetic) -> Loss:
    """The loss of a batch, in sum over its targets. Metrics: sums for `Imitation`."""
    routing = routing_of(model)
    x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype, routing=routing)
    with torch.no_grad():
        taught_BTC = teacher.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype)
    both_BTC = torch.cat([x_BTC, taught_BTC], -1)
    total, sums = cross_entropy(math.head, both_BTC, batch.targets_BT, math.weights(), math.chunk)
    return balanced(Loss(total, batch.counted, dict(zip(_SUMS, sums, strict=True))), routing, math)


_SUMS = ("nats", "teacher", "divergence", "right", "agreeing")


def head_of_both(student: Decoder, teacher: Decoder, lesson: Lesson) -> Head:
    """The head of vectors of the student with those of the teacher behind them: the loss in sum, and `_SUMS`.

    Either vocabulary may be filled up behind its last token, so the models are compared on what both have.
    """
    width = student.config.hidden
    shared = min(student.config.vocab_size, teacher.config.vocab_size)
    hard, soft = lesson.label_weight, (1 - lesson.label_weight) * lesson.temperature**2

    def head(both_NC: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = student.logits(both_NC[:, :width]).float()
        with torch.no_grad():
            taught_NV = teacher.logits(both_NC[:, width:]).float()
        nats = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="sum")
        counts_N = targets_N != IGNORE
        apart_N = divergence(
            logits_NV[:, :shared], taught_NV[:, :shared], lesson.divergence, lesson.beta, lesson.temperature
        )
        apart = torch.where(counts_N, apart_N, 0).sum()
        said_N, taught_N = logits_NV.detach().argmax(-1), taught_NV.argmax(-1)
        sums = (
            nats.detach(),
            F.cross_entropy(taught_NV, targets_N, ignore_index=IGNORE, reduction="sum"),
            apart.detach(),
            (said_N == targets_N).sum(),
            ((said_N == taught_N) & counts_N).sum(),
        )
        return hard * nats + soft * apart, torch.stack([one.float() for one in sums])

    return head


@torch.no_grad()
def measured(examples: Examples, loss_of: LossOf, size: int, most: int | None, tick: Tick | None) -> Imitation:
    """Over one epoch of examples, or about `most` of their targets spread evenly over it."""
    numbers, sums, tokens, total = spread(examples, most), Counter[str](), 0, 0.0
    for start in range(0, len(numbers), size):
        loss = loss_of(examples.batch([(0, number) for number in numbers[start : start + size]]))
        total, tokens = total + float(loss.sum), tokens + loss.counted
        sums.update({name: float(loss.metrics[name]) for name in _SUMS})
        if tick is not None:
            tick(tokens)
    means = (sums[name] / tokens for name in _SUMS)
    return Imitation(total / tokens, tokens, *means)

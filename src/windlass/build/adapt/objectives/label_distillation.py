"""Distillation of a classifier: a small encoder learns what a larger one thinks of every label of a text, and not only
which of them the row names.

The loss of a text is

    label_weight * cross-entropy of its label + (1 - label_weight) * temperature^2 * divergence of student and teacher

(Hinton et al., arXiv 1503.02531). Rows may name no label: then the teacher alone is learned from, and texts of the
right kind are all that is needed (Turc et al., arXiv 1908.08962). Labels that do not exclude each other are so many
distributions over two outcomes. The teacher reads every text once, in its own tokens, before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.columns import text_in
from windlass.build.adapt.data.labels import labels_of
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader, Tokens, reads_types
from windlass.build.adapt.objectives.classification import agreeing, scores
from windlass.build.adapt.objectives.distillation_losses import divergence
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import begun
from windlass.build.adapt.objectives.lessons import Lesson, lesson_of
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened, taught_by
from windlass.build.adapt.peft.storing import stored_kind
from windlass.build.adapt.sections import TuneObjectiveSettings
from windlass.build.training.data.batches import Batch
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import Workers
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier import Classifier, Kind
from windlass.build.transformer.classifier_files import has_head, load_classifier
from windlass.core.errors import InputError
from windlass.core.progress import Progress

_ROWS = 32
"""Texts that the teacher reads at a time."""


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a teacher that is no classifier of texts, for settings that only a decoder can follow,
    for labels that the teacher does not know, and for rows as `classify` does."""
    settings, asked = opened.settings, opened.settings.objective
    _check(asked, opened.base_name)
    teaching = taught_by(opened)
    teacher = teacher_of(teaching)
    names, kind = teacher.head.labels, teacher.head.kind
    if asked.labels and asked.labels != names:
        raise InputError(
            f"objective.labels names {', '.join(asked.labels)}, but {asked.teacher} knows {', '.join(names)}.",
            "Leave it out: the teacher says which labels there are.",
        )
    rows, texts, heard, lines = read_by_both(opened, teaching)
    right_NL = labels_in(rows, names, kind)
    lesson = replace(lesson_of(asked, same=True), of="labels")
    if right_NL is None:
        if asked.label_weight:
            raise InputError(
                f"objective.label_weight is {asked.label_weight:g}, but the rows have no labels.",
                "Leave it out: then the teacher alone is learned from.",
            )
        lesson = replace(lesson, label_weight=0.0)
    given_NL = np.zeros((len(rows), len(names)), np.float32) if right_NL is None else right_NL
    examples = [
        Example([text], np.stack([given, np.zeros_like(given)])[None])
        for text, given in zip(texts, given_NL, strict=True)
    ]
    strata = None if right_NL is None or kind == "any of" else right_NL.argmax(1).tolist()
    sides = split([text.ids.tobytes() for text in texts], settings.data.heldout, settings.run.seed, strata)
    learned, unseen = (TextExamples([examples[number] for number in side], typed=reads_types(opened)) for side in sides)
    judging = begun(opened, names, kind)

    def begin(loss_of: Spread) -> None:
        alone = TextExamples([Example([one], np.zeros(1, np.int64)) for one in heard], typed=reads_types(teaching))
        for example, said_L in zip(examples, opinions(teacher, alone, loss_of.workers, dtype), strict=True):
            example.targets[0, 1] = said_L

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        return measured(loss_of, unseen, kind, right_NL is not None, most, tick)

    dtype = dtype_of(settings.run)
    parameters = sum(parameter.numel() for parameter in teacher.parameters())
    lines += [
        f"{len(learned):,} texts to train on, {len(unseen):,} held out; {learned.tokens:,} tokens, none of them "
        "padding",
        f"{asked.teacher} of {parameters:,} parameters teaches {len(names)} labels, frozen: {lesson}",
        *judging.lines,
    ]
    facts: dict[str, object] = {"examples": len(learned), "tokens": learned.tokens, "labels": list(names)}
    return Prepared(
        judging.model,
        partial(imitated, judging.model, lesson=lesson, kind=kind, dtype=dtype),
        learned,
        max(len(text.ids) for text in texts),
        measure,
        judging.save,
        lines,
        facts,
        stored_kind(settings),
        begin=begin,
        beside=teacher,
    )


def _check(asked: TuneObjectiveSettings, base: str) -> None:
    """Raises `InputError` for what only decoders learn of each other."""
    only = {
        "divergence": asked.divergence == "sorted",
        "hidden_weight": bool(asked.hidden_weight),
        "own_share": bool(asked.own_share),
    }
    for name, wanted in only.items():
        if wanted:
            raise InputError(
                f"objective.{name} is {getattr(asked, name)!r}, but {base} is an encoder, which learns labels.",
                "It heeds divergence (forward, reverse, jsd), beta, temperature and label_weight.",
            )


def teacher_of(teaching: Opened) -> Classifier:
    """Frozen, without dropout. Raises `InputError` when it judges no texts by labels."""
    if not has_head(teaching.base, "texts"):
        raise InputError(
            f"objective.teacher: {teaching.base_name} is no classifier of texts.",
            "An encoder learns from one, such as `windlass tune classify` makes.",
        )
    teacher = load_classifier(teaching.base, "texts")
    if teacher.head.kind == "number":
        raise InputError(
            f"objective.teacher: {teaching.base_name} gives numbers and no labels.",
            "Have it write its numbers into the rows, and learn those by 'regress'.",
        )
    return teacher.eval().requires_grad_(False)


def read_by_both(opened: Opened, teaching: Opened) -> tuple[list[Row], list[Tokens], list[Tokens], list[str]]:
    """The rows, their texts as the student and as the teacher reads them, and what a person should know of both."""
    rows, lines = opened.rows(), list[str]()
    readers = [TextReader.of(one) for one in (opened, teaching)]
    for reader in readers:
        rows, left_out = reader.fitting(rows, lambda row: [text_in(row)])
        lines += left_out
    texts = [text_in(row) for row in rows]
    (own, cut), (theirs, cut_there) = (reader.read(texts, rows) for reader in readers)
    for count, who in ((cut, "the model"), (cut_there, "the teacher")):
        lines += [f"{count:,} texts are longer than {who} reads, and were cut"] if count else []
    return rows, own, theirs, lines


def labels_in(rows: Sequence[Row], names: Sequence[str], kind: Kind) -> NDArray[np.float32] | None:
    """1 where a row has a label of the teacher's, (rows, labels); None where no row names any."""
    if not any("label" in row.values or "labels" in row.values for row in rows):
        return None
    labels = labels_of(rows, names, by="the teacher")
    if labels.several != (kind == "any of"):
        raise InputError(
            "The rows hold lists of labels, but those of the teacher exclude each other."
            if labels.several
            else "The rows hold one label each, but of the teacher's a text may have several.",
            "Give the labels as the teacher has them, or leave their column out.",
        )
    found = np.zeros((len(rows), len(names)), np.float32)
    for row, chosen in zip(found, labels.chosen, strict=True):
        row[list(chosen)] = 1.0
    return found


@torch.no_grad()
def opinions(
    teacher: Classifier, texts: TextExamples, workers: Workers, dtype: torch.dtype | None
) -> NDArray[np.float32]:
    """The teacher's logits of every text, (texts, labels). All workers must call it together; they share the passes."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    passes = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
    found = np.zeros((len(texts), len(teacher.head.labels)), np.float32)
    teacher.to(workers.device)
    with Progress("teacher", len(passes), "passes", out=workers.screen, start=0) as progress:
        for turn in range(workers.number, len(passes), workers.count):
            batch = texts.batch([(0, number) for number in passes[turn]]).to(workers.device)
            found[passes[turn]] = scores(teacher, batch, dtype).float().cpu().numpy()
            progress.update(turn + 1)
    if workers.count > 1:
        found = np.array(workers.total(*found.ravel().tolist()), np.float32).reshape(found.shape)
    return found


def imitated(model: Classifier, batch: Batch, lesson: Lesson, kind: Kind, dtype: torch.dtype | None = None) -> Loss:
    """The loss of a batch, in sum over its texts. `metrics` holds the logits, (texts, labels), and the divergence in
    sum."""
    assert isinstance(batch, TextBatch)
    logits_BL = scores(model, batch, dtype)
    given_BL, taught_BL = batch.targets_BT[0].unbind(1)
    if kind == "any of":
        hard_B = F.binary_cross_entropy_with_logits(logits_BL, given_BL, reduction="none").mean(1)
        soft_B = _apart(_outcomes(logits_BL), _outcomes(taught_BL), lesson).view_as(logits_BL).mean(1)
    else:
        hard_B = -(given_BL * logits_BL.log_softmax(1)).sum(1)
        soft_B = _apart(logits_BL, taught_BL, lesson)
    loss = lesson.label_weight * hard_B + (1 - lesson.label_weight) * lesson.temperature**2 * soft_B
    return Loss(loss.sum(), batch.counted, {"logits": logits_BL.detach(), "divergence": soft_B.detach().sum()})


def _apart(student_NL: Tensor, teacher_NL: Tensor, lesson: Lesson) -> Tensor:
    return divergence(student_NL, teacher_NL, lesson.divergence, lesson.beta, lesson.temperature)


def _outcomes(logits_BL: Tensor) -> Tensor:
    """Each label by itself, (texts x labels, 2): the softmax of a logit and 0 is its sigmoid."""
    return torch.stack([logits_BL, torch.zeros_like(logits_BL)], -1).flatten(0, 1)


def measured(
    loss_of: LossOf, unseen: TextExamples, kind: Kind, labelled: bool, most: int | None, tick: Tick | None
) -> Figures:
    """How often the student says what the teacher does; where the rows name labels, also how often each is right."""
    total, apart, logits, targets = 0.0, 0.0, [], []
    for numbers, loss in looked(loss_of, unseen, most, tick):
        total, apart = total + float(loss.sum), apart + float(loss.metrics["divergence"])
        logits.append(loss.metrics["logits"].float().cpu().numpy())
        targets += [unseen[number].targets for number in numbers]
    said_NL, (given_NL, taught_NL) = np.concatenate(logits), np.concatenate(targets).swapaxes(0, 1)
    count, several = len(said_NL), kind == "any of"
    same = (said_NL > 0) == (taught_NL > 0) if several else said_NL.argmax(1) == taught_NL.argmax(1)
    values = {"divergence": apart / count, "agreement": float(same.mean())}
    said = f"{values['agreement']:.1%} as the teacher of {count:,}, divergence {values['divergence']:.4f}"
    if labelled:
        right = given_NL if several else given_NL.argmax(1)
        (own, line), (theirs, _) = (agreeing(one, right, several) for one in (said_NL, taught_NL))
        first = next(iter(own))
        values |= own | {f"teacher_{first}": theirs[first]}
        said += f"; {line} (the teacher: {theirs[first]:.3f})"
    return Figures(total / count, values, said)

"""Distillation: a student learns from what a teacher thinks of every next token, and not just from the one that came.

The teacher reads the same rows in the same pass, frozen. The loss of a token that counts is

    label_weight * nats of the token + (1 - label_weight) * temperature^2 * divergence of student and teacher
    + hidden_weight * distance of what layers of both put out

where the square keeps the gradients of the second part as large as they are at temperature 1 (Hinton et al., arXiv
1503.02531). Vectors of both models go through their heads together, a chunk of positions at a time, so that never more
logits are in memory than those of one chunk.

Whose answers are read is another choice: those of the rows, the student's own (`own_answers`), or the teacher's, which
`adapt.answering` has asked for before (Kim and Rush, arXiv 1606.07947). A teacher with other tokens reads each row in
its own, and is heard where both have read the same (`data.aligning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.adapt.data.aligning import APART, PairedBatch, PairedExamples, pairs_of
from windlass.build.adapt.data.lengths import row_size
from windlass.build.adapt.data.splitting import split_off
from windlass.build.adapt.objectives import label_distillation, sft
from windlass.build.adapt.objectives.comparing import decoder_of
from windlass.build.adapt.objectives.distillation_losses import divergence
from windlass.build.adapt.objectives.hidden import HiddenLesson, Pupil, listening, paired
from windlass.build.adapt.objectives.lessons import Imitation, Lesson, lesson_of, measured
from windlass.build.adapt.objectives.own_answers import OwnAnswers
from windlass.build.adapt.objectives.preparing import LossOf, Prepared, scheduled
from windlass.build.adapt.objectives.sft import conversation_rows, encoded_rows
from windlass.build.adapt.opening import Opened, taught_by
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_tuned, stored_kind
from windlass.build.adapt.rl.prompts import ends_of, prompts_of
from windlass.build.adapt.rl.rollouts import PlainRollouts, Rollouts, Writing, twin
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.data.batches import IGNORE, Batch, Examples, OnPolicy
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.fitting import Tick
from windlass.build.training.head import Head, chunk_size, cross_entropy
from windlass.build.training.objectives import Arithmetic, Loss, arithmetic, balanced, needed, routing_of
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Rows:
    """What is read, and how long a row is."""

    train: Examples | OnPolicy
    unseen: Examples
    size: int
    lines: Sequence[str]
    facts: dict[str, object]


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base or a teacher that is no decoder, for what a teacher with other tokens or shorter
    rows cannot teach, and for rows as `sft` does. An encoder learns labels instead, and raises as its objective does.
    """
    if not opened.config.causal and not opened.config.decoder_layers:
        return label_distillation.prepare(opened)
    settings, asked = opened.settings, opened.settings.objective
    if asked.label_weight == 1:  # of the teacher, only its answers are learned, and they are rows by now
        return sft.prepare(opened)
    model, teaching = decoder_of(opened), taught_by(opened)
    teacher, same = teacher_of(teaching), same_tokens(opened, teaching)
    lesson = lesson_of(asked, same=same)
    hidden = hidden_lesson(opened, model, teacher)
    own = own_answers(opened, model) if asked.own_share else None
    rows = read_apart(opened, teaching, teacher) if not same else read_together(opened, own)
    if rows.size > teacher.config.context:
        raise InputError(
            f"objective.teacher: {asked.teacher} reads {teacher.config.context:,} tokens, but a row has {rows.size:,}.",
            f"Set model.context to {teacher.config.context}, or choose another teacher.",
        )
    attached(model, opened)
    run = settings.run if own is None else replace(settings.run, compile="no")  # no two passes of one shape
    schedule = scheduled(settings, len(rows.train))
    compiler, how = prepare_blocks(model, run, schedule)
    prepare_blocks(teacher, replace(run, recompute=False), schedule)
    head = (head_of_both if same else head_apart)(model, teacher, lesson)
    both = chunk_size(model.config.vocab_size + teacher.config.vocab_size)
    math = arithmetic(model, dtype=dtype_of(settings.run), chunk=both)
    math = replace(math, head=head if compiler is None else compiler(head))
    parameters = sum(parameter.numel() for parameter in teacher.parameters())
    trained: Decoder | Pupil = model
    if hidden is not None:
        trained = Pupil(model, teacher.config.hidden, len(hidden.pairs), settings.run.seed)

    def begin(loss_of: Spread) -> None:
        teacher.to(loss_of.workers.device)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Imitation:
        return measured(rows.unseen, loss_of, settings.data.micro_batch or 8, most, tick)

    def save(folder: Path) -> None:
        save_tuned(model, opened, folder, "CAUSAL_LM")

    taught = f"{asked.teacher} of {parameters:,} parameters teaches, frozen: {lesson}"
    return Prepared(
        trained,
        partial(distil if same else distil_apart, trained, teacher=teacher, math=math, hidden=hidden),
        rows.train,
        rows.size,
        measure,
        save,
        [*rows.lines, taught, *([] if hidden is None else [str(hidden)]), how],
        rows.facts,
        stored_kind(settings),
        begin=begin,
        beside=teacher,
        noted=dict if own is None else own.tally.read,
    )


def teacher_of(teaching: Opened) -> Decoder:
    """Frozen, without dropout. Raises `InputError` when it is no decoder."""
    model = load_model(teaching.base)
    if not isinstance(model, Decoder):
        raise InputError(f"objective.teacher: {teaching.base_name} is no decoder.", "Name one.")
    return model.eval().requires_grad_(False)


def same_tokens(opened: Opened, teaching: Opened) -> bool:
    """Whether base and teacher number tokens alike. Raises `InputError` when they do not, but the settings ask for what
    only works then."""
    theirs, ours = teaching.tokenizer.get_vocab(), opened.tokenizer.get_vocab()
    other = sum(theirs.get(token) != number for token, number in ours.items())
    if not other and len(theirs) == len(ours):
        return True
    asked = opened.settings.objective
    needs = {
        f"divergence '{asked.divergence}'": asked.divergence not in (None, "sorted"),
        "hidden_weight": bool(asked.hidden_weight),
        "own_share": bool(asked.own_share),
    }
    for name, wanted in needs.items():
        if wanted:
            raise InputError(
                f"objective.teacher: {asked.teacher} has another vocabulary of {len(theirs):,} tokens; {other:,} of "
                f"the {len(ours):,} tokens of {opened.base_name} are not there or have other numbers, which "
                f"objective.{name} does not work with.",
                "Leave it out, choose a teacher with the same tokenizer, or learn from its answers alone: "
                "objective.answers = 'teacher', label_weight = 1.",
            )
    return False


def hidden_lesson(opened: Opened, model: Decoder, teacher: Decoder) -> HiddenLesson | None:
    asked, kind = opened.settings.objective, opened.settings.adapter.kind
    if not asked.hidden_weight:
        return None
    if kind in ("prompt", "prefix"):
        raise InputError(
            f"objective.hidden_weight is set, but adapter.kind '{kind}' puts positions before the text that the "
            "teacher does not have.",
            "Use 'lora'.",
        )
    pairs = paired(asked.layers, model.config.layers, teacher.config.layers)
    return HiddenLesson(pairs, asked.hidden_weight, asked.hidden_distance or "mse")


def own_answers(opened: Opened, model: Decoder) -> OwnAnswers:
    """Still without rows."""
    settings = opened.settings
    if settings.adapter.kind in ("prompt", "prefix"):
        raise InputError(
            f"adapter.kind is '{settings.adapter.kind}', with which objective.own_share does not work.", "Use 'lora'."
        )
    if settings.run.compile == "yes":
        raise InputError("run.compile is 'yes', but the answers have other lengths in every step.", "Leave it out.")
    writing = Writing(settings.rl.answer_tokens, ends_of(opened), settings.rl.temperature)

    @cache
    def rollouts() -> Rollouts:
        return (opened.rollouts or PlainRollouts)(twin(model), writing)

    share = settings.objective.own_share or 0.0
    return OwnAnswers([], share, rollouts, settings.run.seed, padding(opened))


def padding(opened: Opened) -> int:
    return opened.specials.separator if opened.specials.pad is None else opened.specials.pad


def read_together(opened: Opened, own: OwnAnswers | None) -> Rows:
    """The rows for both models, as `sft` reads them; `own` gets those to answer."""
    if own is None:
        rows = conversation_rows(opened, opened.rows())
        return Rows(rows.train, rows.unseen, rows.size, rows.lines, rows.facts)
    settings = opened.settings
    prompts, unasked = prompts_of(opened, settings.rl.answer_tokens)
    given = [prompt.row for prompt in prompts]
    rows = conversation_rows(opened, given)
    both = list(zip(prompts, encoded_rows(opened, given), strict=True))
    _, whole, left_out = row_size(opened, both, lambda row: len(row[1]))
    own.rows, _ = split_off(whole, lambda row: row[1].tokens.tobytes(), settings.data.heldout, settings.run.seed)
    size = max(max(len(one.tokens) for one, _ in whole) + settings.rl.answer_tokens, rows.size)
    line = f"the student answers {own.share:.0%} of {len(own):,} rows itself, in at most {settings.rl.answer_tokens:,}"
    return Rows(own, rows.unseen, size, [*unasked, *left_out, rows.lines[-2], f"{line} tokens"], rows.facts)


def read_apart(opened: Opened, teaching: Opened, teacher: Decoder) -> Rows:
    """The rows as each of the two reads them."""
    data = opened.settings.data
    size, pairs, left_out = row_size(opened, pairs_of(opened, teaching, opened.rows()))
    train, heldout = split_off(pairs, lambda pair: pair.own.tokens.tobytes(), data.heldout, opened.settings.run.seed)
    examples, unseen = (
        PairedExamples(part, size, pad=padding(opened), their_pad=padding(teaching), packing=data.packing)
        for part in (train, heldout)
    )
    tokens, learned = sum(len(pair.own) for pair in train), sum(int(pair.own.learned.sum()) for pair in train)
    heard = sum(int((pair.places != APART).sum()) for pair in train)
    if not heard:
        raise InputError(
            f"objective.teacher: nowhere in an answer have {opened.base_name} and {teaching.base_name} read the same.",
            "Look at what their templates write before an answer.",
        )
    lines = [
        *left_out,
        f"{len(train):,} examples to train on, {len(heldout):,} held out; {tokens:,} tokens, of which {learned:,} "
        f"({learned / tokens:.0%}) are learned; before {heard:,} of them ({heard / learned:.0%}) the teacher, which "
        "has other tokens, has read the same",
    ]
    facts: dict[str, object] = {
        "examples": len(train),
        "overlong": 0,
        "tokens": tokens,
        "learned_tokens": learned,
        "aligned_tokens": heard,
    }
    return Rows(examples, unseen, size, lines, facts)


def distil(
    trained: Decoder | Pupil, batch: Batch, teacher: Decoder, math: Arithmetic, hidden: HiddenLesson | None = None
) -> Loss:
    """The loss of a batch, in sum over its targets. Metrics: sums for `Imitation`."""
    model = trained.decoder if isinstance(trained, Pupil) else trained
    routing = routing_of(model)
    pairs = () if hidden is None else hidden.pairs
    with listening(model, [own for own, _ in pairs]) as ours:
        x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype, routing=routing)
    with torch.no_grad(), listening(teacher, [other for _, other in pairs]) as taught:
        taught_BTC = teacher.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype)
    both_BTC = torch.cat([x_BTC, taught_BTC], -1)
    total, sums = cross_entropy(math.head, both_BTC, batch.targets_BT, math.weights(), math.chunk)
    metrics = dict(zip(_SUMS, sums, strict=True))
    if hidden is not None:
        maps = list(trained.maps) if isinstance(trained, Pupil) else []
        apart = hidden.loss(maps, ours, taught, batch.targets_BT != IGNORE)
        total, metrics["hidden"] = total + hidden.weight * apart, apart.detach()
    return balanced(Loss(total, batch.counted, metrics), routing, math)


_SUMS = ("nats", "divergence", "right", "teacher", "agreeing")


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
            apart.detach(),
            (said_N == targets_N).sum(),
            F.cross_entropy(taught_NV, targets_N, ignore_index=IGNORE, reduction="sum"),
            ((said_N == taught_N) & counts_N).sum(),
        )
        return hard * nats + soft * apart, torch.stack([one.float() for one in sums])

    return head


def distil_apart(
    model: Decoder | Pupil, batch: Batch, teacher: Decoder, math: Arithmetic, hidden: HiddenLesson | None = None
) -> Loss:
    """The same from a teacher that reads other tokens. Targets before which it has not read the same learn only the
    token that stands there."""
    assert isinstance(model, Decoder) and isinstance(batch, PairedBatch), "it was made for another objective"
    routing, places_BT = routing_of(model), needed(batch.places_BT)
    x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype, routing=routing)
    with torch.no_grad():
        taught_BSC = teacher.hidden(needed(batch.source_BS), documents_BT=batch.source_documents_BS, dtype=math.dtype)
        at_BTC = places_BT.clamp(min=0)[..., None].expand(-1, -1, taught_BSC.shape[-1])
        heard_BT1 = (places_BT != APART)[..., None].to(taught_BSC.dtype)
    both_BTC = torch.cat([x_BTC, taught_BSC.gather(1, at_BTC), heard_BT1], -1)
    total, sums = cross_entropy(math.head, both_BTC, batch.targets_BT, math.weights(), math.chunk)
    metrics = dict(zip(_SUMS_APART, sums, strict=True))
    return balanced(Loss(total, batch.counted, metrics), routing, math)


_SUMS_APART = ("nats", "divergence", "right", "aligned")


def head_apart(student: Decoder, teacher: Decoder, lesson: Lesson) -> Head:
    """The head of vectors of the student, those of the teacher behind them, and last 1 where both have read the same:
    the loss in sum, and `_SUMS_APART`."""
    width = student.config.hidden
    hard, soft = lesson.label_weight, (1 - lesson.label_weight) * lesson.temperature**2

    def head(both_NC: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = student.logits(both_NC[:, :width]).float()
        with torch.no_grad():
            taught_NW = teacher.logits(both_NC[:, width:-1]).float()
        nats = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="sum")
        heard_N = (targets_N != IGNORE) & (both_NC[:, -1] > 0.5)
        apart_N = divergence(logits_NV, taught_NW, lesson.divergence, lesson.beta, lesson.temperature)
        apart = torch.where(heard_N, apart_N, 0).sum()
        right = (logits_NV.detach().argmax(-1) == targets_N).sum()
        return hard * nats + soft * apart, torch.stack([nats.detach(), apart.detach(), right.float(), heard_N.sum()])

    return head

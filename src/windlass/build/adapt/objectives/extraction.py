"""Extraction: the stretch of a text that answers a question, or that there is none (SQuAD: Rajpurkar et al., arXiv
1606.05250 and 1806.03822).

Each token is judged as the first and as the last one of the answer; the first token of all stands for no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from windlass.build.adapt.data.questions import Question, Window, brief, question_of, windows
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader, reads_types
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import begun
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.storing import stored_kind
from windlass.build.training.data.batches import Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier import Classifier
from windlass.build.transformer.spans import best_span
from windlass.core.answers import answer_f1, exact_match
from windlass.core.errors import InputError

THRESHOLD = "no_answer_threshold"
"""A figure, and a key of the stored `config.json`: what an answer's margin must exceed to be given."""


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no encoder, and for answers that do not stand where they should."""
    settings = opened.settings
    reader, given = TextReader.of(opened), [question_of(row) for row in opened.rows()]
    questions = brief(reader.tokenizer, given, reader.limit, settings.data.overlong)
    if not any(one.answers for one in questions):
        raise InputError("No question has an answer, so there is nothing to find.", "Look at the column `answers`.")
    parts = windows(reader.tokenizer, questions, reader.limit)
    # By context: the sentences around a held-out answer shall be new too.
    train, heldout = split([one.context for one in questions], settings.data.heldout, settings.run.seed)
    judging = begun(opened, ("LABEL_0", "LABEL_1"), "one of", "spans")
    typed, chosen = reads_types(opened), set(train)
    mine = [part for part in parts if part.question in chosen]
    others = [part for part in parts if part.question not in chosen]
    learned, unseen = (TextExamples([_example(part) for part in some], typed=typed) for some in (mine, others))

    chosen_threshold: dict[str, float] = {}

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        figures = answered(loss_of, unseen, others, questions, most, tick)
        chosen_threshold.update({name: value for name, value in figures.values.items() if name == THRESHOLD})
        return figures

    def save(folder: Path) -> None:
        replace(judging, more=chosen_threshold).save(folder)  # the last measurement's, which is of all

    without = sum(not one.answers for one in questions)
    long = len(given) - len(questions)
    lines = [
        *([f"left out: {long:,} of {len(given):,} questions, too long to leave room for a text"] if long else []),
        f"{len(train):,} questions to train on, {len(heldout):,} held out with their contexts; {without:,} have no "
        f"answer",
        f"{len(mine):,} windows of at most {reader.limit} tokens, of which "
        f"{sum(part.target != (0, 0) for part in mine):,} hold an answer; {learned.tokens:,} tokens, none of them "
        "padding",
        *judging.lines,
    ]
    facts: dict[str, object] = {
        "examples": len(train), "tokens": learned.tokens, "windows": len(mine), "unanswerable": without
    }  # fmt: skip
    loss = partial(by_ends, judging.model, dtype=dtype_of(settings.run))
    longest = max(len(part.tokens.ids) for part in parts)
    return Prepared(judging.model, loss, learned, longest, measure, save, lines, facts, stored_kind(settings))


def by_ends(model: Classifier, batch: Batch, dtype: torch.dtype | None = None) -> Loss:
    """Cross-entropy of the first and of the last token of each answer; `metrics` holds both logits of each token,
    (windows, tokens, 2), behind a window's end -inf."""
    assert isinstance(batch, TextBatch)
    lengths = batch.lengths
    row_T2 = model(batch.inputs_BT, lengths, types_BT=batch.types_BT, dtype=dtype)
    logits_BT2 = pad_sequence(list(torch.split(row_T2, lengths)), batch_first=True, padding_value=float("-inf"))[
        batch.places_N
    ]
    loss = F.cross_entropy(logits_BT2, batch.targets_BT[0], reduction="sum")
    return Loss(loss, batch.counted, {"logits": logits_BT2.detach()})


def answered(
    loss_of: LossOf,
    unseen: TextExamples,
    parts: Sequence[Window],
    questions: Sequence[Question],
    most: int | None,
    tick: Tick | None,
) -> Figures:
    """Exact match and F1 of the answers; where some questions have none, with a threshold chosen on other questions."""
    nats, count = 0.0, 0
    best: dict[int, tuple[float, str]] = {}
    nothing: dict[int, float] = {}
    for numbers, loss in looked(loss_of, unseen, most, tick):
        nats, count = nats + float(loss.sum), count + loss.counted
        for number, logits_T2 in zip(numbers, loss.metrics["logits"].float().cpu().numpy(), strict=True):
            part = parts[number]
            score, first, last = best_span(logits_T2, part.inside_T)
            text = questions[part.question].context[part.spans_T2[first, 0] : part.spans_T2[last, 1]]
            best[part.question] = max(best.get(part.question, (-np.inf, "")), (score, text))
            none = float(logits_T2[0].sum())
            nothing[part.question] = min(nothing.get(part.question, np.inf), none)
    asked = sorted(best)
    answers = [[text for text, _ in questions[number].answers] for number in asked]
    said = [best[number][1] for number in asked]
    margin = np.array([best[number][0] - nothing[number] for number in asked])
    f1 = np.array([answer_f1(one, right) for one, right in zip(said, answers, strict=True)])
    exact = np.array([exact_match(one, right) for one, right in zip(said, answers, strict=True)])
    silent = np.array([float(not right) for right in answers])
    if not silent.any():
        values = {"exact": float(exact.mean()), "f1": float(f1.mean())}
    else:
        half = np.arange(len(asked)) % 2 == 0  # what one half chooses, the other is measured with
        limits = [threshold(margin[chosen], (f1 - silent)[chosen]) for chosen in (~half, half)]
        speaks = margin > np.where(half, *limits)
        values = {
            "exact": float(np.where(speaks, exact, silent).mean()),
            "f1": float(np.where(speaks, f1, silent).mean()),
            "no_answer_accuracy": float((speaks != silent.astype(bool)).mean()),
            THRESHOLD: threshold(margin, f1 - silent),
        }
    text = f"exact match {values['exact']:.1%}, F1 {values['f1']:.1%}, over {len(asked):,} questions"
    if silent.any():
        text += f", {int(silent.sum()):,} of them without an answer"
    return Figures(nats / count, values, text)


def threshold(margin: NDArray[np.float64], gain: NDArray[np.float64]) -> float:
    """From which margin on it is best to answer, when answering question i gains `gain[i]` over saying nothing."""
    if not len(margin):
        return 0.0
    order = np.argsort(-margin)
    total = np.concatenate([[0.0], np.cumsum(gain[order])])
    answered = int(total.argmax())
    sorted_ = margin[order]
    if answered == 0:
        return float(sorted_[0])
    return float((sorted_[answered - 1] + sorted_[answered]) / 2) if answered < len(sorted_) else float(sorted_[-1] - 1)


def _example(part: Window) -> Example:
    return Example([part.tokens], np.array([part.target], np.int64))

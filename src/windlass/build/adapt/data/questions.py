"""Questions about texts, with the stretches that answer them or none.

A text that is longer than the model reads is read through several windows, each of which overlaps the one before; a
window that does not hold the whole answer is an example of a text without one (Devlin et al., arXiv 1810.04805).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.adapt.data.columns import words_in
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.texts import Tokens
from windlass.build.adapt.sections import Overlong
from windlass.core.errors import InputError

_OVERLAP = 128
"""Tokens, or a quarter of what the model reads."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    context: str
    answers: tuple[tuple[str, int], ...]
    """Text, and where it begins; none: the text does not say."""
    where: str


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text behind its question."""

    question: int
    tokens: Tokens
    spans_T2: NDArray[np.int64]
    """Where in the text each token begins and ends."""
    inside_T: NDArray[np.bool_]
    """Which of them are of the text."""
    target: tuple[int, int]
    """First and last token of the answer; the window's first token twice where it holds none."""


def question_of(row: Row) -> Question:
    """Raises `InputError` naming the row whose answer does not stand where it says."""
    text, context = words_in(row, "question"), words_in(row, "context")
    answers = [] if row.values.get("is_impossible") else list(_answers(row, context))
    for answer, start in answers:
        if not answer.strip() or context[start : start + len(answer)] != answer:
            raise InputError(
                f"{row.where}: the answer {answer[:80]!r} does not stand at character {start} of its context, where "
                f"{context[start : start + len(answer)][:80]!r} stands.",
                "Mend answer_start, which counts characters from 0.",
            )
    return Question(text, context, tuple(answers), row.where)


def brief(tokenizer: Any, questions: Sequence[Question], limit: int, overlong: Overlong) -> list[Question]:
    """The questions that leave room for what they are about. Raises `InputError` naming the row of the first one that
    does not, unless such are to be left out, and when none is left."""
    tokenizer.no_truncation()
    read = tokenizer.encode_batch_fast([one.text for one in questions])
    lengths = [len(encoding.ids) for encoding in read]
    kept = [question for question, length in zip(questions, lengths, strict=True) if length <= limit // 2]
    if len(kept) < len(questions) and (overlong == "refuse" or not kept):
        question, length = next(one for one in zip(questions, lengths, strict=True) if one[1] > limit // 2)
        raise InputError(
            f"{question.where}: the question has {length:,} tokens, more than half of the {limit:,} that the model "
            "reads.",
            "Leave it out, or have all such left out and counted with --set data.overlong=drop.",
        )
    return kept


def windows(tokenizer: Any, questions: Sequence[Question], limit: int) -> list[Window]:
    """All windows of all texts, whose questions must leave room for them (`brief`)."""
    tokenizer.enable_truncation(limit, stride=min(_OVERLAP, limit // 4), strategy="only_second")
    read = tokenizer.encode_batch([(one.text, one.context) for one in questions])
    tokenizer.no_truncation()
    return [
        _window(part, number, questions[number])
        for number, encoding in enumerate(read)
        for part in (encoding, *encoding.overflowing)
    ]


def _window(encoding: Any, number: int, question: Question) -> Window:
    spans_T2 = np.array(encoding.offsets, np.int64)
    inside_T = np.array([part == 1 for part in encoding.sequence_ids]) & (spans_T2[:, 1] > spans_T2[:, 0])
    places = np.flatnonzero(inside_T)
    target = (0, 0)
    if question.answers and len(places):
        answer, start = question.answers[0]
        stop = start + len(answer)
        first, last = places[0], places[-1]
        if spans_T2[first, 0] <= start and stop <= spans_T2[last, 1]:
            holding = places[(spans_T2[places, 1] > start) & (spans_T2[places, 0] < stop)]
            if len(holding):
                target = int(holding[0]), int(holding[-1])
    tokens = Tokens(np.array(encoding.ids, np.int64), np.array(encoding.type_ids, np.int64))
    return Window(number, tokens, spans_T2, inside_T, target)


def _answers(row: Row, context: str) -> Iterator[tuple[str, int]]:
    values = row.values.get("answers", row.values.get("answer"))
    if isinstance(values, str):
        if values not in context:
            raise InputError(f"{row.where}: the answer {values[:80]!r} does not stand in the context.")
        yield values, context.index(values)
        return
    if isinstance(values, dict):  # as columns
        texts, starts = values.get("text"), values.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise InputError(f"{row.where}: answers has no `text` and `answer_start` of equal length.")
        values = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(values, list):
        raise InputError(
            f"{row.where}: answers is {json.dumps(values, default=str)[:80]}.",
            "Give a list of {text, answer_start}, empty where the context does not say.",
        )
    for place, answer in enumerate(values):
        text = answer.get("text") if isinstance(answer, dict) else None
        start = answer.get("answer_start") if isinstance(answer, dict) else None
        if not isinstance(text, str) or not isinstance(start, int) or start < 0:
            raise InputError(f"{row.where}: answers[{place}] has no text and no answer_start.")
        yield text, start

"""Rows as two tokenizers read them, and where both stand before the same character.

A student and a teacher with different tokens can be compared where both have read the same text: at every place of an
answer where a token of the one ends as a token of the other does. Elsewhere they know different beginnings of what
comes next, and are not compared. What stands around an answer may differ: each reads it in its own template.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.continuations import ContinuationEncoder
from windlass.build.adapt.data.conversations import ConversationEncoder, Encoded, Turned
from windlass.build.adapt.data.formats import continuation_of, conversation_of
from windlass.build.adapt.data.packing import PackedExamples, packed
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.opening import Opened
from windlass.build.training.data.batches import Batch, Number
from windlass.core.errors import InputError

APART = -1
"""Instead of the place of the teacher, where there is none."""


@dataclass(frozen=True, slots=True)
class Pair:
    own: Encoded
    theirs: Encoded
    places: NDArray[np.int64]
    """For each token of our own, the place in theirs at which the teacher has read the same, or `APART`."""

    def __len__(self) -> int:
        return max(len(self.own), len(self.theirs))


@dataclass(frozen=True, slots=True)
class PairedBatch(Batch):
    """The source is the row as the teacher reads it."""

    places_BT: Tensor | None = None
    """Place in the source at which the teacher has read what the student has, or `APART`."""


def pairs_of(student: Opened, teacher: Opened, rows: Iterable[Row]) -> list[Pair]:
    """Raises `InputError` naming the row that one of the two cannot read, or of which they learn different turns."""
    found = []
    if student.template is None:
        plain = [ContinuationEncoder(one.tokenizer, one.specials) for one in (student, teacher)]
        for row in rows:
            own, theirs = (encoder.spelled(*continuation_of(row), row.where) for encoder in plain)
            found.append(Pair(own[0], theirs[0], aligned(own[1], theirs[1], len(own[0]))))
        return found
    if teacher.template is None:
        raise InputError(
            f"{teacher.base_name} has no chat template, so it cannot read conversations as a teacher.",
            'Choose how both read them (--set model.template=plain, "chatml" or a file).',
        )
    encoders = [ConversationEncoder(one.tokenizer, t, end=one.specials.eos)
                for one, t in ((student, student.template), (teacher, teacher.template))]  # fmt: skip
    for row in rows:
        own, theirs = (encoder.spelled(conversation_of(row)) for encoder in encoders)
        if len(own[1]) != len(theirs[1]):
            raise InputError(
                f"{row.where}: the student's template marks {len(own[1])} turns as the assistant's, the teacher's "
                f"{len(theirs[1])}.",
                "Give both the same one with model.template.",
            )
        found.append(Pair(own[0], theirs[0], aligned(own[1], theirs[1], len(own[0]))))
    return found


def aligned(own: Sequence[Turned], theirs: Sequence[Turned], length: int) -> NDArray[np.int64]:
    """`Pair.places`, for a row of `length` tokens of our own with these turns."""
    found = np.full(length, APART, np.int64)
    for ours, other in zip(own, theirs, strict=True):
        # Templates put white space before an answer, or none; the end of it is where the texts part.
        bare = [turn.text.lstrip() for turn in (ours, other)]
        shared = next((place for place, pair in enumerate(zip(*bare)) if len(set(pair)) > 1), min(map(len, bare)))
        spaces = [len(turn.text) - len(text) for turn, text in zip((ours, other), bare, strict=True)]
        at = {max(0, begin - spaces[1]): place for place, begin in zip(other.places, other.begins, strict=True)}
        for place, begin in zip(ours.places, ours.begins, strict=True):
            known = at.get(before := max(0, begin - spaces[0]))
            if known and place and before <= shared:
                found[place - 1] = known - 1  # what has read all before a token is the token before it
    return found


class PairedExamples:
    """Pairs as rows of `size` positions of each of the two, packed alike."""

    def __init__(self, pairs: Sequence[Pair], size: int, *, pad: int, their_pad: int, packing: bool = True) -> None:
        rows = packed(list(map(len, pairs)), size) if packing else [[number] for number in range(len(pairs))]
        self._pairs, self._size = pairs, size
        self._own = PackedExamples([pair.own for pair in pairs], size, pad=pad, rows=rows)
        self._theirs = PackedExamples([pair.theirs for pair in pairs], size, pad=their_pad, rows=rows)

    def __len__(self) -> int:
        return len(self._own)

    def batch(self, numbers: Sequence[Number]) -> PairedBatch:
        own, theirs = self._own.batch(numbers), self._theirs.batch(numbers)
        places = np.stack([self._row(self._own.rows[number]) for _, number in numbers])
        return PairedBatch(
            own.inputs_BT,
            own.targets_BT,
            own.documents_BT,
            theirs.inputs_BT,
            theirs.documents_BT,
            torch.from_numpy(places),
        )

    def _row(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        places = np.full(self._size, APART, np.int64)
        start = their_start = 0
        for number in numbers:
            pair = self._pairs[number]
            known = pair.places != APART
            places[start : start + len(pair.own)] = np.where(known, pair.places + their_start, APART)
            start, their_start = start + len(pair.own), their_start + len(pair.theirs)
        return places

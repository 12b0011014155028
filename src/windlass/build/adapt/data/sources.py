"""What is asked and what is answered, for a model that reads the one whole and writes the other (T5).

The source is what the engine will read: the prompt as the tokenizer or the template writes it. The target is the answer
with the token that ends a text. Several pairs share a row, numbered alike on both sides, so that none sees another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from windlass.build.adapt.data.formats import conversation_of
from windlass.build.adapt.data.packing import PADDING, packed
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.rl.prompts import tokens_asked
from windlass.build.training.data.batches import IGNORE, Batch, Number
from windlass.core.errors import InputError

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Asked:
    source: Ids
    answer: Ids
    """With the token that ends it."""
    row: int
    """Pairs of one row stay on one side when some are held out."""

    def __len__(self) -> int:
        return max(len(self.source), len(self.answer))


def asked_of(opened: Opened, rows: Iterable[Row]) -> list[Asked]:
    """A pair for each answer of an assistant: all that stands before it is the source.

    Raises `InputError` naming a row without an answer, with one that calls tools, or with several turns where the base
    has no template.
    """
    end = opened.specials.separator
    found: list[Asked] = []
    for number, row in enumerate(rows):
        conversation, before = conversation_of(row), len(found)
        for place, turn in enumerate(conversation.turns):
            if turn.get("role") != "assistant" or place < conversation.first:
                continue
            if turn.get("tool_calls"):
                raise InputError(
                    f"{row.where}: the assistant calls tools, which an encoder-decoder does not learn here.",
                    "Leave the row out, or name a decoder.",
                )
            if not str(turn["content"]).strip():
                continue
            source = tokens_asked(opened, row, conversation.turns[:place], conversation.tools)
            answer = opened.tokenizer.encode(str(turn["content"]), add_special_tokens=False).ids
            found.append(Asked(np.array(source, np.int64), np.array([*answer, end], np.int64), number))
        if len(found) == before:
            raise InputError(
                f"{row.where}: nothing in it is said by an assistant, so nothing can be learned from it.",
                "Give a `prompt` with its `completion`, or a conversation with an answer that is not empty.",
            )
    return found


class SourceExamples:
    """Pairs as rows. `start` stands before every answer, as the decoder reads it."""

    def __init__(self, pairs: Sequence[Asked], size: int, *, pad: int, start: int, packing: bool = True) -> None:
        """`size`: positions of a row, at most, on either side."""
        self._pairs, self._pad, self._start = pairs, pad, start
        self._rows = packed(list(map(len, pairs)), size) if packing else [[number] for number in range(len(pairs))]
        self.sizes = tuple(
            max(sum(len(side(pairs[number])) for number in row) for row in self._rows) for side in (_source, _answer)
        )
        """Positions of a row: of the sources and of the answers."""

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        rows = [[self._pairs[number] for number in self._rows[row]] for _, row in numbers]
        source, target = self.sizes
        sources = [_joined([pair.source for pair in row], source, self._pad) for row in rows]
        answers = [_joined([pair.answer for pair in row], target, IGNORE) for row in rows]
        inputs = [_joined([self._shifted(pair.answer) for pair in row], target, self._pad) for row in rows]
        return Batch(
            _stacked([ids for ids, _ in inputs]),
            _stacked([ids for ids, _ in answers]),
            _stacked([documents for _, documents in answers]),
            _stacked([ids for ids, _ in sources]),
            _stacked([documents for _, documents in sources]),
        )

    def _shifted(self, answer: Ids) -> Ids:
        return np.concatenate([[self._start], answer[:-1]])


def _source(pair: Asked) -> Ids:
    return pair.source


def _answer(pair: Asked) -> Ids:
    return pair.answer


def _joined(parts: Sequence[Ids], size: int, filling: int) -> tuple[Ids, Ids]:
    """The parts one behind another, and the number of the part at each position."""
    ids, documents = np.full(size, filling, np.int64), np.full(size, PADDING, np.int64)
    start = 0
    for number, part in enumerate(parts):
        ids[start : start + len(part)], documents[start : start + len(part)] = part, number
        start += len(part)
    return ids, documents


def _stacked(rows: Sequence[Ids]) -> Any:
    return torch.from_numpy(np.stack(rows))

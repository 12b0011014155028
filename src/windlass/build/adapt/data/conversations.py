"""A conversation as tokens, and which of them are learned from: those that the assistant says.

The text is made by the model's own chat template. What the assistant says is what stands between `{% generation %}`
marks; most templates have none, and then its turns are found by rendering the conversation up to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.adapt.data.templates import check_says
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError

Turn = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: Sequence[Turn]
    """Messages in OpenAI's shape: role, content, perhaps tool_calls."""
    where: str
    """The row it comes from, for errors."""
    tools: Sequence[Mapping[str, Any]] = field(default=())
    """What the assistant could call, as the template sees it."""
    first: int = 0
    """Number of the first turn that is learned from; those before it are only read."""


@dataclass(frozen=True, slots=True)
class Encoded:
    tokens: NDArray[np.int64]
    learned: NDArray[np.bool_]
    """Which of them are predicted and counted."""

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Turned:
    """A turn that is learned: its text, and where its tokens begin in it."""

    text: str
    places: Sequence[int]
    """Of its tokens in the whole."""
    begins: Sequence[int]
    """Characters of the text before each of them."""


class ConversationEncoder:
    """Encodes conversations for one model: its tokenizer, its template, and the token that ends a text."""

    def __init__(self, tokenizer: Any, template: ChatTemplate, *, end: int | None) -> None:
        self._tokenizer, self._template, self._end = tokenizer, template, end

    def encode(self, conversation: Conversation) -> Encoded:
        """Raises `InputError` naming the row when it holds nothing that an assistant says, when the template refuses
        it, or when it cannot be told which of the text is the assistant's."""
        return self.spelled(conversation)[0]

    def spelled(self, conversation: Conversation) -> tuple[Encoded, list[Turned]]:
        """The same, with each turn that is learned by itself. Raises `InputError` as `encode`."""
        if not any(_says_something(turn) for turn in conversation.turns):
            raise InputError(
                f"{conversation.where}: nothing in it is said by an assistant, so nothing can be learned from it; its "
                f"roles are {', '.join(dict.fromkeys(str(turn['role']) for turn in conversation.turns)) or 'none'}.",
                "Give conversations with at least one assistant message that is not empty.",
            )
        text, spans = self._marked(conversation)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        tokens = np.array(encoding.ids, np.int64)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        learned = np.zeros(len(tokens), bool)
        for start, stop in spans:
            learned |= (offsets[:, 0] >= start) & (offsets[:, 1] <= stop) & (offsets[:, 1] > offsets[:, 0])
            learned |= (offsets[:, 0] < stop) & (offsets[:, 1] > stop)  # a token that ends its turn and goes on
        if not learned[1:].any():
            raise InputError(
                f"{conversation.where}: no token of it is the assistant's alone, so nothing can be learned from it.",
                "Look at the chat template: {% generation %} marks must stand around what the assistant says.",
            )
        if self._end is not None and tokens[-1] != self._end:  # or a model without an end of turn would not learn one
            last = spans[-1][1] >= len(text.rstrip())
            tokens, learned = np.append(tokens, self._end), np.append(learned, last)
            offsets = np.vstack([offsets, [spans[-1][1]] * 2])
        turns = []
        for start, stop in spans:
            places = np.flatnonzero(learned & (offsets[:, 1] > start) & (offsets[:, 0] <= stop)).tolist()
            turns.append(turned(text[start:stop], places, [int(offsets[place, 1]) - start for place in places]))
        return Encoded(tokens, learned), turns

    def _marked(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
        known: dict[str, Any] = {"tools": list(conversation.tools)} if conversation.tools else {}
        try:
            check_says(self._template, conversation.turns, conversation.tools)
            text, spans = self._template.render_marked(conversation.turns, **known)
            if not spans:
                return text, self._found(conversation, text, known)
            before = conversation.turns[: conversation.first]
            read = self._template.render_marked(before, **known)[1] if before else []
            return text, spans[len(read) :]
        except InputError as error:
            raise InputError(f"{conversation.where}: {error.message}", error.hint) from error

    def _found(self, conversation: Conversation, text: str, known: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Where the assistant speaks in the text of a template that does not mark it: each turn begins where the
        prompt for it ends, and ends where the conversation up to it does."""
        spans = []
        for number, turn in enumerate(conversation.turns):
            if turn.get("role") != "assistant" or number < conversation.first:
                continue
            before = self._template.render(conversation.turns[:number], add_generation_prompt=True, **known)
            after = self._template.render(conversation.turns[: number + 1], **known)
            if not (after.startswith(before) and text.startswith(after)):
                raise InputError(
                    "the chat template does not mark what the assistant says, and what it writes for a turn changes "
                    "with the turns after it.",
                    "Put the assistant's turn between {% generation %} and {% endgeneration %} in the template.",
                )
            spans.append((len(before), len(after)))
        return spans


def turned(text: str, places: Sequence[int], ends: Sequence[int]) -> Turned:
    """By where each token ends in the text: what a tokenizer calls the beginning of one may leave out a space."""
    return Turned(text, places, [0, *(max(0, end) for end in ends[:-1])])


def _says_something(turn: Turn) -> bool:
    return turn.get("role") == "assistant" and bool(str(turn.get("content") or "").strip() or turn.get("tool_calls"))

"""From messages to the tokens a model reads.

A model whose folder carries a chat template reads the conversation through it. A **base model**, which has none, only
knows how to go on with a text: it takes exactly one user message and continues it, as `/v1/completions` does.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from windlass.core.chat_template import ChatTemplate, special_tokens
from windlass.core.errors import InputError, Unsupported
from windlass.core.values import Message, TextPart, ToolCall, ToolSpec
from windlass.serve.engine.dialect.dialect import Dialect
from windlass.serve.engine.dialect.tools import tools_json
from windlass.serve.engine.text import Characters


class Prompt:
    """Turns messages into token ids with the tokenizer and the template of one model folder."""

    def __init__(self, folder: Path, bos: int | None) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{path} is missing.", "A model folder holds its tokenizer; export the model again.")
        try:
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise InputError(f"{path} is not a tokenizer ({error}).", "Export the model again.") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self._bos = bos
        self._template = ChatTemplate.load(folder)
        self.dialect = Dialect.of(self._template)
        self._special = special_tokens(folder)

    def beside(self, folder: Path) -> Prompt:
        """With the same tokenizer, and the chat template that an adapter's folder brings, by which it was trained;
        itself where it brings none."""
        brought = ChatTemplate.load(folder)
        if brought is None or (self._template is not None and brought.source == self._template.source):
            return self
        other = copy.copy(self)
        other._template = ChatTemplate(brought.source, self._special, where=str(folder))
        other.dialect = Dialect.of(other._template)
        other.__dict__.pop("characters", None)
        return other

    @functools.cached_property
    def characters(self) -> Callable[[], Characters]:
        """What makes text of the tokens of an answer, one by one."""
        return self.dialect.characters(self.tokenizer)

    @property
    def is_base(self) -> bool:
        """Whether the model has no chat template."""
        return self._template is None

    def tokens(
        self,
        messages: Sequence[Message],
        *,
        raw: bool = False,
        opening: bool = True,
        tools: Sequence[ToolSpec] = (),
        switches: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation; `raw`: of its one user message as it stands, also where there is a template.
        `opening`: with what the template puts before the answer. `tools` and `switches`: what else it shall know.

        Raises `InputError` for an empty prompt, `Unsupported` for anything the model cannot read.
        """
        if self._template is None or raw:
            ids = self.encode(_only_user_text(_texts(messages)), special=True)
        else:
            ids = self.encode(self.text(messages, opening=opening, tools=tools, switches=switches), special=False)
        if not ids:
            raise InputError("The prompt is empty.", "Write at least one character.")
        return ids

    def text(
        self,
        messages: Sequence[Message],
        *,
        opening: bool = True,
        tools: Sequence[ToolSpec] = (),
        switches: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as the chat template writes it, special tokens included. Raises `Unsupported` without one,
        and for anything the model cannot read."""
        if self._template is None:
            raise Unsupported("This is a base model, which has no chat template.", "Give it texts, not conversations.")
        turns = [_as_template_sees(message, f"messages[{number}]") for number, message in enumerate(_texts(messages))]
        known = {**(switches or {}), **({"tools": tools_json(tools)} if tools else {})}
        return self._template.render(turns, add_generation_prompt=opening, **known)

    def facts(self) -> dict[str, str | None]:
        """`bos_token`, `eos_token`, `pad_token` and `chat_template`, as texts or None."""
        named = {name: self._special.get(name) or None for name in ("bos_token", "eos_token", "pad_token")}
        return {**named, "chat_template": self._template.source if self._template is not None else None}

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text; `special`: with those that the tokenizer puts around it, and the model's first token."""
        try:
            # As a batch of one: only batches let other threads run meanwhile, and a long text takes seconds.
            ids = list(self.tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids)
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(f"The prompt is not valid Unicode ({error}).") from error
        return [self._bos, *ids] if special and self._bos is not None and ids[:1] != [self._bos] else ids


def _texts(messages: Sequence[Message]) -> Sequence[Message]:
    """The same. Raises `Unsupported` where one holds more than text."""
    for number, message in enumerate(messages):
        if not isinstance(message.content, str) and not all(isinstance(p, TextPart) for p in message.content):
            raise Unsupported(f"messages[{number}] holds an image.", "This model reads text only.")
    return messages


def _only_user_text(messages: Sequence[Message]) -> str:
    if len(messages) != 1 or messages[0].role != "user":
        roles = ", ".join(message.role for message in messages) or "none"
        raise Unsupported(
            f"This is a base model: it continues one user message, but the messages are: {roles}.",
            "Put everything it shall read into a single user message.",
        )
    return messages[0].text


def _as_template_sees(message: Message, at: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
        if not message.text:
            turn["thinking"] = message.reasoning  # gpt-oss' template, which takes no content beside it
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call, at, place)},
            }
            for place, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


class _Arguments(dict[str, Any]):
    """Arguments as templates take them: most want the values, some (DeepSeek's) put the JSON text after another one."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)

    def __add__(self, after: str) -> str:
        return str(self) + after

    def __radd__(self, before: str) -> str:
        return before + str(self)


def _arguments(call: ToolCall, at: str, place: int) -> _Arguments:
    try:
        value = json.loads(call.arguments or "{}")
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise InputError(f"{at}.tool_calls[{place}].function.arguments is not a JSON object: {call.arguments[:80]!r}.")
    return _Arguments(value)

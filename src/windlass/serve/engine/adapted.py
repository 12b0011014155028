"""An adapter as a model of its own: the model that it was loaded on, writing with it.

french = base.load_adapter("french", folder)
french.complete(ChatRequest([Message("user", "Bonjour")]))       # in one batch with what is asked of the base
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.core.files import sha256_json
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.serve.engine.answer import Answer
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.voice import Voice


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """Implements `core.protocols.ChatModel` and `Tokenizing`. Raises `NotFound` when its adapter was unloaded; what it
    had begun by then it finishes."""

    voice: Voice
    caveat: str | None = None
    """Why its answers may be worse here than where it was measured, and what to do about it."""

    @property
    def name(self) -> str:
        return self.voice.name

    @property
    def digest(self) -> str:
        return sha256_json({"model": self.voice.digest, "adapter": self.voice.adapter})

    @property
    def prompt(self) -> Prompt:
        """How it is written to: by the chat template that the adapter brings, if it brings one."""
        return self.voice.prompt

    @property
    def context(self) -> int:
        return self.voice.context

    def complete(self, request: ChatRequest) -> ChatResponse:
        *_, last = self.stream(request)
        assert last.response is not None, "the last delta carries the response"
        return last.response

    def stream(self, request: ChatRequest) -> Answer:
        return Answer(self.voice, request)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return self.prompt.encode(text, special=special)

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        return self.prompt.tokens(messages, opening=add_generation_prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.voice.tokens.decode(tokens)

    def token_facts(self) -> Mapping[str, Any]:
        return self.prompt.facts()

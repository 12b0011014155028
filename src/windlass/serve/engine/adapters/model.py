"""An adapter as a model of its own: the model that it was loaded on, writing with it.

french = base.load_adapter("french", folder)
french.complete(ChatRequest([Message("user", "Bonjour")]))       # in one batch with what is asked of the base
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windlass.core.files import sha256_json
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message

if TYPE_CHECKING:
    from windlass.serve.engine.local import LocalModel
    from windlass.serve.engine.prompt import Prompt


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """Implements `core.protocols.ChatModel` and `Tokenizing`. Raises `NotFound` when its adapter was unloaded; what it
    had begun by then it finishes."""

    base: LocalModel
    name: str
    adapter: str
    """The adapter's digest."""
    prompt: Prompt
    """The base's, or with the chat template that the adapter brings."""
    caveat: str | None = None
    """Why its answers may be worse here than where it was measured, and what to do about it."""

    @property
    def digest(self) -> str:
        return sha256_json({"model": self.base.digest, "adapter": self.adapter})

    @property
    def context(self) -> int:
        return self.base.context

    def complete(self, request: ChatRequest) -> ChatResponse:
        *_, last = self.stream(request)
        assert last.response is not None, "the last delta carries the response"
        return last.response

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        return self.base.stream(request, self)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return self.base.encode(text, special=special)

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        return self.prompt.tokens(messages, opening=add_generation_prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.base.decode(tokens)

    def token_facts(self) -> Mapping[str, Any]:
        return self.prompt.facts()

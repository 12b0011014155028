"""Mistral's API: OpenAI's, with names of its own for a few things. It refuses what it does not know.

What a reasoning model thought stands in the content of its answer, in front of the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.apply.providers.dialects.chat_completions import (
    ChatCompletions,
    ChatReading,
    data_url,
    message_of,
    part_of,
)
from windlass.apply.providers.dialects.dialect import PARAMETERS, Call
from windlass.core.values import AudioPart, ChatDelta, ChatRequest, ChatResponse, FilePart, ImagePart, Message, Part

EXTRA = frozenset(
    {
        "frequency_penalty", "presence_penalty", "parallel_tool_calls", "prediction", "prompt_mode", "safe_prompt",
        "reasoning_effort", "metadata", "prompt_cache_key", "guardrails",
    }
)  # fmt: skip
_ID = re.compile("[a-zA-Z0-9]{9}")


class Mistral(ChatCompletions):
    """The dialect of Mistral's `POST /chat/completions`."""

    api = "The Mistral API"
    batches = "mistral"
    knows = (PARAMETERS - {"logprobs"}) | {"images", "audio", "files"}

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.extra = EXTRA

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        """Streams end with their usage without being asked for it."""
        body = self.body(request)
        return Call("/chat/completions", {**body, "stream": True} if stream else body)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        body = super().body(request)
        if "seed" in body:
            body["random_seed"] = body.pop("seed")
        return body

    def message(self, message: Message) -> dict[str, Any]:
        value = message_of(message, _part)
        if message.tool_call_id is not None:
            value["tool_call_id"] = _identified(message.tool_call_id)
        for call in value.get("tool_calls", ()):
            call["id"] = _identified(call["id"])
        return value

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        choice = value["choices"][0]
        return super().answer({**value, "choices": [{**choice, "message": _apart(choice["message"])}]})

    def reading(self) -> ChatReading:
        return _Reading(self.model)


class _Reading(ChatReading):
    def feed(self, event: Mapping[str, Any]) -> list[ChatDelta]:
        choices = [{**choice, "delta": _apart(choice.get("delta") or {})} for choice in event.get("choices") or ()]
        return super().feed({**event, "choices": choices})


def _part(part: Part) -> dict[str, Any]:
    match part:
        case ImagePart():
            return {"type": "image_url", "image_url": part.url or data_url(part.media_type, part.data)}
        case AudioPart():
            return {"type": "input_audio", "input_audio": part_of(part)["input_audio"]["data"]}
        case FilePart():
            url = part.url or data_url(part.media_type, part.data)
            return {"type": "document_url", "document_url": url, "document_name": part.name}
    return part_of(part)


def _apart(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as OpenAI's: its text, and what was thought before."""
    if not isinstance(chunks := said.get("content"), list):
        return said
    thought = "".join(_text(chunk["thinking"]) for chunk in chunks if chunk["type"] == "thinking")
    return {**said, "content": _text(chunks), "reasoning_content": thought}


def _text(chunks: Sequence[Mapping[str, Any]]) -> str:
    return "".join(chunk["text"] for chunk in chunks if chunk["type"] == "text")


def _identified(id: str) -> str:
    """Mistral takes nine letters or digits. A call that another provider's model made gets such a name, each time the
    same."""
    return id if _ID.fullmatch(id) else hashlib.sha256(id.encode()).hexdigest()[:9]

"""Every dialect with a provider in memory that speaks it: how it answers, streams and refuses."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from windlass.apply.providers.dialects.anthropic import Anthropic
from windlass.apply.providers.dialects.azure import AzureDeployment
from windlass.apply.providers.dialects.bedrock import Bedrock
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.dialect import Dialect
from windlass.apply.providers.dialects.gemini import Gemini
from windlass.apply.providers.dialects.mistral import Mistral
from windlass.apply.providers.dialects.responses import Responses
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey, Auth
from windlass.apply.providers.wire.sigv4 import SigV4

Reply = tuple[str, bytes]
"""Content type and body."""
PIECES = ("It has", " 24 hours.")
TEXT = "".join(PIECES)
KEYS = {"WINDLASS_TEST_KEY": "sk-very-secret-key", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalr"}


@dataclass(frozen=True)
class Spoken:
    """What a provider says in one dialect."""

    dialect: Callable[[str], Dialect]
    answer: Mapping[str, Any]
    refusal: Mapping[str, Any]
    stream: Reply
    """All of it; cut anywhere, it is a broken one."""
    auth: Callable[[], Auth] = lambda: ApiKey("WINDLASS_TEST_KEY")

    def chat(self, transport: httpx2.MockTransport | None, url: str = "http://model.example/v1") -> RemoteChat:
        endpoint = Endpoint(url, self.auth(), transport=transport, timeouts=Timeouts(read=0.15))
        return RemoteChat(endpoint, self.dialect("remote"))

    def reply(self, request: httpx2.Request) -> httpx2.Response:
        if streamed(request):
            return httpx2.Response(200, content=self.stream[1], headers={"content-type": self.stream[0]})
        return httpx2.Response(200, json=self.answer)

    def serving(self) -> RemoteChat:
        return self.chat(httpx2.MockTransport(self.reply))


def streamed(request: httpx2.Request) -> bool:
    """Whether a stream is asked for: in the address or in the body."""
    return b"tream" in request.url.raw_path or b'"stream":true' in request.content


def lines(*events: Mapping[str, Any]) -> Reply:
    """Server-sent events."""
    named = [f"event: {event['type']}\n" if "type" in event else "" for event in events]
    text = "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(named, events))
    return "text/event-stream", text.encode()


def message(payload: bytes, **headers: str) -> bytes:
    """One message of an AWS event stream, made after the specification; `event_type` stands for `:event-type`."""
    told = b""
    for name, value in headers.items():
        label, text = (":" + name.replace("_", "-")).encode(), value.encode()
        told += struct.pack(f">B{len(label)}sBH{len(text)}s", len(label), label, 7, len(text), text)
    prelude = struct.pack(">II", 16 + len(told) + len(payload), len(told))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + told + payload
    return body + struct.pack(">I", zlib.crc32(body))


def told(*events: Mapping[str, Any]) -> Reply:
    """An AWS event stream of `{name: value}`."""
    messages = [
        message(json.dumps(value).encode(), event_type=name, content_type="application/json", message_type="event")
        for event in events
        for name, value in event.items()
    ]
    return "application/vnd.amazon.eventstream", b"".join(messages)


def _openai(text: Any, finish: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {
        "id": "c", "model": "m", "created": 1, "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }  # fmt: skip


def _openai_stream(pieces: Sequence[Any]) -> Reply:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in pieces]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks: list[dict[str, Any]] = [{"id": "c", "model": "m", "created": 1, "choices": [choice]} for choice in choices]
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    kind, content = lines(*chunks, {"id": "c", "model": "m", "created": 1, "choices": [], "usage": usage})
    return kind, content + b"data: [DONE]\n\n"


def _responses(text: str, part: str = "output_text") -> dict[str, Any]:
    content = [{"type": part, "refusal" if part == "refusal" else "text": text, "annotations": []}]
    item = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": content}
    return {
        "id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": [item],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    }  # fmt: skip


def _responses_stream() -> Reply:
    whole = _responses(TEXT)
    deltas = [
        {"type": "response.output_text.delta", "item_id": "m1", "output_index": 0, "content_index": 0, "delta": piece}
        for piece in PIECES
    ]
    begun = {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    return lines(begun, *deltas, {"type": "response.completed", "response": whole})


def _anthropic(text: str, finish: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}] if text else []
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": finish,
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }  # fmt: skip


def _anthropic_stream() -> Reply:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in PIECES
    ]
    return lines(
        {"type": "message_start", "message": _anthropic("", "") | {"stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    )


def _gemini(text: str, finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    counts = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "r"}


def _bedrock(text: str, finish: str) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": finish,
        "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, "metrics": {"latencyMs": 5},
    }  # fmt: skip


def _bedrock_stream() -> Reply:
    return told(
        {"messageStart": {"role": "assistant"}},
        *({"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": 0}} for piece in PIECES),
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": _bedrock("", "")["usage"], "metrics": {"latencyMs": 5}}},
    )


SPOKEN: Mapping[str, Spoken] = {
    "openai": Spoken(
        ChatCompletions, _openai(TEXT, "stop"), _openai("", "stop", refusal="No."), _openai_stream(PIECES)
    ),
    "mistral": Spoken(
        Mistral,
        _openai(
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": TEXT}],
            "stop",
        ),
        _openai("", "content_filter"),
        _openai_stream([[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}], *PIECES]),
    ),
    "responses": Spoken(Responses, _responses(TEXT), _responses("No.", "refusal"), _responses_stream()),
    "azure": Spoken(
        AzureDeployment,
        _openai(TEXT, "stop"),
        _openai("", "content_filter"),
        _openai_stream(PIECES),
        lambda: ApiKey("WINDLASS_TEST_KEY", "api-key", ""),
    ),
    "anthropic": Spoken(Anthropic, _anthropic(TEXT, "end_turn"), _anthropic("", "refusal"), _anthropic_stream()),
    "gemini": Spoken(
        Gemini,
        _gemini(TEXT, "STOP"),
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}},
        lines(_gemini(PIECES[0], None), _gemini(PIECES[1], "STOP")),
    ),
    "bedrock": Spoken(
        Bedrock,
        _bedrock(TEXT, "end_turn"),
        _bedrock("No.", "guardrail_intervened"),
        _bedrock_stream(),
        lambda: SigV4("bedrock", "eu-central-1"),
    ),
}

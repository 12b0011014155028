"""Anthropic's Messages API. The requests are those of the official SDK for the same parameters, as tests show."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.apply.providers.dialects.dialect import Call, ServerSentEvents, arguments_of, finished_calls, system_apart
from windlass.core.errors import Unsupported
from windlass.core.values import (
    AudioPart,
    ChatDelta,
    ChatRequest,
    ChatResponse,
    FilePart,
    FinishReason,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)

API = "The Anthropic API"
HEADERS: Mapping[str, str] = {"anthropic-version": "2026-10-21"}
EXTRA = frozenset(
    {
        "cache_control", "container", "inference_geo", "metadata", "output_config", "service_tier", "speed", "thinking",
        "temperature", "top_k", "top_p",
    }
)  # fmt: skip
"""`temperature`, `top_k` and `top_p` are for older models: newer ones refuse them, so they are no common parameters."""

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class Anthropic:
    """The dialect of `POST /messages`. `limit`: tokens of an answer whose request sets no limit; the API needs one."""

    api = API
    batches = "anthropic"
    knows = frozenset({"max_tokens", "stop", "tools", "tool_choice", "schema", "images", "files"})
    extra = EXTRA

    def __init__(self, model: str, *, limit: int = 8192) -> None:
        self.model = model
        self._limit = limit

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        body = self.body(request)
        return Call("/messages", {**body, "stream": True} if stream else body)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        said, rest = system_apart(request.messages, API)
        config = dict(request.extra.get("output_config", {}))
        if request.schema is not None:
            config["format"] = {"type": "json_schema", "schema": dict(request.schema)}
        optional = {
            "system": "\n\n".join(said) or None,
            "stop_sequences": list(request.stop) or None,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice),
            "output_config": config or None,
        }
        return {
            "model": self.model,
            "max_tokens": self._limit if request.max_tokens is None else request.max_tokens,
            "messages": _turns(rest),
            **{key: value for key, value in request.extra.items() if key != "output_config"},
            **{key: value for key, value in optional.items() if value is not None},
        }

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        return _response(self.model, value, value["content"], value.get("stop_reason"), value.get("usage") or {})

    def reading(self) -> _Reading:
        return _Reading(self.model)

    def frames(self) -> ServerSentEvents:
        return ServerSentEvents()


class _Reading:
    """Blocks are filled piece by piece until they look as they would in an answer that was not streamed."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._message: Mapping[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, str] = {}
        self._finish: str | None = None
        self._details: Any = None

    def feed(self, event: Mapping[str, Any]) -> Sequence[ChatDelta]:
        match event["type"]:
            case "message_start":
                self._message = event["message"]
                self._usage.update(self._message.get("usage") or {})
            case "content_block_start":
                return self._begun(event["index"], dict(event["content_block"]))
            case "content_block_delta":
                return self._grown(event["index"], event["delta"])
            case "message_delta":
                self._finish = event["delta"].get("stop_reason") or self._finish
                self._details = event["delta"].get("stop_details")
                self._usage.update({k: v for k, v in (event.get("usage") or {}).items() if v is not None})
        return ()  # pings, ends of blocks, and whatever is new

    def end(self) -> ChatResponse | None:
        if self._finish is None:
            return None
        inputs = finished_calls(self._arguments, cut_off=_FINISH.get(self._finish) == "length")
        for index, value in inputs.items():
            self._blocks[index]["input"] = value
        there = [index for index in sorted(self._blocks) if index not in self._arguments or index in inputs]
        written = {index: self._arguments[index] for index in inputs}
        message = {**self._message, "stop_details": self._details}
        return _response(
            self._model, message, [self._blocks[index] for index in there], self._finish, self._usage, written
        )

    def _begun(self, index: int, block: dict[str, Any]) -> Sequence[ChatDelta]:
        self._blocks[index] = block
        if block["type"] == "tool_use":
            self._arguments[index] = ""
            return [ChatDelta(calls=[ToolCallDelta(len(self._arguments) - 1, "", block["id"], block["name"])])]
        return [ChatDelta(block["text"])] if block.get("text") else ()

    def _grown(self, index: int, delta: Mapping[str, Any]) -> Sequence[ChatDelta]:
        block = self._blocks[index]
        match delta["type"]:
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
                return [ChatDelta(delta["text"])]
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
                return [ChatDelta(reasoning=delta["thinking"])]
            case "signature_delta":
                block["signature"] = block.get("signature", "") + delta["signature"]
            case "input_json_delta":
                self._arguments[index] += delta["partial_json"]
                number = sorted(self._arguments).index(index)
                return [ChatDelta(calls=[ToolCallDelta(number, delta["partial_json"])])]
        return ()


def _response(
    model: str, value: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]], finish: str | None,
    usage: Mapping[str, Any], written: Mapping[int, str] | None = None,
) -> ChatResponse:  # fmt: skip
    """`written`: the arguments of calls as the model wrote them, in their order; else they are written anew."""
    calls = [block for block in blocks if block["type"] == "tool_use"]
    texts = [json.dumps(block["input"], ensure_ascii=False) for block in calls]
    if written is not None:
        texts = [written[index] or "{}" for index in sorted(written)]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    refused = finish == "refusal"
    if refused and not text:
        text = (value.get("stop_details") or {}).get("explanation") or ""
    message = Message(
        "assistant",
        text,
        tuple(ToolCall(block["id"], block["name"], arguments) for block, arguments in zip(calls, texts)),
        reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        sealed=(API, list(blocks)) if any("thinking" in block["type"] for block in blocks) else None,
    )
    return ChatResponse(
        str(value.get("id") or ""),
        str(value.get("model") or model),
        message,
        _FINISH.get(finish or "end_turn", "stop"),
        usage_of(usage),
        refused=refused,
    )


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """Input is counted without what caches gave or took, output with its reasoning."""
    thought = (counts.get("output_tokens_details") or {}).get("thinking_tokens")
    output = counts.get("output_tokens")
    return Usage(
        input=counts.get("input_tokens"),
        cache_read=counts.get("cache_read_input_tokens"),
        cache_write=counts.get("cache_creation_input_tokens"),
        output=None if output is None else max(0, output - (thought or 0)),
        reasoning=thought,
    )


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns of user and assistant by turns; results of tools are the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        content = _content(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = [*_blocks(turns[-1]["content"]), *_blocks(content)]
        else:
            turns.append({"role": role, "content": content})
    return turns


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(message: Message) -> str | list[dict[str, Any]]:
    if message.sealed is not None and message.sealed[0] == API:
        return list(message.sealed[1])
    said = message.content if isinstance(message.content, str) else [_part(part) for part in message.content]
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": said}]
    if not message.tool_calls:
        return said
    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}
        for call in message.tool_calls
    ]
    return [*(_blocks(said) if said else ()), *calls]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart():
            return {"type": "image", "source": _source(part)}
        case FilePart(media_type="text/plain", data=bytes(data)):
            source = {"type": "text", "media_type": "text/plain", "data": data.decode("utf-8", "replace")}
            return {"type": "document", "source": source, "title": part.name}
        case FilePart():
            return {"type": "document", "source": _source(part), "title": part.name}
        case AudioPart():
            raise Unsupported(f"{API} takes no audio in messages.")


def _source(part: ImagePart | FilePart) -> dict[str, Any]:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": base64.b64encode(part.data or b"").decode()}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    schema = dict(tool.parameters) or {"type": "object", "properties": {}}
    value: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description:
        value["description"] = tool.description
    if tool.strict:
        value["strict"] = True
    return value


def _choice(choice: str) -> dict[str, str] | None:
    if choice == "auto":
        return None
    return {"none": {"type": "none"}, "required": {"type": "any"}}.get(choice, {"type": "tool", "name": choice})

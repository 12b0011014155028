"""Amazon Bedrock's Converse API: one way to ask models of many makers. Requests are botocore's, as tests show."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from windlass.apply.providers.dialects.dialect import Call, arguments_of, finished_calls, system_apart
from windlass.apply.providers.dialects.event_stream import EventStream
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

API = "The Bedrock Converse API"
EXTRA = frozenset(
    {
        "additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig", "outputConfig",
        "performanceConfig", "promptVariables", "requestMetadata", "serviceTier",
    }
)  # fmt: skip

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})

_DOCUMENTS: Mapping[str, str] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
_UNNAMED = re.compile(r"[^0-9A-Za-z()\[\] -]+| {2,}")
"""What the API takes in no document's name."""


class Bedrock:
    """The dialect of `POST /model/ID/converse`. The API reports no id of an answer: ours are made up here.

    `schema`: answers may be kept to a JSON schema. Few models can, so that without it tasks ask through a tool.
    """

    api = API
    extra = EXTRA

    def __init__(self, model: str, *, schema: bool = False) -> None:
        self.model = model
        self.knows = frozenset(
            {"temperature", "top_p", "max_tokens", "stop", "tools", "tool_choice", "images", "audio", "files"}
        ) | ({"schema"} if schema else frozenset())

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        verb = "converse-stream" if stream else "converse"
        return Call(f"/model/{quote(self.model, safe='')}/{verb}", self.body(request))

    def body(self, request: ChatRequest) -> dict[str, Any]:
        system, messages = system_apart(request.messages, API)
        inference = {
            "maxTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "stopSequences": list(request.stop) or None,
        }
        output = dict(request.extra.get("outputConfig", {}))
        if request.schema is not None:
            schema = {"schema": json.dumps(request.schema, ensure_ascii=False), "name": "answer"}
            output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        optional = {
            "system": [{"text": text} for text in system],
            "inferenceConfig": {key: value for key, value in inference.items() if value is not None},
            "toolConfig": _tools(request),
            "outputConfig": output,
        }
        return {
            "messages": _turns(messages),
            **request.extra,
            **{key: value for key, value in optional.items() if value},
        }

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        blocks = value["output"]["message"]["content"]
        return _response(self.model, blocks, value["stopReason"], value.get("usage") or {})

    def reading(self) -> _Reading:
        return _Reading(self.model)

    def frames(self) -> EventStream:
        return EventStream()


class _Reading:
    """Blocks are filled piece by piece until they look as they would in an answer that was not streamed."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._blocks: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, str] = {}
        self._usage: Mapping[str, Any] = {}
        self._finish: str | None = None

    def feed(self, event: Mapping[str, Any]) -> Sequence[ChatDelta]:
        ((kind, value),) = event.items()
        match kind:
            case "contentBlockStart":
                return self._begun(value["contentBlockIndex"], value["start"])
            case "contentBlockDelta":
                return self._grown(value["contentBlockIndex"], value["delta"])
            case "messageStop":
                self._finish = value["stopReason"]
            case "metadata":
                self._usage = value.get("usage") or {}
        return ()  # beginnings and ends that say nothing, and whatever is new

    def end(self) -> ChatResponse | None:
        if self._finish is None:
            return None
        inputs = finished_calls(self._arguments, cut_off=_FINISH.get(self._finish) == "length")
        for index, value in inputs.items():
            self._blocks[index]["toolUse"]["input"] = value
        there = [index for index in sorted(self._blocks) if index not in self._arguments or index in inputs]
        written = {index: self._arguments[index] for index in inputs}
        return _response(self._model, [self._blocks[index] for index in there], self._finish, self._usage, written)

    def _begun(self, index: int, start: Mapping[str, Any]) -> Sequence[ChatDelta]:
        """Only calls announce themselves; texts and thoughts begin with their first piece."""
        if "toolUse" not in start:
            return ()
        call = dict(start["toolUse"])
        self._blocks[index] = {"toolUse": call}
        self._arguments[index] = ""
        return [ChatDelta(calls=[ToolCallDelta(len(self._arguments) - 1, "", call["toolUseId"], call["name"])])]

    def _grown(self, index: int, delta: Mapping[str, Any]) -> Sequence[ChatDelta]:
        if "text" in delta:
            block = self._blocks.setdefault(index, {"text": ""})
            block["text"] += delta["text"]
            return [ChatDelta(delta["text"])] if delta["text"] else ()
        if "toolUse" in delta:
            self._arguments[index] += delta["toolUse"]["input"]
            number = sorted(self._arguments).index(index)
            return [ChatDelta(calls=[ToolCallDelta(number, delta["toolUse"]["input"])])]
        if "reasoningContent" in delta:
            return self._thought(self._blocks.setdefault(index, {"reasoningContent": {}}), delta["reasoningContent"])
        return ()

    def _thought(self, block: dict[str, Any], delta: Mapping[str, str]) -> Sequence[ChatDelta]:
        thought = block["reasoningContent"]
        if "redactedContent" in delta:
            thought["redactedContent"] = delta["redactedContent"]
            return ()
        told = thought.setdefault("reasoningText", {"text": ""})
        for key, piece in delta.items():
            told[key] = told.get(key, "") + piece
        return [ChatDelta(reasoning=delta["text"])] if delta.get("text") else ()


def _response(
    model: str, blocks: Sequence[Mapping[str, Any]], finish: str, usage: Mapping[str, Any],
    written: Mapping[int, str] | None = None,
) -> ChatResponse:  # fmt: skip
    """`written`: the arguments of calls as the model wrote them, in their order; else they are written anew."""
    if finish in _MALFORMED:
        raise ValueError(f"the model's answer was malformed ({finish})")
    calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    texts = [json.dumps(call["input"], ensure_ascii=False) for call in calls]
    if written is not None:
        texts = [written[index] or "{}" for index in sorted(written)]
    thoughts = [block["reasoningContent"] for block in blocks if "reasoningContent" in block]
    reason = _FINISH.get(finish, "stop")
    message = Message(
        "assistant",
        "".join(block["text"] for block in blocks if "text" in block),
        tuple(ToolCall(call["toolUseId"], call["name"], text) for call, text in zip(calls, texts)),
        reasoning="".join(thought.get("reasoningText", {}).get("text", "") for thought in thoughts),
        sealed=(API, list(blocks)) if thoughts else None,
    )
    identifier = f"converse-{uuid.uuid4().hex}"
    return ChatResponse(identifier, model, message, reason, usage_of(usage), refused=reason == "content_filter")


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """Input is counted without what caches gave or took; reasoning stands inside of the output, uncounted."""
    return Usage(
        input=counts.get("inputTokens"),
        cache_read=counts.get("cacheReadInputTokens"),
        cache_write=counts.get("cacheWriteInputTokens"),
        output=counts.get("outputTokens"),
    )


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns of user and assistant by turns; results of tools are the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += _content(message)
        else:
            turns.append({"role": role, "content": _content(message)})
    return turns


def _content(message: Message) -> list[dict[str, Any]]:
    if message.sealed is not None and message.sealed[0] == API:
        return [dict(block) for block in message.sealed[1]]
    said = [TextPart(message.content)] if isinstance(message.content, str) else message.content
    if message.role == "tool":
        return [{"toolResult": {"toolUseId": message.tool_call_id, "content": [_part(part) for part in said]}}]
    calls = [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments_of(call)}}
        for call in message.tool_calls
    ]
    return [*(_part(part) for part in said if part != TextPart("")), *calls]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart():
            kind = part.media_type.removeprefix("image/")
            if kind not in _IMAGES:
                raise Unsupported(f"{API} takes no images of type {part.media_type}.", "Convert it to PNG first.")
            return {"image": {"format": kind, "source": _source(part)}}
        case FilePart():
            form = _DOCUMENTS.get(part.media_type)
            if form is None:
                raise Unsupported(f"{API} takes no files of type {part.media_type}.", f"It takes: {_FORMATS}.")
            name = _UNNAMED.sub("-", part.name.rpartition(".")[0] or part.name).strip("-") or "document"
            return {"document": {"format": form, "name": name, "source": _source(part)}}
        case AudioPart():
            kind = part.media_type.removeprefix("audio/").removeprefix("x-")
            return {"audio": {"format": {"mpeg": "mp3", "wave": "wav"}.get(kind, kind), "source": _source(part)}}


_FORMATS = ", ".join(_DOCUMENTS.values())


def _source(part: ImagePart | FilePart | AudioPart) -> dict[str, Any]:
    url = None if isinstance(part, AudioPart) else part.url
    if url is None:
        return {"bytes": base64.b64encode(part.data or b"").decode()}
    if not url.startswith("s3://"):
        raise Unsupported(f"{API} fetches from s3:// addresses only, not from {url}.", "Read the file first.")
    return {"s3Location": {"uri": url}}


def _tools(request: ChatRequest) -> dict[str, Any]:
    if request.tool_choice == "none":
        raise Unsupported(f"{API} cannot be told to call no tool.", "Leave the tools out of the request.")
    if not request.tools:
        return {}
    config: dict[str, Any] = {"tools": [_tool(tool) for tool in request.tools]}
    if request.tool_choice == "required":
        config["toolChoice"] = {"any": {}}
    elif request.tool_choice != "auto":
        config["toolChoice"] = {"tool": {"name": request.tool_choice}}
    return config


def _tool(tool: ToolSpec) -> dict[str, Any]:
    schema = dict(tool.parameters) or {"type": "object", "properties": {}}
    value: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description:
        value["description"] = tool.description
    if tool.strict:
        value["strict"] = True
    return {"toolSpec": value}

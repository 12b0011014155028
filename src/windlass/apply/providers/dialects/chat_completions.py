"""The OpenAI API for chats, which nearly every server speaks: vLLM, Ollama, llama.cpp, OpenRouter, our own.

The requests are those of the official SDK for the same parameters; tests send both to one server and compare.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from windlass.apply.providers.dialects.dialect import PARAMETERS, Call, ServerSentEvents
from windlass.core.errors import Unsupported
from windlass.core.usage import usage_of
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
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
)

EXTRA = frozenset(
    {
        "frequency_penalty", "presence_penalty", "logit_bias", "parallel_tool_calls", "reasoning_effort",
        "service_tier", "user", "metadata", "store", "prompt_cache_key", "safety_identifier", "verbosity",
        "modalities", "prediction",
    }
)  # fmt: skip
"""Parameters of OpenAI's API beyond those of `ChatRequest`."""

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",  # Mistral's, at the end of its window
}
_BROKEN = frozenset({"error", "insufficient_system_resource"})
"""How some servers say that they could not go on: what came before is no whole answer."""


class ChatCompletions:
    """The dialect of `POST /chat/completions`.

    `limit`: the name of the limit on the answer's tokens. OpenAI's own newer models refuse the old one, other servers
    do not know the new one. `extra`: parameters of this server that OpenAI's API does not have. `batches`: whether it
    has the batch API.
    """

    api = "The OpenAI chat API"
    knows = PARAMETERS | {"images", "audio", "files", "names"}
    batches: str | None = "openai"
    """Which of `known_batches` this API has."""

    def __init__(
        self, model: str, *, limit: str = "max_tokens", extra: frozenset[str] = frozenset(), batches: bool = True
    ) -> None:
        self.model = model
        self.extra = EXTRA | extra
        self._limit = limit
        if not batches:
            self.batches = None

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        body = self.body(request)
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return Call("/chat/completions", body)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        optional = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            self._limit: request.max_tokens,
            "stop": list(request.stop) or None,
            "seed": request.seed,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request),
            "response_format": _format(request.schema),
            "logprobs": None if request.logprobs is None else True,
            "top_logprobs": request.logprobs,
        }
        return {
            "model": self.model,
            "messages": [self.message(message) for message in request.messages],
            **{key: value for key, value in optional.items() if value is not None},
            **request.extra,
        }

    def message(self, message: Message) -> dict[str, Any]:
        return message_of(message, part_of)

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        choice = value["choices"][0]
        said = choice["message"]
        calls = tuple(
            ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in said.get("tool_calls") or ()
        )
        text = said.get("content") or said.get("refusal") or ""
        message = Message("assistant", text, calls, reasoning=_thought(said))
        logprobs = _logprobs(choice.get("logprobs"))
        refused = bool(said.get("refusal"))
        return _response(self.model, value, message, choice.get("finish_reason"), value.get("usage"), logprobs, refused)

    def reading(self) -> ChatReading:
        return ChatReading(self.model)

    def frames(self) -> ServerSentEvents:
        return ServerSentEvents()


class ChatReading:
    def __init__(self, model: str) -> None:
        self._model = model
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, list[str]] = {}
        self._last: Mapping[str, Any] = {}
        self._usage: Any = None
        self._finish: str | None = None
        self._refused = False

    def feed(self, event: Mapping[str, Any]) -> list[ChatDelta]:
        self._last = event if event.get("id") or not self._last else self._last
        self._usage = event.get("usage") or self._usage
        deltas = []
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            calls = [_add_call(self._calls, call) for call in delta.get("tool_calls") or ()]
            text = delta.get("content") or delta.get("refusal") or ""
            self._refused = self._refused or bool(delta.get("refusal"))
            thought, logprobs = _thought(delta), _logprobs(choice.get("logprobs"))
            if text or thought or logprobs or calls:
                self._texts.append(text)
                self._thoughts.append(thought)
                self._logprobs.extend(logprobs)
                deltas.append(ChatDelta(text, reasoning=thought, logprobs=logprobs, calls=calls))
            self._finish = choice.get("finish_reason") or self._finish
        return deltas

    def end(self) -> ChatResponse | None:
        if self._finish is None:
            return None
        calls = tuple(ToolCall(*self._calls[index]) for index in sorted(self._calls))
        message = Message("assistant", "".join(self._texts), calls, reasoning="".join(self._thoughts))
        return _response(self._model, self._last, message, self._finish, self._usage, self._logprobs, self._refused)


def _response(
    model: str, value: Mapping[str, Any], message: Message, finish: str | None, usage: Any,
    logprobs: Sequence[TokenLogprob], refused: bool,
) -> ChatResponse:  # fmt: skip
    if finish in _BROKEN:
        raise ValueError(f"it stopped with '{finish}': {value.get('error') or 'no reason given'}")
    return ChatResponse(
        str(value.get("id") or ""),
        str(value.get("model") or model),
        message,
        _FINISH.get(finish or "stop", "stop"),
        usage_of(usage),
        refused=refused or finish == "content_filter",
        logprobs=tuple(logprobs),
    )


def message_of(message: Message, part_of: Callable[[Part], dict[str, Any]]) -> dict[str, Any]:
    content = message.content if isinstance(message.content, str) else [part_of(part) for part in message.content]
    value: dict[str, Any] = {"role": message.role, "content": content}
    if message.name is not None:
        value["name"] = message.name
    if message.tool_call_id is not None:
        value["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        value["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
        if not value["content"]:
            value["content"] = None
    return value


def part_of(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": part.url or data_url(part.media_type, part.data)}}
        case AudioPart():
            kind = part.media_type.rpartition("/")[2].removeprefix("x-")
            audio = {"data": base64.b64encode(part.data).decode(), "format": {"mpeg": "mp3"}.get(kind, kind)}
            return {"type": "input_audio", "input_audio": audio}
        case FilePart():
            if part.url is not None:
                raise Unsupported("The OpenAI chat API takes files as bytes, not by URL.", "Read the file first.")
            return {"type": "file", "file": {"filename": part.name, "file_data": data_url(part.media_type, part.data)}}


def data_url(media_type: str, data: bytes | None) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data or b'').decode()}"


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(request: ChatRequest) -> Any:
    if request.tool_choice == "auto":
        return None
    if request.tool_choice in ("none", "required"):
        return request.tool_choice
    return {"type": "function", "function": {"name": request.tool_choice}}


def _format(schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    if schema == {"type": "object"}:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}


def _thought(said: Mapping[str, Any]) -> str:
    """Servers call it by one of two names; OpenAI's own keeps it to itself."""
    return said.get("reasoning_content") or said.get("reasoning") or ""


def _logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """The list `content` of a choice's `logprobs`."""
    return tuple(map(logprob_of, (value or {}).get("content") or ()))


def logprob_of(value: Mapping[str, Any]) -> TokenLogprob:
    """One token's, as both of OpenAI's APIs write it."""
    raw = value.get("bytes")
    top = tuple(logprob_of(one) for one in value.get("top_logprobs") or ())
    return TokenLogprob(value["token"], value["logprob"], bytes=None if raw is None else bytes(raw), top=top)


def _add_call(calls: dict[int, list[str]], piece: Mapping[str, Any]) -> ToolCallDelta:
    index = int(piece.get("index") or 0)
    call = calls.setdefault(index, ["", "", ""])
    function = piece.get("function") or {}
    call[0] = piece.get("id") or call[0]
    call[1] += function.get("name") or ""
    arguments = function.get("arguments") or ""
    call[2] += arguments
    return ToolCallDelta(index, arguments, piece.get("id") or None, function.get("name") or None)

"""OpenAI's Responses API: the one that gives a reasoning model its own thoughts back.

Used without the provider's memory: every request holds the whole conversation (`store` is false unless asked for), and
encrypted reasoning travels in it, unread. Requests are those of the official SDK for the same parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from windlass.apply.providers.dialects.chat_completions import data_url, logprob_of
from windlass.apply.providers.dialects.dialect import Call, ServerSentEvents
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
    ToolCall,
    ToolCallDelta,
    ToolSpec,
)

API = "The OpenAI Responses API"
EXTRA = frozenset(
    {
        "include", "max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id", "prompt_cache_key",
        "reasoning", "safety_identifier", "service_tier", "store", "text", "truncation",
    }
)  # fmt: skip
_SEALED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"


class Responses:
    """The dialect of `POST /responses`."""

    api = API
    batches = "openai"
    knows = frozenset(
        {"temperature", "top_p", "max_tokens", "tools", "tool_choice", "schema", "logprobs", "images", "files"}
    )
    extra = EXTRA

    def __init__(self, model: str) -> None:
        self.model = model

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        body = self.body(request)
        return Call("/responses", {**body, "stream": True} if stream else body)

    def body(self, request: ChatRequest) -> dict[str, Any]:
        text = dict(request.extra.get("text", {}))
        if request.schema is not None:
            text["format"] = {"type": "json_schema", "name": "answer", "schema": dict(request.schema), "strict": True}
        include = [_SEALED, *request.extra.get("include", ())]
        if request.logprobs is not None:
            include.append(_LOGPROBS)
        optional = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_output_tokens": request.max_tokens,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice),
            "text": text or None,
            "top_logprobs": request.logprobs,
        }
        return {
            "model": self.model,
            "store": False,
            **request.extra,
            "include": include,
            "input": [item for message in request.messages for item in _items(message)],
            **{key: value for key, value in optional.items() if value is not None},
        }

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        items: Sequence[Mapping[str, Any]] = value["output"]
        parts = [part for item in items if item["type"] == "message" for part in item["content"]]
        text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        refusal = "".join(part["refusal"] for part in parts if part["type"] == "refusal")
        calls = [
            ToolCall(item["call_id"], item["name"], item["arguments"])
            for item in items
            if item["type"] == "function_call"
        ]
        thoughts = [item for item in items if item["type"] == "reasoning"]
        message = Message(
            "assistant",
            text or refusal,
            tuple(calls),
            reasoning="\n\n".join(part["text"] for item in thoughts for part in item.get("summary") or ()),
            sealed=(API, list(items)) if thoughts else None,
        )
        logprobs = [logprob_of(one) for part in parts for one in part.get("logprobs") or ()]
        return ChatResponse(
            str(value.get("id") or ""),
            str(value.get("model") or self.model),
            message,
            _finish(value, calls, refusal),
            usage_of(value.get("usage")),
            refused=bool(refusal) or _reason(value) == "content_filter",
            logprobs=tuple(logprobs),
        )

    def reading(self) -> _Reading:
        return _Reading(self)

    def frames(self) -> ServerSentEvents:
        return ServerSentEvents()


class _Reading:
    """The last event holds the whole answer; those before it are pieces of it."""

    def __init__(self, dialect: Responses) -> None:
        self._dialect = dialect
        self._calls: list[int] = []
        self._whole: Mapping[str, Any] | None = None

    def feed(self, event: Mapping[str, Any]) -> Sequence[ChatDelta]:
        match event["type"]:
            case "response.output_text.delta":
                logprobs = tuple(logprob_of(one) for one in event.get("logprobs") or ())
                return [ChatDelta(event["delta"], logprobs=logprobs)]
            case "response.refusal.delta":
                return [ChatDelta(event["delta"])]
            case "response.reasoning_summary_text.delta":
                return [ChatDelta(reasoning=event["delta"])]
            case "response.reasoning_summary_part.added" if event.get("summary_index"):
                return [ChatDelta(reasoning="\n\n")]
            case "response.output_item.added" if event["item"]["type"] == "function_call":
                self._calls.append(event["output_index"])
                item = event["item"]
                return [ChatDelta(calls=[ToolCallDelta(len(self._calls) - 1, "", item["call_id"], item["name"])])]
            case "response.function_call_arguments.delta":
                index = self._calls.index(event["output_index"])
                return [ChatDelta(calls=[ToolCallDelta(index, event["delta"])])]
            case "response.completed" | "response.incomplete":
                self._whole = event["response"]
            case "response.failed":
                raise ValueError((event["response"].get("error") or {}).get("message") or "it failed")
            case "error":
                raise ValueError(event.get("message") or "it failed")
        return ()

    def end(self) -> ChatResponse | None:
        return None if self._whole is None else self._dialect.answer(self._whole)


def _reason(value: Mapping[str, Any]) -> str | None:
    return (value.get("incomplete_details") or {}).get("reason")


def _finish(value: Mapping[str, Any], calls: Sequence[ToolCall], refusal: str) -> FinishReason:
    if _reason(value) == "max_output_tokens":
        return "length"
    if refusal or _reason(value) == "content_filter":
        return "content_filter"
    return "tool_calls" if calls else "stop"


def _items(message: Message) -> list[dict[str, Any]]:
    if message.sealed is not None and message.sealed[0] == API:
        return list(message.sealed[1])
    content: Any = message.content
    if not isinstance(content, str):
        content = [_part(part) for part in content]
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": content}]
    said = [{"role": message.role, "content": content}] if content or not message.tool_calls else []
    calls = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    return [*said, *calls]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "input_text", "text": text}
        case ImagePart():
            url = part.url or data_url(part.media_type, part.data)
            return {"type": "input_image", "image_url": url, "detail": "auto"}
        case FilePart(url=str(url)):
            return {"type": "input_file", "file_url": url}
        case FilePart():
            return {"type": "input_file", "filename": part.name, "file_data": data_url(part.media_type, part.data)}
        case AudioPart():
            raise Unsupported(f"{API} takes no audio in messages.")


def _tool(tool: ToolSpec) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "function", "name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        value["description"] = tool.description
    return {**value, "strict": tool.strict}


def _choice(choice: str) -> Any:
    if choice == "auto":
        return None
    return choice if choice in ("none", "required") else {"type": "function", "name": choice}

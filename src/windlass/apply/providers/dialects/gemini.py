"""Google's Gemini API. The requests are those of the official SDK for the same parameters, as tests show."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.apply.providers.dialects.dialect import (
    PARAMETERS,
    Call,
    ServerSentEvents,
    arguments_of,
    system_apart,
    text_alone,
)
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
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)

API = "The Gemini API"
_CONFIG = frozenset(
    {
        "topK", "presencePenalty", "frequencyPenalty", "responseModalities", "mediaResolution", "speechConfig",
        "thinkingConfig", "imageConfig",
    }
)  # fmt: skip
"""Of `generationConfig`."""
EXTRA = _CONFIG | {"safetySettings", "cachedContent", "serviceTier"}

_FINISH: Mapping[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length"}
_MALFORMED = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"})
_MADE_UP = "call-"
"""Begins the ids of calls that came without one."""


class Gemini:
    """The dialect of `POST /models/NAME:generateContent`."""

    api = API
    batches = "gemini"
    knows = PARAMETERS | {"images", "audio", "files"}
    extra = EXTRA

    def __init__(self, model: str) -> None:
        self.model = model

    def call(self, request: ChatRequest, *, stream: bool) -> Call:
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return Call(f"/models/{self.model}:{verb}", self.body(request))

    def body(self, request: ChatRequest) -> dict[str, Any]:
        said, rest = system_apart(request.messages, API)
        system = "\n\n".join(said)
        config = {
            "temperature": request.temperature,
            "topP": request.top_p,
            "maxOutputTokens": request.max_tokens,
            "stopSequences": list(request.stop) or None,
            "seed": request.seed,
            "responseMimeType": None if request.schema is None else "application/json",
            "responseJsonSchema": None if request.schema is None else dict(request.schema),
            "responseLogprobs": None if request.logprobs is None else True,
            "logprobs": request.logprobs,
            **{key: value for key, value in request.extra.items() if key in _CONFIG},
        }
        optional = {
            "systemInstruction": {"parts": [{"text": system}], "role": "user"} if system else None,
            "generationConfig": {key: value for key, value in config.items() if value is not None} or None,
            "tools": [{"functionDeclarations": [_tool(tool) for tool in request.tools]}] if request.tools else None,
            "toolConfig": _choice(request.tool_choice),
        }
        return {
            "contents": _turns(rest),
            **{key: value for key, value in optional.items() if value is not None},
            **{key: value for key, value in request.extra.items() if key not in _CONFIG},
        }

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        reading = self.reading()
        reading.feed(value)
        response = reading.end()
        if response is None:
            raise LookupError("candidates")
        return response

    def reading(self) -> _Reading:
        return _Reading(self.model)

    def frames(self) -> ServerSentEvents:
        return ServerSentEvents()


class _Reading:
    """Each event is an answer of its own, with the parts that are new."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._last: Mapping[str, Any] = {}
        self._parts: list[Mapping[str, Any]] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[TokenLogprob] = []
        self._usage: Mapping[str, Any] = {}
        self._finish: str | None = None
        self._blocked: str | None = None

    def feed(self, event: Mapping[str, Any]) -> Sequence[ChatDelta]:
        self._last = event
        self._usage = event.get("usageMetadata") or self._usage
        self._blocked = (event.get("promptFeedback") or {}).get("blockReason") or self._blocked
        deltas: list[ChatDelta] = []
        for candidate in event.get("candidates") or ():
            self._finish = candidate.get("finishReason") or self._finish
            logprobs = _logprobs(candidate.get("logprobsResult") or {})
            self._logprobs += logprobs
            for part in (candidate.get("content") or {}).get("parts") or ():
                self._parts.append(part)
                if "functionCall" in part:
                    deltas.append(self._called(part["functionCall"]))
                elif text := part.get("text"):
                    deltas.append(ChatDelta(reasoning=text) if part.get("thought") else ChatDelta(text))
        return deltas

    def end(self) -> ChatResponse | None:
        if self._finish is None and self._blocked is None:
            return None
        if self._finish in _MALFORMED:
            raise ValueError(f"the model's call was malformed ({self._finish})")
        texts = [part for part in self._parts if "text" in part]
        text = "".join(part["text"] for part in texts if not part.get("thought"))
        finish = _FINISH.get(self._finish or "", "content_filter")
        message = Message(
            "assistant",
            text,
            tuple(self._calls),
            reasoning="".join(part["text"] for part in texts if part.get("thought")),
            sealed=(API, self._parts) if any("thoughtSignature" in part for part in self._parts) else None,
        )
        return ChatResponse(
            str(self._last.get("responseId") or ""),
            str(self._last.get("modelVersion") or self._model),
            message,
            "tool_calls" if self._calls and finish == "stop" else finish,
            usage_of(self._usage),
            refused=finish == "content_filter",
            logprobs=tuple(self._logprobs),
        )

    def _called(self, call: Mapping[str, Any]) -> ChatDelta:
        """Calls come whole."""
        number = len(self._calls)
        arguments = json.dumps(call.get("args") or {}, ensure_ascii=False)
        self._calls.append(ToolCall(call.get("id") or f"{_MADE_UP}{number}", call["name"], arguments))
        return ChatDelta(calls=[ToolCallDelta(number, arguments, self._calls[-1].id, call["name"])])


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """Cached tokens and those of sound and images stand inside of the prompt; reasoning stands beside the answer."""
    prompt, cached = counts.get("promptTokenCount"), counts.get("cachedContentTokenCount")
    heard, seen = (_of_kind(counts.get("promptTokensDetails"), kind) for kind in ("AUDIO", "IMAGE"))
    said, drawn = (_of_kind(counts.get("candidatesTokensDetails"), kind) for kind in ("AUDIO", "IMAGE"))
    answer = counts.get("candidatesTokenCount")
    if prompt is not None:
        prompt = max(0, prompt - (cached or 0) - (heard or 0) - (seen or 0)) + (
            counts.get("toolUsePromptTokenCount") or 0
        )
    if answer is None and prompt is not None:
        answer = 0  # left out where nothing was said
    return Usage(
        input=prompt,
        cache_read=cached,
        output=None if answer is None else max(0, answer - (said or 0) - (drawn or 0)),
        reasoning=counts.get("thoughtsTokenCount"),
        input_audio=heard,
        output_audio=said,
        input_image=seen,
        output_image=drawn,
    )


def _of_kind(details: Any, kind: str) -> int | None:
    return sum(one.get("tokenCount", 0) for one in details or () if one.get("modality") == kind) or None


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns of user and model by turns."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # results are told with the name of what was called
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        role, parts = ("model" if message.role == "assistant" else "user"), _parts(message, names)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"parts": parts, "role": role})
    return turns


def _parts(message: Message, names: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.sealed is not None and message.sealed[0] == API:
        return [dict(part) for part in message.sealed[1]]
    if message.role == "tool":
        identifier = message.tool_call_id or ""
        result = {"name": message.name or names.get(identifier, ""), "response": {"output": text_alone(message, API)}}
        return [{"functionResponse": result | _identified(identifier)}]
    said = [TextPart(message.content)] if isinstance(message.content, str) else message.content
    parts = [_part(part) for part in said if part != TextPart("")]
    calls = [
        {"functionCall": {"name": call.name, "args": arguments_of(call)} | _identified(call.id)}
        for call in message.tool_calls
    ]
    return [*parts, *calls]


def _identified(identifier: str) -> dict[str, str]:
    return {} if not identifier or identifier.startswith(_MADE_UP) else {"id": identifier}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart(url=str(url)) | FilePart(url=str(url)):
            return {"fileData": {"fileUri": url, "mimeType": part.media_type}}
        case ImagePart() | FilePart() | AudioPart():
            data = base64.b64encode(part.data or b"").decode()
            return {"inlineData": {"data": data, "mimeType": part.media_type}}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    if tool.strict:
        raise Unsupported(f"{API} cannot hold the arguments of '{tool.name}' to their schema.", "Leave `strict` out.")
    value: dict[str, Any] = {"name": tool.name}
    if tool.description:
        value["description"] = tool.description
    if tool.parameters:
        value["parametersJsonSchema"] = dict(tool.parameters)
    return value


def _choice(choice: str) -> dict[str, Any] | None:
    if choice == "auto":
        return None
    modes: Mapping[str, dict[str, Any]] = {"none": {"mode": "NONE"}, "required": {"mode": "ANY"}}
    return {"functionCallingConfig": modes.get(choice, {"mode": "ANY", "allowedFunctionNames": [choice]})}


def _logprobs(result: Mapping[str, Any]) -> list[TokenLogprob]:
    others = [one.get("candidates") or () for one in result.get("topCandidates") or ()]
    chosen = result.get("chosenCandidates") or ()
    return [
        TokenLogprob(
            one["token"],
            one["logProbability"],
            one.get("tokenId"),
            top=tuple(
                TokenLogprob(t["token"], t["logProbability"], t.get("tokenId"))
                for t in (others[n] if n < len(others) else ())
            ),
        )
        for n, one in enumerate(chosen)
    ]

"""Chat and embeddings over the OpenAI HTTP API, which nearly every server speaks: vLLM, Ollama, llama.cpp, our own.

The requests are those of the official SDK for the same parameters; tests send both to one server and compare. What
the API cannot express is refused before anything is sent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from windlass.apply.providers.http import Endpoint
from windlass.core.config import Config
from windlass.core.errors import ConfigError, ProviderError, Unsupported
from windlass.core.files import sha256_json
from windlass.core.pricing import PriceOf, prices_at
from windlass.core.protocols import Embeddings, EmbedKind
from windlass.core.usage import usage_of
from windlass.core.values import (
    ChatDelta,
    ChatRequest,
    ChatResponse,
    FinishReason,
    ImagePart,
    Message,
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
"""Parameters of the API beyond those of `ChatRequest` that are passed on by their wire name."""

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIChat:
    """Implements `ChatModel` over `POST /chat/completions`."""

    digest: str | None = None

    def __init__(self, endpoint: Endpoint, model: str, *, price_of: PriceOf | None = None) -> None:
        self._endpoint = endpoint
        self._model = model
        self._price = price_of or prices_at(endpoint.host)

    @classmethod
    def from_config(cls, config: Config) -> OpenAIChat:
        """From `[model]` and `[prices]` in windlass.toml. Raises `ConfigError` when `[model]` is incomplete."""
        settings = config.model
        if not settings.base_url or not settings.model:
            missing = "base_url" if not settings.base_url else "model"
            raise ConfigError(f"windlass.toml: [model] has no {missing}.", "Set both base_url and model.")
        endpoint = Endpoint(settings.base_url, api_key_env=settings.api_key_env, timeout=settings.timeout_s)
        return cls(endpoint, settings.model, price_of=prices_at(endpoint.host, config.prices))

    @property
    def name(self) -> str:
        return self._model

    def complete(self, request: ChatRequest) -> ChatResponse:
        value = self._endpoint.post("/chat/completions", self.body(request))
        try:
            choice = value["choices"][0]
            said = choice["message"]
            calls = tuple(
                ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"])
                for c in said.get("tool_calls") or ()
            )
            text = said.get("content") or said.get("refusal") or ""
            reasoning = said.get("reasoning_content") or said.get("reasoning") or ""
            message = Message("assistant", text, calls, reasoning=reasoning)
            logprobs = _logprobs(choice.get("logprobs"))
            return self._response(value, message, choice.get("finish_reason"), value.get("usage"), logprobs)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ProviderError(
                f"{self._endpoint.base_url} answered without a usable choice ({error!r}).",
                "The server does not follow the OpenAI API here.",
            ) from error

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        body = {**self.body(request), "stream": True, "stream_options": {"include_usage": True}}
        texts: list[str] = []
        thoughts: list[str] = []
        logprobs: list[TokenLogprob] = []
        calls: dict[int, list[str]] = {}
        last: dict[str, Any] = {}
        usage, finish = None, None
        for event in self._endpoint.events("/chat/completions", body):
            last = event if event.get("id") or not last else last
            usage = event.get("usage") or usage
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                made = [_add_call(calls, call) for call in delta.get("tool_calls") or ()]
                text = delta.get("content") or delta.get("refusal") or ""
                thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
                found = _logprobs(choice.get("logprobs"))
                if text or thought or found or made:
                    texts.append(text)
                    thoughts.append(thought)
                    logprobs.extend(found)
                    yield ChatDelta(text, reasoning=thought, logprobs=found, calls=made)
                finish = choice.get("finish_reason") or finish
        if finish is None:
            raise ProviderError(
                f"{self._endpoint.base_url} ended its stream before the answer was finished.",
                "What arrived so far is not a whole answer; ask again.",
            )
        whole = tuple(ToolCall(*calls[i]) for i in sorted(calls))
        message = Message("assistant", "".join(texts), whole, reasoning="".join(thoughts))
        yield ChatDelta(response=self._response(last, message, finish, usage, logprobs))

    def body(self, request: ChatRequest) -> dict[str, Any]:
        """The JSON body for a request. Raises `Unsupported` for a parameter that the API does not have."""
        unknown = sorted(set(request.extra) - EXTRA)
        if unknown:
            raise Unsupported(
                f"The OpenAI chat API has no parameter '{unknown[0]}'.",
                f"It knows, besides the usual: {', '.join(sorted(EXTRA))}.",
            )
        # OpenAI's own newer models refuse the old name, other servers do not know the new one.
        limit = "max_completion_tokens" if self._endpoint.host == "api.openai.com" else "max_tokens"
        optional = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            limit: request.max_tokens,
            "stop": list(request.stop) or None,
            "seed": request.seed,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request),
            "response_format": _format(request.schema),
            "logprobs": None if request.logprobs is None else True,
            "top_logprobs": request.logprobs,
        }
        return {
            "model": self._model,
            "messages": [_message(message) for message in request.messages],
            **{key: value for key, value in optional.items() if value is not None},
            **request.extra,
        }

    def _response(
        self, value: Mapping[str, Any], message: Message, finish: str | None, usage: Any,
        logprobs: Sequence[TokenLogprob],
    ) -> ChatResponse:  # fmt: skip
        counted = usage_of(usage)
        model = str(value.get("model") or self._model)
        return ChatResponse(
            str(value.get("id") or ""),
            model,
            message,
            _FINISH.get(finish or "stop", "stop"),
            counted,
            self._price(model, counted),
            logprobs=tuple(logprobs),
        )


def _message(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": _content(message)}
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


def _logprobs(value: Any) -> tuple[TokenLogprob, ...]:
    """The list `content` of a choice's `logprobs`."""
    return tuple(map(_logprob, (value or {}).get("content") or ()))


def _logprob(value: Mapping[str, Any]) -> TokenLogprob:
    raw = value.get("bytes")
    top = tuple(_logprob(one) for one in value.get("top_logprobs") or ())
    return TokenLogprob(value["token"], value["logprob"], bytes=None if raw is None else bytes(raw), top=top)


def _content(message: Message) -> Any:
    if isinstance(message.content, str):
        return message.content
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            data = "" if part.data is None else base64.b64encode(part.data).decode()
            url = part.url or f"data:{part.media_type};base64,{data}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _add_call(calls: dict[int, list[str]], piece: Mapping[str, Any]) -> ToolCallDelta:
    index = int(piece.get("index") or 0)
    call = calls.setdefault(index, ["", "", ""])
    function = piece.get("function") or {}
    call[0] = piece.get("id") or call[0]
    call[1] += function.get("name") or ""
    arguments = function.get("arguments") or ""
    call[2] += arguments
    return ToolCallDelta(index, arguments, piece.get("id") or None, function.get("name") or None)


class OpenAIEmbedder:
    """Implements `Embedder` over `POST /embeddings`.

    A remote model has no digest of its own: ours covers address, model and dimension, so a change behind the same
    name is not noticed. The dimension is asked for once, by embedding one word, unless it is given.
    """

    def __init__(self, endpoint: Endpoint, model: str, *, dimension: int | None = None, batch: int = 128) -> None:
        self._endpoint = endpoint
        self._model = model
        self._asked = dimension
        self._dimension: int | None = dimension
        self._batch = batch

    @property
    def name(self) -> str:
        return self._model

    @property
    def digest(self) -> str:
        return sha256_json(["openai-compatible", self._endpoint.base_url, self._model, self.dimension])

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            self._dimension = int(self._post(["dimension"])[0].shape[1])
        return self._dimension

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        dimension = self.dimension
        rows, tokens = [np.zeros((0, dimension), np.float32)], 0
        for at in range(0, len(texts), self._batch):
            # the API refuses an empty text; a space is the nearest that it takes
            vectors, count = self._post([text or " " for text in texts[at : at + self._batch]])
            rows.append(vectors)
            tokens += count
        return Embeddings(np.concatenate(rows), tokens)

    def _post(self, texts: Sequence[str]) -> tuple[Any, int]:
        body: dict[str, Any] = {"input": list(texts), "model": self._model}
        if self._asked is not None:
            body["dimensions"] = self._asked
        body["encoding_format"] = "base64"
        value = self._endpoint.post("/embeddings", body)
        try:
            data = sorted(value["data"], key=lambda item: item["index"])
            vectors = np.stack([_vector(item["embedding"]) for item in data])
            tokens = int((value.get("usage") or {}).get("prompt_tokens") or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise ProviderError(f"{self._endpoint.base_url} answered without usable embeddings ({error!r}).") from error
        if len(vectors) != len(texts) or (self._dimension is not None and vectors.shape[1] != self._dimension):
            raise ProviderError(
                f"{self._endpoint.base_url} gave vectors of shape {vectors.shape}, "
                f"not ({len(texts)}, {self._dimension})."
            )
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), tokens


def _vector(value: Any) -> Any:
    """Servers answer base64 of little-endian float32 as asked, or a list of numbers all the same."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4").astype(np.float32)
    return np.asarray(value, np.float32)

"""The endpoints below `/v1`, as OpenAI's clients speak to them, and `/v1/feedback`, a door of our own.

What an answer carries beyond OpenAI's fields (trace id, citations, whether the model abstained) stands in its field
`windlass`; in a stream, in that of the last chunk with a choice. Clients pass unknown fields through, so that
`response.windlass["citations"]` works in the official `openai` package.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from windlass.core import semconv
from windlass.core.errors import Unsupported, WindlassError
from windlass.core.protocols import ChatModel, Embedder, Embeddings
from windlass.core.records import ScoreRecord
from windlass.core.store import Store
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatResponse
from windlass.serve import wire
from windlass.serve.errors import HttpError, error_json, error_response, json_response
from windlass.serve.limits import Limits
from windlass.serve.metrics import Metrics
from windlass.serve.work import ClientGone, Workers

TOKENS = "windlass_tokens_total"
FIRST = "windlass_time_to_first_chunk_seconds"

Endpoint = Callable[[Request], Awaitable[Response]]


class OpenAI:
    """The endpoints over a fixed set of models and embedders."""

    def __init__(
        self, models: Mapping[str, ChatModel], embedders: Mapping[str, Embedder], store: Store | None,
        recorder: Recorder, limits: Limits, workers: Workers, metrics: Metrics,
    ) -> None:  # fmt: skip
        self._models = models
        self._embedders = embedders
        self._store = store
        self._recorder = recorder
        self._limits = limits
        self._workers = workers
        self._metrics = metrics
        self._started = int(time.time())
        metrics.declare(TOKENS, "counter", "Tokens by model and direction (input, output).")
        metrics.declare(FIRST, "histogram", "Seconds from a request to the first piece of its answer, by model.")

    def routes(self) -> list[Route]:
        table: dict[str, tuple[str, Endpoint]] = {
            "/v1/models": ("GET", self.list_models),
            "/v1/models/{model:path}": ("GET", self.show_model),
            "/v1/chat/completions": ("POST", self.chat),
            "/v1/completions": ("POST", self.completions),
            "/v1/embeddings": ("POST", self.embeddings),
            "/v1/feedback": ("POST", self.feedback),
        }
        known = [Route(path, _guarded(endpoint), methods=[method]) for path, (method, endpoint) in table.items()]
        # Starlette answers a wrong method or an unknown path in plain text, which OpenAI's clients cannot read.
        other = [Route(path, _guarded(_only(method))) for path, (method, _) in table.items()]
        return [*known, *other, Route("/v1/{rest:path}", _guarded(_unknown_path))]

    # models ----------------------------------------------------------------------------------------------------------

    async def list_models(self, request: Request) -> Response:
        names = [*self._models, *(name for name in self._embedders if name not in self._models)]
        return json_response({"object": "list", "data": [self._card(name) for name in names]})

    async def show_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self._models and name not in self._embedders:
            self._no_model(name, [*self._models, *self._embedders])
        return json_response(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        model: ChatModel | Embedder = self._models[name] if name in self._models else self._embedders[name]
        kinds = [kind for kind, known in (("chat", self._models), ("embeddings", self._embedders)) if name in known]
        about = {"kinds": kinds, "digest": model.digest}
        return {"id": name, "object": "model", "created": self._started, "owned_by": "windlass", "windlass": about}

    def _no_model(self, name: str, known: list[str]) -> NoReturn:
        listed = ", ".join(f"'{one}'" for one in known) or "none"
        raise HttpError(
            404, f"There is no model '{name[:200]}' here.", f"Models: {listed}.", code="model_not_found", param="model"
        )

    # text ------------------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        fields = await self._fields(request)
        call = wire.chat_call(fields, max_messages=self._limits.messages)
        return await self._answer(request, call, _ChatShape(call, int(time.time())))

    async def completions(self, request: Request) -> Response:
        call = wire.completion_call(await self._fields(request))
        return await self._answer(request, call, _CompletionShape(call, int(time.time())))

    async def _answer(self, request: Request, call: wire.Call, shape: _Shape) -> Response:
        model = self._models.get(call.model)
        if model is None:
            self._no_model(call.model, list(self._models))
        if call.stream:
            return _EventStream(self._deltas(model, call, request.receive), shape, call.include_usage)
        response = None
        async for delta in self._deltas(model, call, request.receive):
            response = delta.response
        assert response is not None, "the last delta carries the response"
        return json_response(shape.whole(response))

    async def _deltas(self, model: ChatModel, call: wire.Call, receive: Receive) -> AsyncGenerator[ChatDelta]:
        """The deltas of a model; the last one carries the response, or an error is raised."""
        started, waiting, complete = time.perf_counter(), True, False
        try:
            async with (
                asyncio.timeout(self._limits.request_seconds),
                self._workers.items(lambda: model.stream(call.request), receive) as deltas,
            ):
                async for delta in deltas:
                    if waiting:
                        waiting = False
                        self._metrics.observe(FIRST, time.perf_counter() - started, model=call.model)
                    if delta.response is not None:
                        complete = True
                        self._count_tokens(call.model, delta.response)
                    yield delta
                if not complete:
                    raise WindlassError(f"The model '{call.model}' ended without a response.")
        except Unsupported as error:
            # The model refuses a field by its wire name; say which one in `param`, where clients look for it.
            named = next((field for field in call.request.extra if f"'{field}'" in error.message), None)
            raise wire.BadField(named, error.message, error.hint, code="unsupported") from error

    def _count_tokens(self, model: str, response: ChatResponse) -> None:
        if response.usage.prompt is not None:
            self._metrics.add(TOKENS, response.usage.prompt, model=model, direction="input")
        if response.usage.completion is not None:
            self._metrics.add(TOKENS, response.usage.completion, model=model, direction="output")

    # embeddings ------------------------------------------------------------------------------------------------------

    async def embeddings(self, request: Request) -> Response:
        call = wire.embedding_call(await self._fields(request), max_texts=self._limits.texts)
        embedder = self._embedders.get(call.model)
        if embedder is None:
            self._no_model(call.model, list(self._embedders))
        if call.dimensions not in (None, embedder.dimension):
            raise wire.BadField(
                "dimensions", f"'dimensions' is {call.dimensions}, but '{call.model}' gives {embedder.dimension}."
            )

        def embed() -> Embeddings:
            with self._recorder.span("embeddings", "embeddings") as span:
                span.attributes.update(
                    {
                        semconv.PROVIDER: "windlass",
                        semconv.REQUEST_MODEL: call.model,
                        semconv.EMBEDDER_DIGEST: embedder.digest,
                        semconv.EMBEDDING_DIMENSION: embedder.dimension,
                    }
                )
                result = embedder.embed(call.texts)
                span[semconv.INPUT_TOKENS] = result.tokens
                return result

        async with asyncio.timeout(self._limits.request_seconds):
            result = await self._workers.call(embed, request.receive)
        self._metrics.add(TOKENS, result.tokens, model=call.model, direction="input")
        vectors = result.vectors.astype("<f4")
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(row.tobytes()).decode() if call.base64 else row.tolist(),
            }
            for i, row in enumerate(vectors)
        ]
        usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
        about = {"truncated": result.truncated}  # how many texts were longer than the model reads
        return json_response({"object": "list", "data": data, "model": call.model, "usage": usage, "windlass": about})

    # feedback --------------------------------------------------------------------------------------------------------

    async def feedback(self, request: Request) -> Response:
        call = wire.feedback_call(await self._fields(request))
        store = self._store
        if store is None:
            raise HttpError(501, "This server keeps no traces, so it takes no feedback.")
        known = {} if call.correct_document is None else {"correct_document": call.correct_document}
        score = ScoreRecord(
            uuid.uuid4().hex, call.trace, "feedback", call.value, "user", call.user, time.time(), call.comment,
            metadata=known,
        )  # fmt: skip

        def save() -> None:
            self._recorder.flush()  # the answer may be younger than the recorder's last write
            if not (spans := store.trace(call.trace)) or spans[0].trace_id != call.trace:
                raise HttpError(404, f"There is no trace '{call.trace[:64]}'.", param="trace_id", code="not_found")
            store.add_score(score)

        await self._workers.call(save, request.receive)
        return json_response({"object": "feedback", "id": score.id, "trace_id": call.trace, "value": call.value})

    async def _fields(self, request: Request) -> dict[str, Any]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HttpError(
                415, f"The body is of type '{kind[:100]}'.", "Send the header 'Content-Type: application/json'."
            )
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._limits.body_bytes:
                        limit = self._limits.body_bytes
                        raise HttpError(413, f"The body is larger than {limit} bytes.", headers={"Connection": "close"})
        except TimeoutError:
            raise HttpError(
                408, f"The body did not arrive within {self._limits.body_seconds:g} s.", headers={"Connection": "close"}
            ) from None
        return wire.parse_json(bytes(body))


class _Shape(ABC):
    """The JSON of one endpoint's answers: whole, or as the chunks of a stream."""

    def __init__(self, call: wire.Call, created: int) -> None:
        self._model = call.model
        self._created = created
        self.stream_id = f"chatcmpl-{uuid.uuid4().hex}"

    def _frame(self, kind: str, id: str, choice: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, **choice, "logprobs": None}
        return {"id": id, "object": kind, "created": self._created, "model": self._model, "choices": [choice]}

    @abstractmethod
    def whole(self, response: ChatResponse) -> dict[str, Any]: ...

    @abstractmethod
    def opening(self) -> dict[str, Any]: ...

    @abstractmethod
    def piece(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def closing(self, response: ChatResponse) -> dict[str, Any]: ...


class _ChatShape(_Shape):
    def whole(self, response: ChatResponse) -> dict[str, Any]:
        choice = {"message": wire.message_json(response.message), "finish_reason": response.finish_reason}
        body = self._frame("chat.completion", response.id, choice)
        return body | {"usage": wire.usage_json(response.usage), "windlass": wire.extension_json(response)}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return self._frame("chat.completion.chunk", self.stream_id, {"delta": delta, "finish_reason": finish})

    def opening(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def closing(self, response: ChatResponse) -> dict[str, Any]:
        calls = wire.tool_calls_json(response.message.tool_calls, indexed=True)
        return self._chunk({"tool_calls": calls} if calls else {}, response.finish_reason)


class _CompletionShape(_Shape):
    def _text(self, id: str, text: str, finish: str | None) -> dict[str, Any]:
        return self._frame("text_completion", id, {"text": text, "finish_reason": finish})

    def whole(self, response: ChatResponse) -> dict[str, Any]:
        body = self._text(response.id, response.message.text, response.finish_reason)
        return body | {"usage": wire.usage_json(response.usage), "windlass": wire.extension_json(response)}

    def opening(self) -> dict[str, Any]:
        return self.piece("")

    def piece(self, text: str) -> dict[str, Any]:
        return self._text(self.stream_id, text, None)

    def closing(self, response: ChatResponse) -> dict[str, Any]:
        return self._text(self.stream_id, "", response.finish_reason)


class _EventStream(Response):
    """Server-sent events. The first delta is awaited before the status is sent, so that a refusal is a real error.

    A failure later on is sent as an event with `error`, which OpenAI's clients raise; the stream then ends without
    its `[DONE]`, so that nobody takes half an answer for a whole one.
    """

    media_type = "text/event-stream"

    def __init__(self, deltas: AsyncGenerator[ChatDelta], shape: _Shape, include_usage: bool) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._deltas = deltas
        self._shape = shape
        self._include_usage = include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._deltas) as deltas:
            try:
                delta = await anext(deltas)
            except ClientGone:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a well-formed answer
                await error_response(error)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await self._send(send, self._shape.opening())
                while delta.response is None:
                    await self._piece(send, delta)
                    delta = await anext(deltas)
                await self._close(send, delta, delta.response)
            except ClientGone:
                return
            except Exception as error:  # noqa: BLE001 - as above
                await self._event(send, json.dumps(error_json(error)))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _piece(self, send: Send, delta: ChatDelta) -> None:
        if delta.text:
            await self._send(send, self._shape.piece(delta.text))

    async def _close(self, send: Send, delta: ChatDelta, response: ChatResponse) -> None:
        await self._piece(send, delta)
        usage = wire.usage_json(response.usage)
        last = self._shape.closing(response)
        await self._send(send, last | {"windlass": wire.extension_json(response)})
        if self._include_usage:
            await self._send(send, {**last, "choices": [], "usage": usage})
        await self._event(send, "[DONE]")

    async def _send(self, send: Send, chunk: dict[str, Any]) -> None:
        if self._include_usage:
            chunk = {"usage": None, **chunk}
        await self._event(send, json.dumps(chunk, separators=(",", ":"), allow_nan=False))

    async def _event(self, send: Send, data: str) -> None:
        await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})


def _guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint with every failure turned into an error in OpenAI's shape."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientGone:
            return Response(status_code=499)  # nobody will read it; the number is for the metrics
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a well-formed answer
            return error_response(error)

    return guarded


def _only(method: str) -> Endpoint:
    async def refuse(request: Request) -> Response:
        raise HttpError(405, f"{request.url.path} takes {method} only.", headers={"Allow": method})

    return refuse


async def _unknown_path(request: Request) -> Response:
    raise HttpError(
        404,
        f"There is no {request.url.path[:200]} on this server.",
        "It has /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/feedback.",
        code="unknown_path",
    )

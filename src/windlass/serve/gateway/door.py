"""One endpoint of the gateway: reads a request, passes the answer on, and notices when the client leaves.

It is plain ASGI, without request and response objects in between: the time it takes is added to every call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from starlette import types as http

from windlass.core.trace import Recorder
from windlass.core.values import Usage
from windlass.serve.errors import HttpError, error_json, error_response
from windlass.serve.gate import key_of, scope_error
from windlass.serve.gateway import faults
from windlass.serve.gateway import record as records
from windlass.serve.gateway.budget import Budgets, Hold
from windlass.serve.gateway.cache import digest_of
from windlass.serve.gateway.connections import Failed
from windlass.serve.gateway.envelope import Envelope, refused
from windlass.serve.gateway.events import Watcher
from windlass.serve.gateway.gateway import Answer, Gateway, Route
from windlass.serve.gateway.record import Record
from windlass.serve.gateway.upstream import Call, Refused, Stream, Whole
from windlass.serve.keys import Scope
from windlass.serve.limits import Limits
from windlass.serve.metrics import Metrics
from windlass.serve.work import ClientGone

Headers = list[tuple[bytes, bytes]]


@dataclass
class House:
    """What all doors share."""

    gateway: Gateway
    """May be replaced at any time: a request goes through to its end by the one that it found."""
    recorder: Recorder
    metrics: Metrics
    budgets: Budgets
    running: int = 0

    def __post_init__(self) -> None:
        records.declare(self.metrics)


class Door:
    """`POST /v1` + `path`, as an ASGI application."""

    def __init__(
        self, path: str, operation: str, scope: Scope, watcher: Callable[[], Watcher] | None, house: House
    ) -> None:
        self._path = path
        self._operation = operation
        self._scope = scope
        self._watcher = watcher
        self._house = house

    async def __call__(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        house, gateway, key = self._house, self._house.gateway, key_of(scope)
        try:
            if key is not None and self._scope not in key.scopes:
                raise scope_error(key, self._scope)
            call, route = self._read(gateway, await _body(scope, receive, gateway.limits))
            if house.running >= gateway.config.most_running:
                raise HttpError(429, "The gateway is busy: all places are taken.", "Try again soon.", code="busy")
            writes = self._scope == "generate"
            hold = await house.budgets.hold(key, gateway, route, call.model, call.envelope, writes=writes)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a well-formed answer
            await error_response(error)(scope, receive, send)
            return
        fields = call.envelope.fields
        record = Record(
            house.recorder, house.metrics, self._operation, route.name, gateway.digest, fields,
            content=gateway.config.traces.content,
        )  # fmt: skip
        if key is not None:
            record.of_key(key.name)
        house.running += 1
        try:
            await _Exchange(gateway, call, route, record, hold, scope, receive, send).run()
        finally:
            house.running -= 1
            house.budgets.settle(hold)

    def _read(self, gateway: Gateway, body: bytes) -> tuple[Call, Route]:
        envelope = Envelope(body)
        model, stream = envelope.fields.get("model"), envelope.fields.get("stream")
        if not isinstance(model, str) or not model:
            raise refused("model", "'model' is missing, or is no text.", "Name one of those that /v1/models lists.")
        if not (stream is None or isinstance(stream, bool)):
            raise refused("stream", "'stream' must be true or false.")
        if stream and self._watcher is None:
            raise refused("stream", f"{self._path} has no streaming.", "Leave 'stream' out.")
        route = gateway.route(model)
        keep = gateway.config.traces.content
        return Call(self._path, envelope, model, self._watcher if stream else None, keep), route


class _Exchange:
    """One request that was understood, until its answer has been sent."""

    def __init__(
        self, gateway: Gateway, call: Call, route: Route, record: Record, hold: Hold | None, scope: http.Scope,
        receive: http.Receive, send: http.Send,
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._call = call
        self._route = route
        self._record = record
        self._hold = hold
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = False
        """Whether the status has been sent: after it, errors can only be events."""

    async def run(self) -> None:
        """Sends an answer, whatever happens, and finishes the record."""
        digest = self._digest()
        try:
            if digest is not None and await self._from_cache(digest):
                self._record.finish()
                return
            async with _while_connected(self._receive), asyncio.timeout(self._route.seconds):
                answer = await self._gateway.answer(self._route, self._call, self._record.attempts)
                try:
                    body = await self._pass_on(answer, digest)
                finally:
                    answer.close()
        except ClientGone:
            self._record.finish(gone=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a well-formed answer
            self._record.finish(error)
            await self._tell(error)
        except BaseException as error:  # the server is stopping
            self._record.finish(error)
            raise
        else:
            self._record.finish()
            # Sent when nobody watches the client any more: once it has all, its leaving is no news.
            await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _pass_on(self, answer: Answer, digest: str | None) -> bytes:
        """Sends all but the last piece of the answer, which it returns."""
        content = answer.content
        if isinstance(content, Refused):
            body = content.body
            if not faults.in_openai_shape(body):
                body = json.dumps(error_json(HttpError(content.status or 500, content.message))).encode()
            self._record.refused(content)
            await self._start(content.status or 500, "application/json", answer, len(body))
            return body
        if self._hold is not None:
            self._hold.answered = True
        if isinstance(content, Stream):
            try:
                kept = await self._stream(answer, content, keep=digest is not None)
            except BaseException:  # who leaves, perhaps at the very end, has used what was reported by then
                if content.usage != Usage():
                    self._count(answer, content)
                raise
            body, sent = b"", b"".join(kept)
        else:
            body = sent = content.body
        cost = self._count(answer, content)
        self._record.answered(content.said)
        kind = "text/event-stream" if isinstance(content, Stream) else "application/json"
        if digest is not None:
            self._gateway.cache.put(digest, sent, kind, self._route.settings.cache_s)
        if not self._begun:
            await self._start(200, kind, answer, len(body), cost)
        return body

    def _count(self, answer: Answer, content: Stream | Whole) -> float | None:
        """Writes down what was used; its cost in US dollars, None when that is not known."""
        model = answer.target.model or self._call.model
        cost = self._gateway.cost(answer.target, content.model or model, content.usage)
        self._record.used(
            answer.target.provider,
            self._gateway.address(answer.target),
            content.model,
            content.id,
            content.finish,
            content.usage,
        )
        self._record.cost(cost)
        if self._hold is not None:
            self._hold.usage, self._hold.cost = content.usage, cost
        return cost

    async def _stream(self, answer: Answer, content: Stream, *, keep: bool) -> Sequence[bytes]:
        """Sends a stream's events; returns them when they are to be kept."""
        kept: list[bytes] = []
        try:
            async with contextlib.aclosing(content.pieces()) as pieces:
                async for piece in pieces:
                    if not self._begun:
                        self._record.first_piece()
                        await self._start(200, "text/event-stream", answer)
                    if keep:
                        kept.append(piece)
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except Failed:
            answer.target.broke()
            raise
        answer.target.completed()
        return kept

    # the cache -------------------------------------------------------------------------------------------------------

    def _digest(self) -> str | None:
        """Under which the answer is kept; None where it is not."""
        if not self._route.settings.cache_s:
            return None
        owner = "" if self._gateway.config.cache.shared else _owner(self._scope)
        return digest_of(owner, self._call.path, self._call.envelope.fields)

    async def _from_cache(self, digest: str) -> bool:
        kept = self._gateway.cache.get(digest)
        self._record.cached(kept is not None)
        if kept is None:
            return False
        await self._begin(200, kept.content_type, [(b"x-windlass-cache", b"hit")], len(kept.body))
        await self._send({"type": "http.response.body", "body": kept.body, "more_body": False})
        return True

    # to the client ----------------------------------------------------------------------------------------------------

    async def _start(
        self, status: int, kind: str, answer: Answer, length: int | None = None, cost: float | None = None
    ) -> None:
        headers = [(b"x-windlass-provider", answer.target.provider.encode())]
        reply = answer.content.headers if isinstance(answer.content, Refused) else answer.content.reply.headers
        request = reply.get("x-request-id", "")
        if request.isascii() and request.isprintable() and 0 < len(request) <= 200:
            headers.append((b"x-windlass-provider-request", request.encode()))
        if cost is not None:
            headers.append((b"x-windlass-cost-usd", f"{cost:.9f}".encode()))
        await self._begin(status, kind, headers, length)

    async def _begin(self, status: int, kind: str, headers: Headers, length: int | None) -> None:
        self._begun = True
        headers += [
            (b"content-type", kind.encode()),
            (b"x-windlass-trace", self._record.trace_id.encode()),
            (b"cache-control", b"no-store"),
        ]
        if length is None:
            headers.append((b"x-accel-buffering", b"no"))  # a proxy before us should not collect events
        else:
            headers.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _tell(self, error: Exception) -> None:
        """As the answer, or, once that has begun, as an event that OpenAI's clients raise; its `[DONE]` stays away."""
        if not self._begun:
            response = error_response(error)
            response.headers["x-windlass-trace"] = self._record.trace_id
            await response(self._scope, self._receive, self._send)
            return
        event = f"data: {json.dumps(error_json(error))}\n\n".encode()
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


@contextlib.asynccontextmanager
async def _while_connected(receive: http.Receive) -> AsyncIterator[None]:
    """Cancels the block when the client closes the connection; raises `ClientGone` then."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGone from None
    finally:
        watcher.cancel()


async def _body(scope: http.Scope, receive: http.Receive, limits: Limits) -> bytes:
    """The request's body. Raises `HttpError` when it is no JSON by its header, too large or too slow."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"").decode("latin-1")
    if kind.partition(";")[0].strip().lower() != "application/json":
        hint = "Send the header 'Content-Type: application/json'."
        raise HttpError(415, f"The body is of type '{kind[:100]}'.", hint)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HttpError(499, "The client left before its request was complete.")
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limits.body_bytes:
                    close = {"Connection": "close"}
                    raise HttpError(413, f"The body is larger than {limits.body_bytes} bytes.", headers=close)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        close = {"Connection": "close"}
        raise HttpError(408, f"The body did not arrive within {limits.body_seconds:g} s.", headers=close) from None


def _owner(scope: http.Scope) -> str:
    """Who sent the request: a key of the workspace, or whoever else the gate let in."""
    key = key_of(scope)
    return "" if key is None else key.id

"""One HTTP call to a model's endpoint: timeouts by phase, retries with jitter that honour `Retry-After`, clear errors.

Each way to call stands here twice, for callers that wait and for those on an event loop; what they decide (`tries`),
and what they say when something fails (`replies`), stands once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import ssl
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import httpcore2
import httpx2

from windlass.apply.providers.dialects.dialect import Call, Frames, ServerSentEvents
from windlass.apply.providers.wire import proxies
from windlass.apply.providers.wire.clock import Clock
from windlass.apply.providers.wire.keys import ApiKey, Auth, sendable
from windlass.apply.providers.wire.loop_sockets import LoopSockets
from windlass.apply.providers.wire.plain_calls import KEPT_FOR, Connections
from windlass.apply.providers.wire.replies import BROKEN, Replies
from windlass.apply.providers.wire.tries import Tries
from windlass.core.errors import ConfigError
from windlass.core.version import __version__

_KEPT_OPEN = 100
"""Connections that stay when nothing is under way: each call looks through them, and asks the system of each."""
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_parsed = functools.lru_cache(maxsize=256)(httpx2.URL)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds by phase. How long the whole answer may take is for the request to say (`ChatRequest.timeout`)."""

    connect: float = 10.0
    write: float = 60.0
    read: float = 60.0
    """Between two pieces of the answer, and before the first."""


class Transport(Protocol):
    """Sends in place of the network: `httpx2.MockTransport`, `windlass.testing.cassettes.Cassette`."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response: ...

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...


class Endpoint:
    """The address of an API. Safe to share between threads, tasks and event loops.

    `proxy`: a URL; without one, the usual environment variables decide. `connections`: how many are open at once at
    most; calls beyond that wait their turn.
    """

    def __init__(
        self,
        base_url: str,
        auth: Auth | None = None,
        *,
        timeouts: Timeouts | None = None,
        retries: int = 2,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        connections: int = 1000,
        transport: Transport | None = None,
    ) -> None:
        url = _address(base_url.strip())
        self.base_url = base_url.strip().rstrip("/")
        self.host = url.host
        self.port = url.port
        self.auth = auth or ApiKey("OPENAI_API_KEY")
        self.retries = retries
        self.headers: Mapping[str, str] = dict(headers or {})
        for name, value in self.headers.items():
            sendable(value, f"The header {name}")
        self.replies = Replies(self.base_url, self.auth, self.headers, proxy)
        waits = timeouts or Timeouts()
        # Waiting for a free connection has no limit of its own: a thousand calls at once are no failure.
        self._phases = {"connect": waits.connect, "write": waits.write, "read": waits.read, "pool": None}
        self._most, self._kept = connections, min(connections, _KEPT_OPEN)
        self._proxy = proxy
        self._transport = transport
        self._client: httpx2.Client | None = None
        # A connection belongs to the event loop that opened it.
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpcore2.AsyncConnectionPool]
        self._pools = weakref.WeakKeyDictionary()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient]
        self._clients = weakref.WeakKeyDictionary()

    def close(self) -> None:
        if "_connections" in vars(self):
            self._connections.close()
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Closes the connections of this event loop."""
        loop = asyncio.get_running_loop()
        for opened in (self._pools.pop(loop, None), self._clients.pop(loop, None)):
            if opened is not None:
                await opened.aclose()

    # callers that wait ----------------------------------------------------------------------------------------------

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path. Raises `ProviderError`."""
        return self.post(Call(path, None))

    def post(self, call: Call, within: float | None = None) -> dict[str, Any]:
        """The JSON object that the server answers. Raises `ProviderError`; `TimedOut` after `within` seconds."""
        clock = Clock(within)
        if self._straight:
            status, content = self._posted(call, clock)
        else:
            with self._sent(call, clock) as response, self.replies.broken(call.path, response.status_code, clock):
                status, content = response.status_code, b"".join(clock.watched(response.iter_bytes()))
        return self.replies.object(call.path, status, content)

    def events(self, call: Call, frames: Frames | None = None, within: float | None = None) -> Iterator[dict[str, Any]]:
        """The JSON objects of a streamed answer as they come. Raises as `post`."""
        clock, cutter = Clock(within), frames or ServerSentEvents()
        with self._sent(call, clock) as response:
            self.replies.refuse_page(call.path, response, cutter)
            with self.replies.broken(call.path, response.status_code, clock):
                for data in clock.watched(response.iter_bytes()):
                    for text in cutter.feed(data):
                        yield self.replies.event(call.path, response.status_code, text)
                for text in cutter.end():
                    yield self.replies.event(call.path, response.status_code, text)

    def _posted(self, call: Call, clock: Clock) -> tuple[int, bytes]:
        """Status and content of a good answer; as `_sent`, in half of its time."""
        tries = Tries(self.replies, self.retries, call, clock)
        while True:
            method, url, headers, content = self._said(call)
            target = url.raw_path.decode("ascii")
            try:
                answer = self._connections.call(method, target, headers, content, clock.phases(self._phases))
            except BROKEN as error:
                time.sleep(tries.after(error))
                continue
            try:
                with self.replies.broken(call.path, answer.status, clock):
                    came = clock.collected(answer)
                    if 200 <= answer.status < 300 and not answer.packed:
                        return answer.status, came
                    whole = httpx2.Response(answer.status, headers=[*answer.headers], content=came)
            finally:
                answer.close()
            if whole.is_success:
                return whole.status_code, whole.content
            time.sleep(tries.after_status(whole))

    @contextlib.contextmanager
    def _sent(self, call: Call, clock: Clock) -> Iterator[httpx2.Response]:
        """An open response with a good status; retries until one arrives or the tries are used up."""
        if self._client is None:
            with proxies.usable():
                self._client = httpx2.Client(**self._options)
        client, tries = self._client, Tries(self.replies, self.retries, call, clock)
        while True:
            try:
                response = client.send(self._request(call, clock), stream=True)
            except BROKEN as error:
                time.sleep(tries.after(error))
                continue
            try:
                if response.is_success:
                    yield response
                    return
                with self.replies.broken(call.path, response.status_code, clock):
                    response.read()
                wait = tries.after_status(response)
            finally:
                response.close()
            time.sleep(wait)

    # callers on an event loop -----------------------------------------------------------------------------------------

    async def apost(
        self, call: Call, within: float | None = None, *, again: bool = True, refuse_errors: bool = True
    ) -> dict[str, Any]:
        """As `post`. Cancelling the task ends the request. `again` false: where a connection or a server fails, it
        is not known what came of the request, and it is not sent once more. `refuse_errors` false: an error inside of
        a good answer is about what was asked for, and the caller's to read."""
        clock = Clock(within)
        if self._straight:
            status, content = await self._aposted(call, clock, again)
        else:
            async with self._asent(call, clock, again) as response:
                with self.replies.broken(call.path, response.status_code, clock):
                    status, content = response.status_code, await clock.awaited(response.aread())
        return self.replies.object(call.path, status, content, refuse_errors)

    async def abytes(self, call: Call) -> bytes:
        """What the server answers, as it is. Raises as `post`."""
        clock = Clock(None)
        async with self._asent(call, clock) as response:
            with self.replies.broken(call.path, response.status_code, clock):
                return await clock.awaited(response.aread())

    async def aevents(
        self, call: Call, frames: Frames | None = None, within: float | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """As `events`."""
        clock, cutter = Clock(within), frames or ServerSentEvents()
        async with self._asent(call, clock) as response:
            self.replies.refuse_page(call.path, response, cutter)
            with self.replies.broken(call.path, response.status_code, clock):
                pieces = response.aiter_bytes()
                while (data := await clock.awaited(anext(pieces, None))) is not None:
                    for text in cutter.feed(data):
                        yield self.replies.event(call.path, response.status_code, text)
                for text in cutter.end():
                    yield self.replies.event(call.path, response.status_code, text)

    async def _aposted(self, call: Call, clock: Clock, again: bool) -> tuple[int, bytes]:
        """As `_posted`."""
        loop = asyncio.get_running_loop()
        if (pool := self._pools.get(loop)) is None:
            pool = httpcore2.AsyncConnectionPool(
                ssl_context=self._tls,
                network_backend=LoopSockets(),
                max_connections=self._most,
                max_keepalive_connections=self._kept,
                keepalive_expiry=KEPT_FOR,
            )
            self._pools[loop] = pool
        tries = Tries(self.replies, self.retries, call, clock)
        while True:
            try:
                response = await clock.awaited(pool.handle_async_request(self._plain(call, clock)))
            except BROKEN as error:
                await asyncio.sleep(tries.after(error, again))
                continue
            try:
                with self.replies.broken(call.path, response.status, clock):
                    came = await clock.awaited(response.aread())
                    if 200 <= response.status < 300 and not _packed(response):
                        return response.status, came
                    whole = httpx2.Response(response.status, headers=response.headers, content=came)
            finally:
                await response.aclose()
            if whole.is_success:
                return whole.status_code, whole.content
            await asyncio.sleep(tries.after_status(whole, again))

    @contextlib.asynccontextmanager
    async def _asent(self, call: Call, clock: Clock, again: bool = True) -> AsyncIterator[httpx2.Response]:
        """As `_sent`."""
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            with proxies.usable():
                client = self._clients[loop] = httpx2.AsyncClient(**self._options)
        tries = Tries(self.replies, self.retries, call, clock)
        while True:
            try:
                response = await clock.awaited(client.send(self._request(call, clock), stream=True))
            except BROKEN as error:
                await asyncio.sleep(tries.after(error, again))
                continue
            try:
                if response.is_success:
                    yield response
                    return
                with self.replies.broken(call.path, response.status_code, clock):
                    await clock.awaited(response.aread())
                wait = tries.after_status(response, again)
            finally:
                await response.aclose()
            await asyncio.sleep(wait)

    # what is sent -----------------------------------------------------------------------------------------------------

    def _request(self, call: Call, clock: Clock) -> httpx2.Request:
        method, url, headers, content = self._said(call)
        request = httpx2.Request(
            method,
            url,
            headers=headers,
            stream=httpx2.ByteStream(content),
            extensions={"timeout": clock.phases(self._phases)},
        )
        request.read()  # so that a transport of the user's own can look at its content
        return request

    def _plain(self, call: Call, clock: Clock) -> httpcore2.Request:
        """The same for a pool."""
        method, url, headers, content = self._said(call)
        address = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        return httpcore2.Request(
            method,
            address,
            headers=[*headers.items()],
            content=content,
            extensions={"timeout": clock.phases(self._phases)},
        )

    def _said(self, call: Call) -> tuple[str, httpx2.URL, dict[str, str], bytes]:
        """Method, address, headers, content: as `httpx2.Client.build_request` makes them, in a tenth of its time, as
        the same address and headers go out each time."""
        url = f"{self.base_url}{call.path}"
        method, content, own = "GET", b"", dict(call.headers)
        if call.body is not None:
            method, content = "POST", _json(call.body).encode()
            own["Content-Type"] = "application/json"
        elif call.content is not None:
            method, content = "POST", call.content
        method = call.method or method
        own.update(self.auth.headers(method, url, content))
        if content or method in ("POST", "PUT", "PATCH"):
            own["Content-Length"] = str(len(content))
        parsed = _parsed(url)
        said = {"host": ("Host", parsed.netloc.decode("ascii")), **self._usual}
        said.update((name.lower(), (name, value)) for name, value in own.items())
        return method, parsed, dict(said.values()), content

    @cached_property
    def _usual(self) -> Mapping[str, tuple[str, str]]:
        """The headers of every request, by their names in small letters: the client's own, and the user's."""
        with httpx2.Client(headers=self._options["headers"], transport=httpx2.MockTransport(_nobody)) as client:
            pairs = [(name.decode("ascii"), value.decode("ascii")) for name, value in client.headers.raw]
        return {name.lower(): (name, value) for name, value in pairs}

    @cached_property
    def _straight(self) -> bool:
        """Whether nothing but the network stands between: no proxy, and no transport of the user's own."""
        return self._transport is None and self._proxy is None and not proxies.of_environment()

    @cached_property
    def _connections(self) -> Connections:
        return Connections(self.host, self.port, self._tls, most=self._most, kept=self._kept)

    @cached_property
    def _tls(self) -> ssl.SSLContext | None:
        return httpx2.create_ssl_context() if _parsed(self.base_url).scheme == "https" else None

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "timeout": httpx2.Timeout(**self._phases),
            "limits": httpx2.Limits(max_connections=self._most, max_keepalive_connections=self._kept),
            "headers": {"User-Agent": f"windlass/{__version__}", **self.headers},
            "proxy": self._proxy,
            "transport": self._transport,
        }


def _address(base_url: str) -> httpx2.URL:
    """Raises `ConfigError`. What may be a password is not shown."""
    shown = f" '{base_url}'" if "@" not in base_url else ""
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"base_url{shown} is not a URL{f' ({error})' if shown else ''}.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"base_url{shown} is not an http(s) URL.", "For example http://127.0.0.1:11434/v1")
    if url.userinfo:
        raise ConfigError(
            f"base_url holds a name or a password before {url.host}, which every message and trace would show.",
            'Leave them out, and give headers={"Authorization": "Basic …"}, or the key by an environment variable.',
        )
    if url.query or url.fragment:
        raise ConfigError(
            f"base_url goes on behind the path of {url.host} with '?' or '#'.", "Leave that out: paths are added to it."
        )
    return url


def _packed(response: httpcore2.Response) -> bool:
    return any(name.lower() == b"content-encoding" for name, _ in response.headers)


def _nobody(request: httpx2.Request) -> httpx2.Response:
    raise AssertionError("nothing is sent")

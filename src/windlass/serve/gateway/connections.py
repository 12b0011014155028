"""Kept-alive HTTP/1.1 connections to one server, on asyncio alone.

A gateway adds its own time to every call, so the client it asks with has to be lean: a request is one write, an
answer is read in place, and a connection is reused while the server keeps it (docs/lab.md compares it with httpx2).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Literal, cast
from urllib.parse import urlsplit

from windlass.core.errors import ConfigError, ProviderError
from windlass.serve.gateway.http1 import Head, Malformed, take_head
from windlass.serve.gateway.proxy import Proxy, proxy_for

Phase = Literal["connect", "first byte", "idle", "answer"]

_HIGH = 256 << 10
"""Bytes that may wait for a slow client before the server is asked to pause."""
_FRESH = 50.0
"""Seconds for which an idle connection is trusted; servers close theirs after a minute as a rule."""
_SPARE = 64
"""Idle connections kept per server."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each phase of a call may take."""

    connect: float
    first_byte: float
    """From the request to the answer's headers; without streaming that is the whole computation."""
    idle: float
    """Between two pieces of an answer."""


class Failed(ProviderError):
    """No answer, or no whole one. `phase` says when."""

    def __init__(self, message: str, hint: str, phase: Phase) -> None:
        super().__init__(message, hint)
        self.phase = phase


class Server:
    """One server by its base URL: opens connections, keeps them, asks with them. For one event loop."""

    def __init__(self, name: str, base_url: str, *, ca_file: str = "", proxy: str = "") -> None:
        """`ca_file` and `proxy` as in the configuration. Raises `ConfigError`."""
        parts = urlsplit(base_url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.username:
            raise ConfigError(
                f"base_url '{base_url}' of provider '{name}' is not a plain http(s) URL.",
                "For example http://127.0.0.1:8000/v1",
            )
        self.name = name
        self.host = parts.hostname
        self.port = port or (443 if parts.scheme == "https" else 80)
        self.path = parts.path.rstrip("/")
        self._authority = parts.netloc
        self._tls = _trusting(ca_file, name) if parts.scheme == "https" else None
        scheme: Literal["http", "https"] = "http" if self._tls is None else "https"
        self._proxy = proxy_for(name, proxy, scheme, self.host, self.port)
        # A proxy is told the whole address; through its tunnel a server is asked as if there were none.
        self._start = f"http://{self._authority}{self.path}" if self._proxy and self._tls is None else self.path
        self._more = self._proxy.headers if self._proxy and self._tls is None else []
        self._idle: list[_Connection] = []
        self._closed = False

    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts) -> Reply:
        """Sends a request to `path` + `target` and returns when the answer's headers are here. Raises `Failed`.

        A kept connection that turns out to be closed before anything was answered is replaced, once.
        """
        lines = [f"{method} {self._start}{target} HTTP/1.1", f"Host: {self._authority}", *self._more]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        while True:
            connection = self._kept()
            kept = connection is not None
            if connection is None:
                connection = await self._open(timeouts.connect)
            try:
                head = await connection.ask(message, timeouts.first_byte)
            except TimeoutError:
                raise self._silent("did not answer", timeouts.first_byte, "first byte") from None
            except _Gone as gone:
                if kept and not gone.heard:
                    continue
                raise self._broken(str(gone), "answer") from None
            except Malformed as problem:
                raise self._broken(f"gave an answer that cannot be read: {problem}", "answer") from None
            return Reply(self, connection, head, timeouts.idle)

    def close(self) -> None:
        """Closes idle connections now, and others when their answers have been read."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.since < _FRESH:
                return connection
            connection.abort()
        return None

    def keep(self, connection: _Connection) -> None:
        """Takes back a connection whose answer has been read."""
        if self._closed or not connection.usable or len(self._idle) >= _SPARE:
            connection.abort()
            return
        connection.since = time.monotonic()
        self._idle.append(connection)

    async def _open(self, seconds: float) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                if self._proxy is not None:
                    return await self._through(self._proxy, seconds)
                _, connection = await loop.create_connection(_Connection, self.host, self.port, ssl=self._tls)
                return connection
        except TimeoutError:
            raise self._silent("could not be reached", seconds, "connect") from None
        except (OSError, ssl.SSLError) as error:
            raise self._broken(f"could not be reached ({error.strerror or error})", "connect") from None

    async def _through(self, proxy: Proxy, seconds: float) -> _Connection:
        """A connection to the proxy, and for https through its tunnel to the server."""
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(_Connection, proxy.host, proxy.port)
        if self._tls is None:
            return connection
        try:
            head = await connection.ask(proxy.tunnel(self.host, self.port), seconds)
            if not 200 <= head.status < 300 or connection.buffer:
                raise _Gone(f"it answered status {head.status}", heard=True)
            secured = await loop.start_tls(transport, connection, self._tls, server_hostname=self.host)
            assert secured is not None
            connection.connection_made(secured)
        except (_Gone, Malformed) as problem:
            connection.abort()
            where = f"{proxy.host}:{proxy.port}"
            raise self._broken(
                f"could not be reached: the proxy {where} makes no tunnel ({problem})", "connect"
            ) from None
        except BaseException:
            connection.abort()
            raise
        return connection

    def _silent(self, what: str, seconds: float, phase: Phase) -> Failed:
        return Failed(f"Provider '{self.name}' {what} within {seconds:g} s.", "Try again, or raise its timeout.", phase)

    def _broken(self, what: str, phase: Phase) -> Failed:
        return Failed(f"Provider '{self.name}' {what}.", "Try again; if it happens often, look at its log.", phase)


def _trusting(ca_file: str, name: str) -> ssl.SSLContext:
    """Trusts the certificates of `ca_file`, else the system's (or those that SSL_CERT_FILE names)."""
    if not ca_file:
        return _systems()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The ca_file '{ca_file}' of provider '{name}' cannot be used ({error.strerror or error}).",
            "Name a file of certificates in PEM.",
        ) from error


@cache
def _systems() -> ssl.SSLContext:
    """Made once: reading them takes some tens of milliseconds."""
    return ssl.create_default_context()


class Reply:
    """An answer whose headers are here and whose body is to be read. Use as a context manager.

    Leaving the block before the end of the body closes the connection, which is how the server learns that nobody
    listens any more.
    """

    def __init__(self, server: Server, connection: _Connection, head: Head, idle: float) -> None:
        self.status = head.status
        self.headers = head.headers
        self._server = server
        self._connection = connection
        self._head = head
        self._idle = idle
        self._closed = False

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it arrives. Raises `Failed` when it stalls, breaks off or is malformed."""
        connection, body, server = self._connection, self._head.body, self._server
        while True:
            try:
                piece = body.take(connection.buffer)
            except Malformed as problem:
                raise server._broken(f"gave an answer that cannot be read: {problem}", "answer") from None
            connection.resume()
            if piece:
                yield piece
            if body.done:
                return
            try:
                if not await connection.more(self._idle):
                    body.end()
                    return
            except TimeoutError:
                raise server._silent("sent nothing more", self._idle, "idle") from None
            except (_Gone, Malformed) as problem:
                raise server._broken(f"broke off its answer: {problem}", "answer") from None

    async def read(self, limit: int) -> bytes:
        """The whole body, of at most `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        async with contextlib.aclosing(self.pieces()) as arriving:
            async for piece in arriving:
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise self._server._broken(f"answered more than {limit} bytes", "answer")
        return b"".join(pieces)

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connection back, or closes it when its answer was not read to the end."""
        if self._closed:
            return
        self._closed = True
        if self._head.body.done and self._head.keep_alive:
            self._server.keep(self._connection)
        else:
            self._connection.abort()


class _Gone(Exception):
    """The other side closed the connection. `heard`: after some part of an answer."""

    def __init__(self, message: str, heard: bool) -> None:
        super().__init__(message)
        self.heard = heard


class _Connection(asyncio.Protocol):
    """One socket: a buffer of what arrived, and at most one task that waits for more."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.since = 0.0
        """When it became idle."""
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._news = False  # something arrived since the last wait
        self._ended = False
        self._error: Exception | None = None
        self._paused = False

    @property
    def usable(self) -> bool:
        """Still open, and nothing arrived that nobody asked for."""
        return not self._ended and not self.buffer

    async def ask(self, message: bytes, seconds: float) -> Head:
        """Sends a request and reads the answer's headers. Raises `TimeoutError`, `Malformed` or `_Gone`."""
        assert self._transport is not None
        heard = False
        try:
            self._transport.write(message)
            async with asyncio.timeout(seconds):
                while (head := take_head(self.buffer)) is None:
                    if not await self._arrival(heard):
                        raise _Gone("closed the connection without an answer", heard)
                    heard = True
            return head
        except BaseException:
            self.abort()
            raise

    async def more(self, seconds: float) -> bool:
        """Waits until there is more in the buffer; False when the other side has ended. May raise as `ask` does."""
        async with asyncio.timeout(seconds):
            return await self._arrival(heard=True)

    def resume(self) -> None:
        """The buffer was emptied as far as possible: let the server go on sending."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    async def _arrival(self, heard: bool) -> bool:
        if not self._news and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._news:
            self._news = False
            return True
        if self._error is not None:
            raise _Gone(f"broke the connection ({self._error})", heard)
        return False

    # called by asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no instances of it

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._news = True
        if len(self.buffer) > _HIGH and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

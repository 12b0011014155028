"""Calls over connections of the standard library's `http.client`, kept open: the straight way for callers that wait.

It reads an answer in a third of the time that httpx2 takes, and knows neither proxies nor other transports: where there
are such, `Endpoint` goes through httpx2. What goes wrong is raised in httpx2's words.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

KEPT_FOR = 5.0
"""Seconds that a connection nobody uses stays open."""
_PIECE = 1 << 16
_SLOW: Mapping[str, type[httpx2.TransportError]] = {
    "connect": httpx2.ConnectTimeout, "write": httpx2.WriteTimeout, "read": httpx2.ReadTimeout,
}  # fmt: skip
_BROKEN: Mapping[str, type[httpx2.TransportError]] = {
    "connect": httpx2.ConnectError, "write": httpx2.WriteError, "read": httpx2.ReadError,
}  # fmt: skip


class Connections:
    """To one server: at most `most` at once, of which `kept` stay open. Safe to share between threads."""

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None, *, most: int, kept: int) -> None:
        self._host, self._port, self._tls, self._kept = host, port, tls, kept
        self._free = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def call(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes, phases: Mapping[str, float | None]
    ) -> Answer:
        """The begun answer: its content is to be read, and it is to be closed. `phases`: seconds by phase."""
        if not self._free.acquire(timeout=phases["pool"]):
            raise httpx2.PoolTimeout("no connection became free")
        phase, connection, response = "connect", None, None
        try:
            connection = self._taken() or self._made(phases["connect"])
            if connection.sock is None:
                connection.connect()
            phase = "write"
            connection.sock.settimeout(phases["write"])
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a server that refuses early may say why
                connection.sock.sendall(_head(method, target, headers))
                view = memoryview(content)  # apart from the head: the server wakes up while it is sent
                while view:
                    view = view[connection.sock.send(view) :]
            phase = "read"
            connection.sock.settimeout(phases["read"])
            response = http.client.HTTPResponse(connection.sock, method=method)
            response.begin()
            while 100 <= response.status < 200:  # a hint, before the answer itself
                response.headers = None  # type: ignore[assignment]  # as it was before it began
                response.begin()
            return Answer(self, connection, response, phases["read"])
        except BaseException as error:
            for opened in (response, connection):
                if opened is not None:
                    opened.close()
            self._free.release()
            if (told := _told(error, phase)) is None:
                raise
            raise told from error

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _made(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)

    def _taken(self) -> http.client.HTTPConnection | None:
        """One that was kept, and that the server has not closed meanwhile."""
        now = time.monotonic()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if now - since < KEPT_FOR and not _readable(connection):
                return connection
            connection.close()

    def _given_back(self, connection: http.client.HTTPConnection, whole: bool) -> None:
        now, surplus = time.monotonic(), list[http.client.HTTPConnection]()
        with self._lock:
            if whole and connection.sock is not None:
                self._idle.append((now, connection))
            else:
                surplus.append(connection)
            while self._idle and (len(self._idle) > self._kept or now - self._idle[0][0] >= KEPT_FOR):
                surplus.append(self._idle.pop(0)[1])
        for one in surplus:
            one.close()
        self._free.release()


class Answer:
    """One that has begun: its status and headers are there."""

    def __init__(
        self, owner: Connections, connection: http.client.HTTPConnection, response: http.client.HTTPResponse,
        timeout: float | None,
    ) -> None:  # fmt: skip
        self.status = response.status
        self._owner, self._connection, self._response, self._timeout = owner, connection, response, timeout

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self._response.getheaders()

    @property
    def packed(self) -> bool:
        return self._response.headers.get("content-encoding") is not None

    def piece(self, within: float | None) -> bytes:
        """More of the content, at most `within` seconds later; nothing at the end."""
        try:
            if within is not None and self._connection.sock is not None:
                self._connection.sock.settimeout(within if self._timeout is None else min(within, self._timeout))
            response = self._response
            if response.chunked:
                return response.read1(_PIECE)
            ahead = response.peek(_PIECE)  # one call to the system at most: `read` would wait for all that is asked for
            if not ahead and response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return response.read(len(ahead)) if ahead else b""
        except BaseException as error:
            if (told := _told(error, "read")) is None:
                raise
            raise told from error

    def rest(self) -> bytes:
        """All that is left of the content."""
        try:
            return self._response.read()
        except BaseException as error:
            if (told := _told(error, "read")) is None:
                raise
            raise told from error

    def close(self) -> None:
        whole = self._response.isclosed()
        if not whole:
            self._response.close()
        self._owner._given_back(self._connection, whole and not self._response.will_close)


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise httpx2.LocalProtocolError("a line break in a header")
    return head.encode("ascii")


def _told(error: BaseException, phase: str) -> Exception | None:
    """None: nothing to do with the network."""
    if isinstance(error, TimeoutError):
        return _SLOW[phase](str(error))
    if isinstance(error, http.client.RemoteDisconnected):
        return httpx2.RemoteProtocolError("Server disconnected without sending a response.")
    if isinstance(error, http.client.HTTPException):
        return httpx2.RemoteProtocolError(f"{type(error).__name__}: {error}")
    if isinstance(error, OSError):
        return _BROKEN[phase](str(error) or type(error).__name__)
    return None


def _readable(connection: Any) -> bool:
    """Of a connection that should be silent: the server closed it, or says what nobody asked for."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))

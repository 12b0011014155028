"""Sockets on an asyncio event loop for httpcore2's pools, which see to all else that a client needs.

Two things are done otherwise than in those that come with it, which serve any kind of event loop. A plain
`asyncio.Protocol` receives. And what is written is held until something is read, so that the head and the body of a
request leave together: one call to the system, one packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore2

_HELD = 1 << 16
"""Bytes that are held back at most."""
_AHEAD = 1 << 18
"""Bytes that are received ahead of the reader."""


class LoopSockets(httpcore2.AsyncNetworkBackend):
    """For callers on an asyncio event loop."""

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:  # fmt: skip
        loop = asyncio.get_running_loop()
        source = None if local_address is None else (local_address, 0)
        with _said(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            async with asyncio.timeout(timeout):
                # Of several addresses of a name, one that is dead must not keep the others waiting (RFC 8305).
                delay = None if _is_address(host) else 0.25
                transport, received = await loop.create_connection(
                    _Received, host, port, local_addr=source, happy_eyeballs_delay=delay
                )
        return _LoopStream(transport, received)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Received(asyncio.Protocol):
    """What has arrived and was not read, and whether more may come. One reader at a time."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.lost: Exception | None = None
        self.closed = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._full: asyncio.Future[None] | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > _AHEAD and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended, self.lost = True, error
        self.resume_writing()
        self._wake()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._full = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._full is not None and not self._full.done():
            self._full.set_result(None)
        self._full = None

    async def room(self) -> None:
        """Waits while more is written than the system takes."""
        if self._full is not None:
            await self._full
        if self.lost is not None:
            raise self.lost

    async def some(self, most: int) -> bytes:
        """What is there, once there is something; nothing at the end."""
        while not self.data and not self.ended:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if not self.data and self.lost is not None:
            raise self.lost
        taken = bytes(self.data[:most])
        del self.data[:most]
        if self._paused and len(self.data) <= _AHEAD // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return taken

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _LoopStream(httpcore2.AsyncNetworkStream):
    def __init__(self, transport: asyncio.Transport, received: _Received) -> None:
        self._transport = transport
        self._received = received
        self._held = bytearray()
        self._timeout: float | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._timeout = timeout
        self._held += buffer
        if len(self._held) > _HELD:
            await self._flush()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            with contextlib.suppress(httpcore2.WriteError):
                await self._flush()
        with _said(httpcore2.ReadTimeout, httpcore2.ReadError):
            if self._received.data or timeout is None:
                return await self._received.some(max_bytes)
            async with asyncio.timeout(timeout):
                return await self._received.some(max_bytes)

    async def _flush(self) -> None:
        data, self._held = self._held, bytearray()
        with _said(httpcore2.WriteTimeout, httpcore2.WriteError):
            if self._received.ended and self._received.lost is not None:
                raise self._received.lost
            self._transport.write(data)
            async with asyncio.timeout(self._timeout):
                await self._received.room()

    async def aclose(self) -> None:
        self._transport.abort()  # nothing is left to be said
        await self._received.closed

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        with _said(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            try:
                async with asyncio.timeout(timeout):
                    transport = await loop.start_tls(
                        self._transport, self._received, ssl_context, server_hostname=server_hostname
                    )
            except BaseException:
                self._transport.abort()
                raise
        assert transport is not None
        self._received.connection_made(transport)
        return _LoopStream(transport, self._received)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of a connection that should be silent: it ended, or says what nobody asked for
            return bool(self._received.data) or self._received.ended
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _said(slow: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """asyncio's errors in httpcore2's words."""
    try:
        yield
    except TimeoutError as error:
        raise slow(str(error)) from error
    except OSError as error:
        raise broken(str(error) or type(error).__name__) from error

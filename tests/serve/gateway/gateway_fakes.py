"""A fake provider on loopback that does what the test says, also what no provider should do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Act = Callable[["Exchange"], Any]
"""A coroutine function that answers one request."""


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


@dataclass
class Exchange:
    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    provider: Provider
    keep: bool = True

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Returns when the other side has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.provider.gone.set()
        self.keep = False


@dataclass
class Provider:
    """Answers each request by the next act of `script`; the last one stays."""

    script: list[Act]
    requests: list[Request] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append(Request(head[0].split()[1], headers, body))
                act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                exchange = Exchange(self.requests[-1], reader, writer, self)
                await act(exchange)
                if not exchange.keep:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@contextlib.contextmanager
def running(*script: Act, tls: ssl.SSLContext | None = None) -> Iterator[Provider]:
    """A provider in a thread of its own."""
    provider = Provider(list(script))
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    servers: list[asyncio.Server] = []

    async def start() -> None:
        servers.append(await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=tls))
        host, port = servers[0].sockets[0].getsockname()
        provider.url = f"{'http' if tls is None else 'https'}://{host}:{port}/v1"
        ready.set()

    async def stop() -> None:
        servers[0].close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(stop())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


# acts -----------------------------------------------------------------------------------------------------------------


def answer(text: str = "four", **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 1,
        "model": "small-2026-01-01",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        **more,
    }


def whole(value: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Act:
    """A complete JSON answer."""

    async def act(exchange: Exchange) -> None:
        body = value if isinstance(value, bytes) else json.dumps(answer() if value is None else value).encode()
        await exchange.send(head(status, {"Content-Type": "application/json", **(headers or {})}, len(body)) + body)

    return act


def error(status: int, message: str = "no", headers: Mapping[str, str] | None = None) -> Act:
    return whole(
        {"error": {"message": message, "type": "x", "param": None, "code": None}}, status=status, headers=headers
    )


def chunk(content: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "chatcmpl-8",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "small",
        "choices": [choice],
        **more,
    }


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


USAGE = {**chunk(), "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
DONE = b"data: [DONE]\n\n"
ROLE = event(chunk("", choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]))
PIECES = [event(chunk("fo")), event(chunk("ur")), event(chunk(finish="stop"))]


def stream(*pieces: bytes, then: str = "end", delay: float = 0.0) -> Act:
    """Events in chunks. `then`: end (of the chunks), cut (the connection), stall (until the other side leaves)."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(head(200, {"Content-Type": "text/event-stream"}, None))
        for piece in pieces:
            await exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(delay)
        if then == "end":
            await exchange.send(b"0\r\n\r\n")
        elif then == "stall":
            await exchange.until_gone()
        else:
            exchange.keep = False

    return act


def good_stream(*, usage: bool = True) -> Act:
    """As providers do: usage only for those who ask for it."""

    async def act(exchange: Exchange) -> None:
        options = exchange.request.json.get("stream_options") or {}
        extra = [event(USAGE)] if usage and options.get("include_usage") else []
        await stream(*PIECES, *extra, DONE)(exchange)

    return act


async def stall(exchange: Exchange) -> None:
    """Says nothing until the other side leaves."""
    await exchange.until_gone()


async def hang_up(exchange: Exchange) -> None:
    """Closes the connection without an answer."""
    exchange.keep = False


def raw(data: bytes) -> Act:
    """These bytes, then the end of the connection."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.keep = False

    return act


def head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    size = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in {**headers, **size}.items()), "", ""]
    return "\r\n".join(lines).encode()

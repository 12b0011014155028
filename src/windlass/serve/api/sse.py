"""Server-sent events. The first event is awaited before the status is sent, so that a refusal is a real error.

A failure later on is sent as an event of its own, which OpenAI's clients raise; the stream then ends without its
ordinary end, so that nobody takes half an answer for a whole one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from json.encoder import encode_basestring_ascii as encode_text
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from windlass.serve.api.fields import Json
from windlass.serve.connection import SENT, WRITE
from windlass.serve.errors import error_json, error_response
from windlass.serve.work import ClientGone

DONE = b"data: [DONE]\n\n"
READ_SECONDS = 60.0
"""How long a client may leave what was sent unread before it counts as gone."""


encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def event(value: Json, name: str | None = None) -> bytes:
    """One event, in ASCII, so that nothing a model made up can fail to encode."""
    data = encode(value)
    return (f"data: {data}\n\n" if name is None else f"event: {name}\ndata: {data}\n\n").encode()


class Template:
    """An event of which only one text varies: all else is encoded once."""

    BLANK = "\0"

    def __init__(self, event: bytes) -> None:
        """`event`: with `BLANK` in place of the text."""
        self._before, _, self._behind = event.decode().rpartition(encode_text(self.BLANK))

    def filled(self, text: str) -> bytes:
        return f"{self._before}{encode_text(text)}{self._behind}".encode()


Put = Callable[[bytes], None]


def _failed(error: Exception) -> bytes:
    return event(error_json(error))


class EventStream(Response):
    """Sends the events that `work` puts, as they come. `failed` makes the event of an error after the first one."""

    media_type = "text/event-stream"

    def __init__(
        self, work: Callable[[Put], Coroutine[Any, Any, None]], failed: Callable[[Exception], bytes] = _failed
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._work = work
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = _Events(scope, send)
        working = asyncio.create_task(self._work(events.put))
        working.add_done_callback(events.wake)
        try:
            await events.come.wait()
            if not events.held and isinstance(error := working.exception(), Exception):
                if not isinstance(error, ClientGone):
                    await error_response(error)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while events.held or not working.done():
                await events.send()
            error = working.exception()
            if isinstance(error, ClientGone):
                return
            if isinstance(error, Exception):
                events.put(self._failed(error))
                await events.send()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientGone:
            return
        finally:
            scope[SENT] = events.sent
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


class _Events:
    """What was put and is to be sent: at once and past this task, where the server can do that and the client has read
    what came before; else it is held for `send`."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._now: Callable[[bytes], bool] | None = (scope.get("extensions") or {}).get(WRITE)
        self._send = send
        self._idle = False
        """Whether the task waits for what comes, and has nothing to send."""
        self.held: list[bytes] = []
        self.come = asyncio.Event()
        self.sent = 0
        """Bytes that were sent past the task."""

    def put(self, data: bytes) -> None:
        if not data:
            return  # an empty chunk would end the body
        if self._idle and self._now is not None and self._now(data):
            self.sent += len(data)
        else:
            self._idle = False
            self.held.append(data)
            self.come.set()

    def wake(self, ended: object) -> None:
        self._idle = False
        self.come.set()

    async def send(self) -> None:
        """Sends what is held, or waits until there is something. Raises `ClientGone` when the client leaves it
        unread."""
        if not self.held:
            self.come.clear()
            self._idle = True
            await self.come.wait()
            return
        data, self.held = b"".join(self.held), []
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise ClientGone from None

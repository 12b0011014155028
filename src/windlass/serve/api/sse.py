"""Server-sent events. The first event is awaited before the status is sent, so that a refusal is a real error.

A failure later on is sent as an event of its own, which OpenAI's clients raise; the stream then ends without its
ordinary end, so that nobody takes half an answer for a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from windlass.serve.api.fields import Json
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


def _failed(error: Exception) -> bytes:
    return event(error_json(error))


class EventStream(Response):
    """Sends `events` as they come. `failed` makes the event of an error after the first one."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], failed: Callable[[Exception], bytes] = _failed) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            try:
                first = await anext(events)
            except ClientGone:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a well-formed answer
                await error_response(error)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with contextlib.suppress(ClientGone):
                async with _writing(send) as write:
                    try:
                        await write(first)
                        async for data in events:
                            await write(data)
                    except ClientGone:
                        raise
                    except Exception as error:  # noqa: BLE001 - as above
                        await write(self._failed(error))
                await send({"type": "http.response.body", "body": b"", "more_body": False})


@contextlib.asynccontextmanager
async def _writing(send: Send) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Sends the pieces of a body, waiting while the client has too much unread; raises `ClientGone` when it stays so.

    One task looks after all pieces: a timer for each would cost as much as sending it.
    """
    loop = asyncio.get_running_loop()
    since: float | None = None  # when the piece was begun that is being sent

    async def write(data: bytes) -> None:
        nonlocal since
        since = loop.time()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        since = None

    async def watch() -> None:
        while since is None or loop.time() < since + READ_SECONDS:
            await asyncio.sleep(READ_SECONDS if since is None else since + READ_SECONDS - loop.time())
        limit.reschedule(loop.time())

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(None) as limit:
            yield write
    except TimeoutError:
        raise ClientGone from None
    finally:
        watching.cancel()

"""One HTTP connection, with limits on how long a request's head may take and how large it may be, and a short way out.

uvicorn limits how long a connection may be idle after an answer, but a client that never finishes its first request
line would hold one for ever (the Slowloris attack), and one that never ends a header would fill the memory.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from windlass.serve.errors import HttpError, error_json

HEAD_SECONDS = 20.0
"""From the connection, or from the first byte of a further request, to the end of that request's head."""

HEAD_BYTES = 64 << 10

WRITE = "windlass.write"
"""Extension of an ASGI scope: `write(data)` sends a part of a body at once, without a coroutine. False: it cannot, as
the client has not read what came before, and `send` is to be awaited. For what comes often and is small: the ways of
`send` through the application, the middleware and the server take as long as the write itself."""

SENT = "windlass.sent"
"""In a scope: bytes of the body that were sent so, which no middleware has seen."""


def write(cycle: RequestResponseCycle, data: bytes) -> bool:
    if cycle.flow.write_paused or not cycle.chunked_encoding:
        return False
    if not cycle.disconnected:
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    return True


class Connection(HttpToolsProtocol):
    _waiting: asyncio.TimerHandle | None = None
    _head = 0
    """Bytes received of a head that is not complete."""
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._head += len(data) if self._in_head else 0
        super().data_received(data)
        if self._in_head and self._head > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The request's head has more than {HEAD_BYTES:,} bytes.")
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """In the shape of every other error, also to what is no HTTP or has a method that HTTP does not know."""
        body = json.dumps(error_json(HttpError(400, msg))).encode()
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            extensions: dict[str, Any] = {WRITE: partial(write, self.cycle)}
            self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head = True, 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._stop()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def on_response_complete(self) -> None:
        super().on_response_complete()  # from here uvicorn's own limit on idle connections holds
        self._stop()

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

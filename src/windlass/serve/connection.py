"""One HTTP connection, with a limit on how long a request's head may take.

uvicorn limits how long a connection may be idle after an answer, but a client that never finishes its first request
line would hold one for ever (the Slowloris attack).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""From the connection, or from the first byte of a further request, to the end of that request's head."""


class Connection(H11Protocol):
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

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

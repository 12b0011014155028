"""Event streams: a client that reads nothing is given up, a model that writes slowly is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

pytest.importorskip("starlette")

from windlass.serve.api import sse
from windlass.serve.api.sse import EventStream
from windlass.serve.work import ClientGone


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "READ_SECONDS", 0.1)


class Events:
    def __init__(self, pause: float, failing: Exception | None = None) -> None:
        self.pause, self.failing = pause, failing
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes]:
        try:
            for number in range(3):
                await asyncio.sleep(self.pause)
                yield b"%d" % number
            if self.failing is not None:
                raise self.failing
        finally:
            self.closed = True


def sent(events: Events, stuck_at: int | None = None) -> list[bytes]:
    """The pieces of the body that a client gets; it stops reading at one of them."""
    pieces: list[bytes] = []

    async def send(message: Any) -> None:
        if "body" in message:
            if len(pieces) == stuck_at:
                await asyncio.Event().wait()
            pieces.append(message["body"])

    async def receive() -> Any:
        raise AssertionError("nobody asks")

    asyncio.run(EventStream(events(), lambda error: b"failed")({"type": "http"}, receive, send))
    return pieces


def test_a_slow_model_is_waited_for() -> None:
    assert sent(Events(pause=0.15)) == [b"0", b"1", b"2", b""]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_client_that_reads_nothing_is_given_up(at: int) -> None:
    events = Events(pause=0.02)
    assert sent(events, stuck_at=at) == [b"0", b"1", b"2"][:at]
    assert events.closed


def test_a_failure_is_an_event_and_a_client_gone_is_none() -> None:
    assert sent(Events(0.0, TimeoutError())) == [b"0", b"1", b"2", b"failed", b""]
    assert sent(Events(0.0, ClientGone())) == [b"0", b"1", b"2"]


def test_a_client_that_does_not_read_of_a_failure_is_given_up_too() -> None:
    assert sent(Events(0.0, ValueError()), stuck_at=3) == [b"0", b"1", b"2"]

"""Event streams: a client that reads nothing is given up, a model that writes slowly is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette")

from windlass.serve.api import sse
from windlass.serve.api.sse import EventStream, Put, Template, event
from windlass.serve.connection import SENT, WRITE
from windlass.serve.work import ClientGone


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "READ_SECONDS", 0.1)


class Events:
    def __init__(self, pause: float, failing: Exception | None = None) -> None:
        self.pause, self.failing = pause, failing
        self.closed = False

    async def __call__(self, put: Put) -> None:
        try:
            for number in range(3):
                await asyncio.sleep(self.pause)
                put(b"%d" % number)
            if self.failing is not None:
                raise self.failing
        finally:
            self.closed = True


def sent(events: Events, stuck_at: int | None = None, write: Callable[[bytes], bool] | None = None) -> list[bytes]:
    """The pieces of the body that a client gets; it stops reading at one of them."""
    pieces: list[bytes] = []

    async def send(message: Any) -> None:
        if "body" in message:
            if len(pieces) == stuck_at:
                await asyncio.Event().wait()
            pieces.append(message["body"])

    def now(data: bytes) -> bool:
        assert write is not None
        if write(data):
            pieces.append(b"now " + data)
            return True
        return False

    async def receive() -> Any:
        raise AssertionError("nobody asks")

    scope: dict[str, Any] = {"type": "http"} | ({"extensions": {WRITE: now}} if write is not None else {})
    asyncio.run(EventStream(events, lambda error: b"failed")(scope, receive, send))
    assert scope[SENT] == sum(len(piece) - 4 for piece in pieces if piece.startswith(b"now "))
    return pieces


def test_a_slow_model_is_waited_for() -> None:
    assert sent(Events(pause=0.15)) == [b"0", b"1", b"2", b""]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_client_that_reads_nothing_is_given_up(at: int) -> None:
    events = Events(pause=0.02)
    assert sent(events, stuck_at=at) == [b"0", b"1", b"2"][:at]
    assert events.closed


def test_a_failure_is_an_event_and_a_client_gone_is_none() -> None:
    assert sent(Events(0.01, TimeoutError())) == [b"0", b"1", b"2", b"failed", b""]
    assert sent(Events(0.01, ClientGone())) == [b"0", b"1", b"2"]


def test_a_client_that_does_not_read_of_a_failure_is_given_up_too() -> None:
    assert sent(Events(0.01, ValueError()), stuck_at=3) == [b"0", b"1", b"2"]


def test_what_the_client_keeps_up_with_goes_past_the_task() -> None:
    assert sent(Events(0.01), write=lambda data: True) == [b"0", b"now 1", b"now 2", b""]


def test_what_the_server_cannot_send_at_once_is_held_in_order() -> None:
    assert sent(Events(0.01), write=lambda data: data != b"1") == [b"0", b"1", b"now 2", b""]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_client_that_stops_reading_is_given_up_there_too(at: int) -> None:
    events = Events(0.01)
    assert sent(events, stuck_at=at, write=lambda data: False) == [b"0", b"1", b"2"][:at]
    assert events.closed


def test_nothing_is_no_event() -> None:
    async def work(put: Put) -> None:
        put(b"")
        put(b"all")

    assert sent(work, write=lambda data: True) == [b"all", b""]  # type: ignore[arg-type]


@given(st.text())
def test_a_template_is_the_event_with_its_text(text: str) -> None:
    def made(text: str) -> bytes:
        return event({"model": "a \0 b", "choices": [{"text": text, "logprobs": None}], "usage": None})

    assert Template(made(Template.BLANK)).filled(text) == made(text)

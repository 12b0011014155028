from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("torch")

from windlass.serve.engine.request import PATIENCE, Generation, Running
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.sampling.token import Token


def running() -> tuple[Running, list[int]]:
    woken: list[int] = []
    return Running(Generation(prompt=[1], max_tokens=3, sampling=Sampling()), lambda: woken.append(1)), woken


def test_waiting_is_worth_priority():
    early, urgent = (Generation(prompt=[1], max_tokens=1, sampling=Sampling(), priority=p) for p in (3, 0))
    assert early.due(0.0) < urgent.due(3 * PATIENCE + 0.1), "it has waited long enough"
    assert urgent.due(3 * PATIENCE - 0.1) < early.due(0.0) and urgent.due(1.0) < urgent.due(2.0)


def test_tokens_come_as_they_are_written_and_then_the_end():
    it, _ = running()
    seen: list[Token] = []
    reader = threading.Thread(target=lambda: seen.extend(it))
    reader.start()
    it.deliver(Token(5))
    while not seen:
        time.sleep(0.001)
    assert reader.is_alive() and not it.wait(0)
    it.deliver(Token(6, -0.5, ((6, -0.5),)))
    it.end("length")
    reader.join()
    assert [token.id for token in seen] == [5, 6]
    assert it.finish == "length" and it.wait()
    assert list(it) == []


def test_what_went_wrong_is_raised_at_every_look():
    it, _ = running()
    it.end("error", RuntimeError("out of memory"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(it)


def test_cancelling_wakes_the_engine_and_is_left_to_it():
    it, woken = running()
    it.cancel()
    assert it.cancelled and woken == [1] and it.finish is None


def test_a_request_ends_once():
    it, _ = running()
    it.end("stop")
    with pytest.raises(AssertionError):
        it.end("cancelled")

"""Models that stand in for each other: who is asked, who is spared, and what reaches the caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.apply.provider_world import ask

from windlass.apply.providers.pool import Pool
from windlass.core.errors import ConfigError, ProviderError, TimedOut, Unsupported
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest
from windlass.testing import Scripted

DOWN = ProviderError("down", status=503)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_next_is_asked_and_the_trace_says_why() -> None:
    first, second = Scripted(DOWN, DOWN, name="first"), Scripted("yes", "yes", name="second")
    pool = Pool([first, second])
    assert isinstance(pool, ChatModel) and isinstance(pool, AsyncChatModel) and pool.name == "first+second"
    with Recorder(None).span("call") as span:
        assert pool.complete(ask()).message.text == "yes"
    assert span.attributes["windlass.fallbacks"] == ["first: down"]
    assert asyncio.run(pool.acomplete(ask())).model == "second"
    assert len(first.requests) == len(second.requests) == 2


@pytest.mark.parametrize(
    "error", [ProviderError("bad schema", status=400), Unsupported("no seed"), ValueError("a bug"), KeyboardInterrupt()]
)
def test_what_is_no_fault_of_the_model_is_not_tried_elsewhere(error: Any) -> None:
    def fail(request: ChatRequest) -> str:
        raise error

    second = Scripted("yes")
    with pytest.raises(type(error)):
        Pool([Scripted(fail), second]).complete(ask())
    assert second.requests == []


def test_the_last_failure_is_raised() -> None:
    with pytest.raises(TimedOut):
        Pool([Scripted(DOWN), Scripted(TimedOut("late"))]).complete(ask())


def test_a_model_that_keeps_failing_is_spared_and_tried_again_by_one_call() -> None:
    clock = Clock()
    first, second = Scripted(DOWN, DOWN, DOWN, "back", "well"), Scripted(*["stand-in"] * 4)
    pool = Pool([first, second], failures=2, pause=10, clock=clock)
    assert [pool.complete(ask()).message.text for _ in range(3)] == ["stand-in"] * 3
    assert len(first.requests) == 2, "the third call did not ask it"
    clock.now = 11
    assert pool.complete(ask()).message.text == "stand-in" and len(first.requests) == 3
    clock.now = 22
    assert [pool.complete(ask()).message.text for _ in range(2)] == ["back", "well"]


def test_while_one_call_tries_it_the_others_keep_away() -> None:
    clock = Clock()
    asked = 0

    def slow(request: ChatRequest) -> str:
        nonlocal asked
        asked += 1
        assert pool.complete(ask()).message.text == "stand-in"  # another call meanwhile
        return "back"

    first, second = Scripted(DOWN, slow), Scripted("stand-in", "stand-in")
    pool = Pool([first, second], failures=1, pause=10, clock=clock)
    pool.complete(ask())
    clock.now = 11
    assert pool.complete(ask()).message.text == "back" and asked == 1


def test_when_all_are_spared_somebody_is_asked() -> None:
    pool = Pool([Scripted(DOWN, DOWN, "yes")], failures=1, pause=1000)
    for _ in range(2):
        with pytest.raises(ProviderError):
            pool.complete(ask())
    assert pool.complete(ask()).message.text == "yes"


def test_a_stream_that_has_begun_is_not_begun_again_elsewhere() -> None:
    class Breaking(Scripted):
        def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
            yield ChatDelta("half ")
            raise DOWN

    second = Scripted("whole")
    with pytest.raises(ProviderError):
        list(Pool([Breaking(), second]).stream(ask()))
    assert second.requests == []
    assert "".join(d.text for d in Pool([Scripted(DOWN), second]).stream(ask())) == "whole"

    async def read(pool: Pool) -> str:
        return "".join([delta.text async for delta in pool.astream(ask())])

    assert asyncio.run(read(Pool([Scripted(DOWN), Scripted("whole")]))) == "whole"


def test_calls_are_shared_by_weight() -> None:
    models = [Scripted(*["x"] * 900, name=name) for name in "ab"]
    pool = Pool(models, balance=True, weights=[3, 1])
    seen = Counter(pool.complete(ask()).model for _ in range(900))
    assert 0.65 < seen["a"] / 900 < 0.85  # 7 standard deviations around 3/4


def test_pools_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Pool([])
    with pytest.raises(ConfigError, match="weights above 0"):
        Pool([Scripted()], weights=[0])
    assert Pool([Scripted(), Scripted(structured="tool")]).structured == "tool"

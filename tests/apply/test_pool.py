"""Models that stand in for each other: who is asked, who is spared, and what reaches the caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.apply.provider_world import ask

from windlass.apply.wrappers.budget import OverBudget
from windlass.apply.wrappers.pool import Pool
from windlass.core.errors import ConfigError, ProviderError, TimedOut, TooLong, Unsupported
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


def test_the_last_failure_is_raised_and_names_all() -> None:
    with pytest.raises(TimedOut) as caught:
        Pool([Scripted(DOWN, name="first"), Scripted(TimedOut("late", "Wait."), name="second")]).complete(ask())
    assert caught.value.message == "No model of the pool answered. first: down second: late"
    assert caught.value.hint == "Wait." and isinstance(caught.value.__cause__, TimedOut)
    assert DOWN.message == "down", "what the models raised stays as it was"
    with pytest.raises(ProviderError, match=r"^down$"):
        Pool([Scripted(DOWN)]).complete(ask())


POOR, LONG = OverBudget("all spent", "Raise it."), TooLong("5 tokens too long", "Shorten it.", 5)


@pytest.mark.parametrize("error", [POOR, LONG])
def test_who_has_no_means_or_no_room_is_passed_over(error: Exception) -> None:
    clock = Clock()
    first, second = Scripted(*[error] * 4, name="first"), Scripted(*["yes"] * 4, name="second")
    pool = Pool([first, second], failures=1, clock=clock)
    with Recorder(None).span("call") as span:
        assert pool.complete(ask()).message.text == "yes"
    assert span.attributes["windlass.fallbacks"] == [f"first: {error.args[0]}"]
    assert asyncio.run(pool.acomplete(ask())).model == "second"
    assert "".join(delta.text for delta in pool.stream(ask())) == "yes"

    async def read() -> str:
        return "".join([delta.text async for delta in pool.astream(ask())])

    assert asyncio.run(read()) == "yes"
    assert len(first.requests) == 4, "that is no failure: it is asked each time"


@pytest.mark.parametrize(
    ("answers", "kind", "status"),
    [
        ([POOR, LONG], TooLong, None),
        ([DOWN, POOR], ProviderError, 503),  # what may be over later goes before what will not
        ([POOR, TimedOut("late"), LONG], TimedOut, None),
    ],
)
def test_where_nobody_may_answer_each_is_named_with_its_reason(answers: Any, kind: Any, status: Any) -> None:
    models = [Scripted(answer, name=f"m{n}") for n, answer in enumerate(answers)]
    with pytest.raises(kind) as caught:
        Pool(models).complete(ask())
    told = caught.value.message
    assert all(f"m{n}: {answer.message}" in told for n, answer in enumerate(answers))
    assert getattr(caught.value, "status", None) == status and getattr(caught.value, "by", 5) == 5


def test_who_is_spared_is_asked_before_nobody_is() -> None:
    small = Scripted("short", LONG, "short", ProviderError("worse"), name="small")
    large = Scripted(DOWN, "long", DOWN, name="large")
    pool = Pool([large, small], failures=1, pause=1000)
    assert pool.complete(ask()).message.text == "short", "the large one fails, and is spared"
    assert pool.complete(ask()).message.text == "long", "as the small one has no room"
    assert pool.complete(ask()).message.text == "short"  # the large one fails once more
    with pytest.raises(ProviderError, match=r"small: worse large: spared, as it failed 1 times in a row\.$"):
        pool.complete(ask())


def test_a_trial_that_was_passed_over_is_none() -> None:
    clock = Clock()
    first, second = Scripted(DOWN, POOR, "back", name="first"), Scripted(*["stand-in"] * 2, name="second")
    pool = Pool([first, second], failures=1, pause=10, clock=clock)
    pool.complete(ask())
    clock.now = 11
    assert pool.complete(ask()).message.text == "stand-in"
    assert pool.complete(ask()).message.text == "back", "the next call tries it, not one of the next pause"


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

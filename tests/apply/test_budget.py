"""Budgets: held back before a call, settled after it, seen by threads, tasks and processes."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.wrappers.budget import ASSUMED_OUTPUT, Budget, Budgeted, OverBudget
from windlass.apply.wrappers.ledger import Ledger, Slot, Spent, period
from windlass.apply.wrappers.pool import Pool
from windlass.core.errors import ConfigError, DiskFull, ProviderError, TimedOut, Unsupported
from windlass.core.pricing import Price
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, Usage
from windlass.testing import Scripted

PRICE = Price(input=1.0, output=10.0)  # dollars for a million tokens


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "budgets.db")
    yield made
    made.close()


def ask(**parameters: Any) -> ChatRequest:
    """Of 10 tokens, as estimated."""
    return ChatRequest([Message("user", "x" * 24)], **parameters)


def spent(model: Budgeted) -> Spent:
    (only,) = model.spent().values()
    return only


def test_a_call_is_charged_what_it_took(ledger: Ledger) -> None:
    model = Budgeted(
        Scripted("a", usage=Usage(input=12, output=3), cost_usd=0.5), Budget("b", dollars=1), ledger, price=PRICE
    )
    assert isinstance(model, ChatModel) and isinstance(model, AsyncChatModel) and model.name == "scripted"
    model.complete(ask())
    assert spent(model) == Spent(tokens=15, dollars=0.5, calls=1)


def test_while_it_runs_its_estimate_is_held(ledger: Ledger) -> None:
    seen: list[Spent] = []

    def look(request: ChatRequest) -> str:
        seen.append(spent(model))
        return "a"

    model = Budgeted(Scripted(look, look, usage=Usage(input=1, output=1)), Budget("b", tokens=5000), ledger)
    model.complete(ask(max_tokens=50))
    model.complete(ask())
    assert seen[0] == Spent(tokens_held=60, calls=1)
    assert seen[1].tokens_held == 10 + ASSUMED_OUTPUT


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget("b", tokens=59), "The budget 'b' of 59 tokens a day .* it may take 60 tokens"),
        (Budget("b", dollars=0.0005, per="month"), r"of \$0.0005 a month .* \$0 spent, .* it may take \$0.00051"),
        (Budget("b", dollars=0.0005, tokens=100, per="ever"), "in all"),
    ],
)
def test_what_does_not_fit_is_not_asked(ledger: Ledger, budget: Budget, said: str) -> None:
    inner = Scripted("a")
    model = Budgeted(inner, budget, ledger, price=PRICE)
    for ask_it in (
        lambda: model.complete(ask(max_tokens=50)),
        lambda: [*model.stream(ask(max_tokens=50))],
        lambda: asyncio.run(model.acomplete(ask(max_tokens=50))),
    ):
        with pytest.raises(OverBudget, match=said):
            ask_it()
    assert inner.requests == [] and spent(model) == Spent()
    model.complete(ask(max_tokens=20))


def test_a_limit_can_be_used_up_exactly(ledger: Ledger) -> None:
    model = Budgeted(Scripted(*"abcd", usage=Usage(input=10, output=20)), Budget("b", tokens=90), ledger)
    for _ in range(3):
        model.complete(ask(max_tokens=20))
    with pytest.raises(OverBudget, match="90 tokens spent"):
        model.complete(ask(max_tokens=20))


def test_several_budgets_are_charged_all_or_none(ledger: Ledger) -> None:
    inner = Scripted("a", "b", usage=Usage(input=10, output=20))
    model = Budgeted(inner, [Budget("wide", tokens=1000), Budget("narrow", tokens=40)], ledger)
    model.complete(ask(max_tokens=20))
    with pytest.raises(OverBudget, match="'narrow'"):
        model.complete(ask(max_tokens=20))
    assert {name: s.tokens for name, s in model.spent().items()} == {"wide": 30, "narrow": 30}
    assert {s.tokens_held for s in model.spent().values()} == {0} and {s.calls for s in model.spent().values()} == {1}


def test_a_name_is_a_name_for_all_models_and_days_have_their_own(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("windlass.apply.wrappers.budget.time.time", lambda: now)
    one, two = (Budgeted(Scripted(*"abc"), Budget("team", tokens=70), ledger) for _ in range(2))
    one.complete(ask(max_tokens=50))
    two.complete(ask(max_tokens=40))
    with pytest.raises(OverBudget):
        one.complete(ask(max_tokens=50))
    now += 86_400
    one.complete(ask(max_tokens=50))
    assert (period("day", 0), period("month", 0), period("ever", 0)) == ("1970-01-01", "1970-01", "")


def test_a_limit_in_dollars_needs_a_price(ledger: Ledger) -> None:
    inner = Scripted("a")
    with pytest.raises(ConfigError, match=r"price of 'scripted', asked for like this, is not known(.|\n)*\[prices"):
        Budgeted(inner, Budget("b", dollars=1), ledger).complete(ask())
    assert inner.requests == []
    model = Budgeted(inner, Budget("b", tokens=5000), ledger)
    model.complete(ask())
    assert spent(model).unpriced == 1  # nobody knows what it cost, which is not nothing


def test_prices_are_those_of_the_model_that_is_asked(ledger: Ledger) -> None:
    known = RemoteChat(Endpoint("https://api.openai.com/v1"), ChatCompletions("gpt-4o"))
    other = RemoteChat(Endpoint("https://api.openai.com/v1"), ChatCompletions("gpt-4o-mini"))
    usage = Usage(input=1_000_000, output=1_000_000)
    assert known.costs(usage, ask()) == 12.5 and Pool([other, known]).costs(usage, ask()) == 12.5
    assert Pool([known, Scripted()]).costs(usage, ask()) is None
    assert Budgeted(known, Budget("b", dollars=1), ledger).costs(usage, ask()) == 12.5


@pytest.mark.parametrize(
    "extra",
    [{"service_tier": "priority"}, {"service_tier": "flex"}, {"speed": "fast"}, {"inference_geo": "us"},
     {"cache_control": {"type": "ephemeral", "ttl": "1h"}}],
)  # fmt: skip
def test_what_is_sold_at_another_price_has_none_here(ledger: Ledger, extra: Any) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 100}
        return httpx2.Response(200, json={"id": "1", "model": "gpt-4o", "choices": [choice], "usage": usage})

    endpoint = Endpoint("https://api.openai.com/v1", transport=httpx2.MockTransport(answer))
    model = RemoteChat(endpoint, ChatCompletions("gpt-4o", extra=frozenset(extra)))
    assert model.complete(ask()).cost_usd == model.costs(Usage(input=1000, output=100), ask()) == 0.0035
    assert model.complete(ask(extra=extra)).cost_usd is None
    with pytest.raises(ConfigError, match="standard tier"):
        Budgeted(model, Budget("b", dollars=1), ledger).complete(ask(extra=extra))
    own = Budgeted(model, Budget("b", dollars=1), ledger, price=Price(input=5, output=20))
    own.complete(ask(extra=extra))
    assert spent(own).dollars == pytest.approx(0.007)


@pytest.mark.parametrize(
    ("error", "charged"),
    [
        (ProviderError("bad", status=400), 0),
        (ProviderError("down", status=503), 0),
        (Unsupported("no seed"), 0),
        (TimedOut("late"), 60),  # it may have been written, and paid
        (ProviderError("broke off", status=200), 60),
        (ProviderError("no answer"), 60),
        (KeyboardInterrupt(), 60),
    ],
)
def test_a_failure_costs_what_it_may_have_cost(ledger: Ledger, error: Any, charged: int) -> None:
    def fail(request: ChatRequest) -> str:
        raise error

    model = Budgeted(Scripted(fail), Budget("b", tokens=5000), ledger)
    with pytest.raises(type(error)):
        model.complete(ask(max_tokens=50))
    assert (spent(model).tokens, spent(model).tokens_held) == (charged, 0)


def test_a_call_that_never_arrived_is_free(ledger: Ledger) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    endpoint = Endpoint("http://model.example/v1", retries=0, transport=httpx2.MockTransport(refuse))
    model = Budgeted(RemoteChat(endpoint, ChatCompletions("m")), Budget("b", tokens=5000), ledger)
    with pytest.raises(ProviderError, match="cannot be reached"):
        model.complete(ask())
    assert spent(model) == Spent(calls=1)


def test_a_stream_is_charged_what_it_took_or_else_its_estimate(ledger: Ledger) -> None:
    model = Budgeted(
        Scripted("abcdef", "abcdef", "abcdef", usage=Usage(input=7, output=2)), Budget("b", tokens=5000), ledger
    )
    assert len([*model.stream(ask(max_tokens=50))]) == 3
    assert spent(model).tokens == 9
    stream = model.stream(ask(max_tokens=50))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert spent(model).tokens == 9 + 60

    async def some() -> None:
        async for delta in model.astream(ask(max_tokens=50)):
            if delta.response is not None:
                return

    asyncio.run(some())
    assert (spent(model).tokens, spent(model).tokens_held) == (9 + 60 + 9, 0)


def test_usage_that_nobody_reported_is_charged_as_estimated(ledger: Ledger) -> None:
    model = Budgeted(Scripted("a", usage=Usage()), Budget("b", dollars=1), ledger, price=PRICE)
    model.model._usage = Usage()  # type: ignore[union-attr]
    model.complete(ask(max_tokens=50))
    assert spent(model) == Spent(tokens=60, dollars=pytest.approx(0.00051), calls=1)  # type: ignore[arg-type]


def test_a_paid_answer_is_given_even_when_the_ledger_cannot_be_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise DiskFull("No space left.")

    model = Budgeted(Scripted("yes"), Budget("b", tokens=5000), ledger)
    monkeypatch.setattr(ledger, "settle", full)
    with pytest.warns(UserWarning, match="as it was estimated: No space left"):
        assert model.complete(ask(max_tokens=50)).message.text == "yes"
    assert spent(model).tokens_held == 60
    monkeypatch.setattr(ledger, "hold", full)
    with pytest.raises(DiskFull):  # before a call, nothing is lost yet
        model.complete(ask())


def test_threads_see_each_other(ledger: Ledger) -> None:
    together = threading.Barrier(4, timeout=60)

    def slow(request: ChatRequest) -> str:
        together.wait()  # all that were let through are under way at once
        return "a"

    model = Budgeted(Scripted(*[slow] * 16, usage=Usage(input=10, output=50)), Budget("b", tokens=240), ledger)

    def one(_: int) -> bool:
        try:
            model.complete(ask(max_tokens=50))
        except OverBudget:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(one, range(16))) == 4
    assert spent(model) == Spent(tokens=240, unpriced=4, calls=4)


class Waiting(Scripted):
    """Answers when it is told to."""

    def __init__(self, *answers: Any, **options: Any) -> None:
        super().__init__(*answers, **options)
        self.go = asyncio.Event()

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        await self.go.wait()
        return self.complete(request)

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        raise AssertionError("not streamed")
        yield ChatDelta()


def test_tasks_see_each_other_and_cancelling_settles(ledger: Ledger) -> None:
    async def run() -> None:
        inner = Waiting(*["a"] * 16, usage=Usage(input=10, output=50))
        model = Budgeted(inner, Budget("b", tokens=240), ledger)
        calls = [asyncio.create_task(model.acomplete(ask(max_tokens=50))) for _ in range(16)]
        while sum(call.done() for call in calls) < 12:  # those that were refused
            await asyncio.sleep(0.01)
        running = [call for call in calls if not call.done()]
        assert spent(model).tokens_held == 240
        running[0].cancel()
        inner.go.set()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(end).__name__ for end in ended].count("OverBudget") == 12
        assert spent(model) == Spent(tokens=240, unpriced=4, calls=4)  # the cancelled one as it was estimated

    asyncio.run(run())


def test_a_task_cancelled_while_it_waits_for_the_ledger_holds_nothing(ledger: Ledger) -> None:
    async def run() -> None:
        inner = Waiting("a")
        model = Budgeted(inner, Budget("b", tokens=5000), ledger)
        with ledger._turn:
            call = asyncio.create_task(model.acomplete(ask()))
            await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (spent(model).tokens, spent(model).tokens_held) == (0, 0) and inner.requests == []

    asyncio.run(run())


def test_a_task_cancelled_while_it_is_refused_loses_no_error(ledger: Ledger) -> None:
    lost: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: lost.append(context))
        model = Budgeted(Waiting("a"), Budget("b", tokens=1), ledger)
        with ledger._turn:
            call = asyncio.create_task(model.acomplete(ask()))
            await asyncio.sleep(0.05)
            call.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await call
        del call
        gc.collect()

    asyncio.run(run())
    assert lost == []


OTHER = """
import sys, time
from pathlib import Path
from windlass.apply.wrappers.budget import Budget, Budgeted, OverBudget
from windlass.apply.wrappers.ledger import Ledger
from windlass.core.values import ChatRequest, Message, Usage
from windlass.testing import Scripted
model = Budgeted(
    Scripted(*["a"] * 40, usage=Usage(input=10, output=50)), Budget("b", tokens=60 * 30), Ledger(Path(sys.argv[1]))
)
print("ready", flush=True)
sys.stdin.readline()
made = 0
for _ in range(40):
    try:
        model.complete(ChatRequest([Message("user", "x" * 24)], max_tokens=50))
        made += 1
    except OverBudget:
        break
    if len(sys.argv) > 2:
        print("under way", flush=True)
        model._hold(model._estimate(ChatRequest([Message("user", "x" * 24)], max_tokens=50)))
        time.sleep(600)
print(made, flush=True)
"""


def start(path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path), *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    return map(str.strip, process.stdout)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.close()


def test_processes_share_a_budget_and_never_pass_it(tmp_path: Path) -> None:
    path = tmp_path / "budgets.db"
    both = [start(path), start(path)]
    try:
        reading = [lines(process) for process in both]
        assert [next(read) for read in reading] == ["ready", "ready"]
        for process in both:
            go(process)
        made = [int(next(read)) for read in reading]
        assert sum(made) == 30
        assert [process.wait(timeout=60) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    slot = Slot("b", period("day", time.time()))
    assert Ledger(path).spent(slot).tokens == 60 * 30


def test_what_a_killed_process_had_under_way_stays_charged(tmp_path: Path) -> None:
    path = tmp_path / "budgets.db"
    process = start(path, "hold")
    try:
        read = lines(process)
        assert next(read) == "ready"
        go(process)
        assert next(read) == "under way"
        slot, ledger = Slot("b", period("day", time.time())), Ledger(path)
        deadline = time.monotonic() + 60
        while not ledger.spent(slot).tokens_held and time.monotonic() < deadline:
            pass
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert ledger.spent(slot) == Spent(tokens=60, tokens_held=60, unpriced=1, calls=2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dollars": 0.0},
        {"tokens": -1},
        {"dollars": float("nan")},
        {"dollars": float("inf")},
        {"tokens": 5, "per": "week"},
    ],
)
def test_budgets_that_cannot_be_are_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match="'b'"):
        Budget("b", **options)


def test_budgets_need_names_of_their_own(ledger: Ledger) -> None:
    for budgets in ([], [Budget(tokens=1)], [Budget("b", tokens=1), Budget("b", dollars=1)]):
        with pytest.raises(ConfigError):
            Budgeted(Scripted(), budgets, ledger)

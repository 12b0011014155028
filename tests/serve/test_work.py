"""Work beside an event loop: its limit in time, and what is read without waiting."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("starlette")

from windlass.serve.api.operation import forever
from windlass.serve.metrics import Metrics
from windlass.serve.work import Workers


def numbers(count: int, pause: float) -> Iterator[int]:
    for number in range(count):
        yield number
        time.sleep(pause)


async def read(count: int, pause: float, *, seconds: float) -> list[int]:
    workers, got = Workers(2, 0, Metrics()), []
    try:
        await workers.run([lambda: numbers(count, pause)], lambda _, number: got.append(number), forever, seconds)
    except TimeoutError:
        got.append(-1)
    finally:
        await workers.close()
    return got


def test_what_blocks_is_read_in_order_and_whole() -> None:
    assert asyncio.run(read(500, 0.0, seconds=30.0)) == list(range(500))


def test_what_takes_too_long_ends_with_what_there_is() -> None:
    got = asyncio.run(read(1_000, 0.01, seconds=0.2))
    assert got[:2] == [0, 1] and got[-1] == -1 and len(got) < 100


def test_what_takes_is_to_blame_where_it_fails() -> None:
    def take(index: int, number: int) -> None:
        raise ValueError("not this one")

    async def go() -> Workers:
        workers = Workers(1, 0, Metrics())
        with pytest.raises(ValueError, match="not this one"):
            await workers.run([lambda: numbers(1_000, 0.001)], take, forever, 30.0)
        await workers.close()
        return workers

    assert not asyncio.run(go())._taken


class Ticker:
    """Gives numbers that another thread makes, to whoever polls; `None` where there is none yet."""

    def __init__(self, count: int, *, pause: float = 0.0, error: BaseException | None = None) -> None:
        self.made: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.readers: set[int] = set()
        self.cancelled = self.closed = False
        self._count, self._pause, self._error = count, pause, error
        self._wake: Callable[[], None] = lambda: None
        self._begun = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise AssertionError("what can be polled is not waited for")

    def listen(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def poll(self) -> int | None:
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._make, daemon=True).start()
            time.sleep(0.02)  # numbers come before anybody can read them
            return None
        self.readers.add(threading.get_ident())
        try:
            number = self.made.get_nowait()
        except queue.Empty:
            return None
        if number is None:
            raise self._error or StopIteration
        return number

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        self.closed = True

    def _make(self) -> None:
        for number in [*range(self._count), None]:
            if not self.cancelled:
                self.made.put(number)
                self._wake()
                time.sleep(self._pause)


async def polled(*tickers: Ticker, leave_after: int | None = None) -> tuple[list[list[int]], Workers]:
    workers = Workers(1, len(tickers), Metrics())
    got: list[list[int]] = [[] for _ in tickers]
    leaving = asyncio.Event()

    def take(index: int, number: int) -> None:
        got[index].append(number)
        if leave_after is not None and sum(map(len, got)) >= leave_after:
            leaving.set()

    run = workers.run([lambda ticker=ticker: ticker for ticker in tickers], take, forever, 30.0)
    reading = asyncio.ensure_future(run)
    if leave_after is not None:
        await leaving.wait()
        reading.cancel()
        await asyncio.wait([reading])
    else:
        await reading
    return got, workers


def test_what_can_be_polled_is_read_on_the_event_loop_in_order_and_whole() -> None:
    tickers = [Ticker(300, pause=0.0), Ticker(50, pause=0.001), Ticker(0)]
    got, workers = asyncio.run(polled(*tickers))
    assert got == [list(range(300)), list(range(50)), []]
    assert all(ticker.readers == {threading.get_ident()} for ticker in tickers)
    assert not workers._taken and not workers._jobs


def test_a_reader_who_leaves_frees_the_place_at_once() -> None:
    ticker = Ticker(10_000, pause=0.001)
    got, workers = asyncio.run(polled(ticker, leave_after=3))
    assert got[0][:3] == [0, 1, 2] and ticker.cancelled and ticker.closed
    assert not workers._taken and not workers._jobs


def test_what_polling_raises_reaches_the_reader() -> None:
    ticker = Ticker(2, error=ValueError("the model broke"))
    with pytest.raises(ValueError, match="the model broke"):
        asyncio.run(polled(ticker))

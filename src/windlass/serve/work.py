"""Between the asyncio server and models that block: a few threads, a bounded queue before them, and cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.types import Receive

from windlass.core.protocols import Cancellable
from windlass.serve.errors import HttpError
from windlass.serve.metrics import Metrics

T = TypeVar("T")
IN_PROGRESS = "windlass_requests_in_progress"
CANCELLED = "windlass_requests_cancelled_total"


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


@dataclass(frozen=True, slots=True)
class _End:
    """An iterator's end; `error` is what it raised."""

    error: BaseException | None = None


class Workers:
    """Runs blocking iterators in threads, at most `running` at once and `waiting` more in line."""

    def __init__(self, running: int, waiting: int, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(running, thread_name_prefix="windlass-serve")
        self._places = running + waiting
        self._taken = 0
        self._metrics = metrics
        self._stops: set[_Stop] = set()
        metrics.declare(IN_PROGRESS, "gauge", "Requests being answered or waiting for their turn.")
        metrics.declare(CANCELLED, "counter", "Requests whose client left before the answer was complete.")
        metrics.add(IN_PROGRESS, 0)
        metrics.add(CANCELLED, 0)

    @contextlib.asynccontextmanager
    async def items(
        self, makes: Sequence[Callable[[], Iterator[T]]], receive: Receive, seconds: float
    ) -> AsyncIterator[AsyncIterator[tuple[int, T]]]:
        """(index, item) of what the iterators of `makes` yield, as it comes, while the client stays connected.

        When the block ends, for whatever reason, the iterators are cancelled, if they can be, or closed after the step
        they are in. Raises `HttpError` (429) when there is not a place for each of them, `ClientGone` when the client
        has left, and `TimeoutError` behind what they have yielded in so many `seconds`.
        """
        if self._taken + len(makes) > self._places:
            raise HttpError(429, "The server is busy: all places are taken.", "Try again soon.", code="busy")
        inbox: _Inbox[tuple[int, T | _End]] = _Inbox()
        stops = [_Stop() for _ in makes]
        watcher = asyncio.create_task(_disconnected(receive))

        def gone(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                inbox.put((0, _End(ClientGone())))

        watcher.add_done_callback(gone)
        late = asyncio.get_running_loop().call_later(seconds, inbox.put, (0, _End(TimeoutError())))
        for index, (make, stop) in enumerate(zip(makes, stops, strict=True)):
            self._start(index, make, stop, inbox)
        try:
            yield _until_end(inbox, len(makes))
        except ClientGone:
            self._metrics.add(CANCELLED)
            raise
        finally:
            for stop in stops:
                stop.set()
            watcher.cancel()
            late.cancel()

    async def call(self, function: Callable[[], T], receive: Receive, seconds: float) -> T:
        """The result of one blocking call, made in a thread. Raises what `items` raises."""

        def once() -> Iterator[T]:
            yield function()

        async with self.items([once], receive, seconds) as items:
            async for _, result in items:
                return result
        raise AssertionError("a call gives one result or an error")

    async def close(self, patience: float = 2.0) -> None:
        """Ends what is running after its current step, and waits so many seconds for it, so that what was done can
        still be recorded."""
        for stop in list(self._stops):
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + patience
        while self._taken and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _start(
        self, index: int, make: Callable[[], Iterator[T]], stop: _Stop, inbox: _Inbox[tuple[int, T | _End]]
    ) -> None:
        def work() -> None:
            end = _End()
            try:
                if not stop.is_set():
                    iterator = make()
                    stop.watch(iterator)
                    try:
                        for item in iterator:
                            inbox.put((index, item))
                            if stop.is_set():
                                break
                    finally:
                        if isinstance(iterator, Generator | Cancellable):
                            iterator.close()  # here and now, so that its span ends and its memory is freed
            except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
                end = _End(error)
            inbox.put((index, end))

        def leave() -> None:
            """The thread has really ended, or will never begin: only now is its place free."""
            self._taken -= 1
            self._stops.discard(stop)
            self._metrics.add(IN_PROGRESS, -1)

        self._taken += 1
        self._stops.add(stop)
        self._metrics.add(IN_PROGRESS)
        loop, future = asyncio.get_running_loop(), self._pool.submit(work)
        stop.cancels(future)

        def ended(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(leave)

        future.add_done_callback(ended)


class _Stop:
    """Tells a thread to stop, and, where it can be told, the iterator that it waits for. What is still in line for a
    thread leaves it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._iterator: object = None
        self._future: Future[None] | None = None

    def is_set(self) -> bool:
        return self._stopped

    def cancels(self, future: Future[None]) -> None:
        """What is to be taken out of the line."""
        self._future = future

    def watch(self, iterator: object) -> None:
        with self._lock:
            self._iterator = iterator
        if self._stopped:
            self.set()

    def set(self) -> None:
        self._stopped = True
        with self._lock:
            iterator = self._iterator
        if self._future is not None:
            self._future.cancel()
        if isinstance(iterator, Cancellable):
            iterator.cancel()


class _Inbox(Generic[T]):
    """Items from threads to the event loop. A burst of them wakes the loop once, not once each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[T] = deque()
        self._ready = asyncio.Event()
        self._woken = False

    def put(self, item: T) -> None:
        self._items.append(item)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to take it
                self._loop.call_soon_threadsafe(self._ready.set)

    async def get(self) -> T:
        while not self._items:
            self._ready.clear()
            self._woken = False
            if not self._items:  # else it came between, and nobody was woken for it
                await self._ready.wait()
        return self._items.popleft()


async def _until_end(inbox: _Inbox[tuple[int, T | _End]], count: int) -> AsyncIterator[tuple[int, T]]:
    while count:
        index, item = await inbox.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            count -= 1
        else:
            yield index, item


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has closed the connection. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass

"""Between the asyncio server and models that block: a few threads, a bounded queue before them, and cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.types import Receive

from windlass.serve.errors import HttpError
from windlass.serve.metrics import Metrics

T = TypeVar("T")
IN_PROGRESS = "windlass_requests_in_progress"
CANCELLED = "windlass_requests_cancelled_total"


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


class Workers:
    """Runs blocking iterators in threads, at most `running` at once and `waiting` more in line."""

    def __init__(self, running: int, waiting: int, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(running, thread_name_prefix="windlass-serve")
        self._places = running + waiting
        self._taken = 0
        self._metrics = metrics
        self._stops: set[threading.Event] = set()
        metrics.declare(IN_PROGRESS, "gauge", "Requests being answered or waiting for their turn.")
        metrics.declare(CANCELLED, "counter", "Requests whose client left before the answer was complete.")
        metrics.add(IN_PROGRESS, 0)
        metrics.add(CANCELLED, 0)

    @contextlib.asynccontextmanager
    async def items(self, make: Callable[[], Iterator[T]], receive: Receive) -> AsyncIterator[AsyncIterator[T]]:
        """What the iterator of `make()` yields, step by step, while the client stays connected.

        When the block ends, for whatever reason, the iterator is closed after the step it is in. Raises `HttpError`
        (429) when every place is taken, `ClientGone` when the client has left.
        """
        if self._taken >= self._places:
            raise HttpError(429, "The server is busy: all places are taken.", "Try again soon.", code="busy")
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[T | _End] = asyncio.Queue()
        stop = threading.Event()

        def hand(item: T | _End) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to take it
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            end = _End()
            try:
                if not stop.is_set():
                    iterator = make()
                    try:
                        for item in iterator:
                            hand(item)
                            if stop.is_set():
                                break
                    finally:
                        if isinstance(iterator, Generator):
                            iterator.close()  # here and now, so that its span ends and its memory is freed
            except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
                end = _End(error)
            hand(end)

        def gone(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                stop.set()
                queue.put_nowait(_End(ClientGone()))

        self._enter(stop)
        future = loop.run_in_executor(self._pool, work)
        future.add_done_callback(lambda _: self._leave(stop))
        watcher = asyncio.create_task(_disconnected(receive))
        watcher.add_done_callback(gone)
        try:
            yield _until_end(queue)
        except ClientGone:
            self._metrics.add(CANCELLED)
            raise
        finally:
            stop.set()
            watcher.cancel()

    async def call(self, function: Callable[[], T], receive: Receive) -> T:
        """The result of one blocking call, made in a thread."""

        def once() -> Iterator[T]:
            yield function()

        async with self.items(once, receive) as items:
            async for result in items:
                return result
        raise AssertionError("a call gives one result or an error")

    def close(self) -> None:
        """Ends what is running after its current step."""
        for stop in list(self._stops):
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _enter(self, stop: threading.Event) -> None:
        self._taken += 1
        self._stops.add(stop)
        self._metrics.add(IN_PROGRESS)

    def _leave(self, stop: threading.Event) -> None:
        """The thread has really ended: only now is its place free."""
        self._taken -= 1
        self._stops.discard(stop)
        self._metrics.add(IN_PROGRESS, -1)


async def _until_end(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while True:
        item = await queue.get()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has closed the connection. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass

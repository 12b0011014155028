"""Between the asyncio server and models that block: a few threads, a bounded queue before them, and cancellation.

An iterator that blocks keeps its thread until it ends. One that can be polled has a thread only until its work has
begun; what it gives then is read on the event loop, that of all requests together: sixteen threads that wake up for a
token each would take the processor from the engine that writes the next ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.types import Receive

from windlass.core.protocols import Cancellable, Polled
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
    """Runs iterators, at most `running` at once and `waiting` more in line."""

    def __init__(self, running: int, waiting: int, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(running, thread_name_prefix="windlass-serve")
        self._running, self._places = running, running + waiting
        self._active = self._taken = 0
        self._line: deque[_Job[Any]] = deque()
        self._metrics = metrics
        self._jobs: set[_Job[Any]] = set()
        self._round: _Round | None = None
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
        watcher = asyncio.create_task(_disconnected(receive))

        def gone(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                inbox.put((0, _End(ClientGone())))

        watcher.add_done_callback(gone)
        late = asyncio.get_running_loop().call_later(seconds, inbox.put, (0, _End(TimeoutError())))
        jobs = [self._start(index, make, inbox) for index, make in enumerate(makes)]
        try:
            yield _until_end(inbox, len(makes))
        except ClientGone:
            self._metrics.add(CANCELLED)
            raise
        finally:
            for job in jobs:
                job.stop()
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
        for job in [*self._line, *self._jobs]:
            job.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + patience
        while self._taken and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self._round is not None:
            self._round.close()

    def _start(self, index: int, make: Callable[[], Iterator[T]], inbox: _Inbox[tuple[int, T | _End]]) -> _Job[T]:
        loop = asyncio.get_running_loop()
        if self._round is None or self._round.loop is not loop:
            if self._round is not None:
                self._round.close()
            self._round = _Round(loop)

        def leave() -> None:
            """On the event loop. The work has really ended, or will never begin: only now is its place free."""
            self._taken -= 1
            self._jobs.discard(job)
            self._metrics.add(IN_PROGRESS, -1)
            if job.begun:
                self._active -= 1
                self._begin()
            else:
                self._line.remove(job)

        job = _Job(make, lambda item: inbox.put((index, item)), leave, self._round)
        self._taken += 1
        self._jobs.add(job)
        self._metrics.add(IN_PROGRESS)
        self._line.append(job)
        self._begin()
        return job

    def _begin(self) -> None:
        """Lets those in line begin for whom there is a place."""
        while self._line and self._active < self._running:
            self._active += 1
            self._line.popleft().begin(self._pool)


class _Job(Generic[T]):
    """One iterator, from its place in the line to its end."""

    def __init__(
        self, make: Callable[[], Iterator[T]], put: Callable[[T | _End], None], leave: Callable[[], None], round: _Round
    ) -> None:
        self._make, self._put, self._left, self._round = make, put, leave, round
        self.begun = self._ended = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._iterator: object = None
        self._polled: Polled | None = None
        """What is read on the event loop from now on."""
        self._due = False

    def begin(self, pool: ThreadPoolExecutor) -> None:
        """On the event loop."""
        self.begun = True
        pool.submit(self._work).add_done_callback(self._worked)

    def stop(self) -> None:
        """On the event loop. Ends the iterator, where it can be told; one that still waits in line leaves it."""
        self._stopped.set()
        with self._lock:
            iterator = self._iterator
        if isinstance(iterator, Cancellable):
            iterator.cancel()
        if self.begun:
            self._read()
        else:
            self._leave()

    def _leave(self) -> None:
        """On the event loop."""
        if not self._ended:
            self._ended = True
            self._left()

    # in a thread

    def _work(self) -> bool:
        """Whether the rest is to be read on the event loop."""
        end = _End()
        try:
            if not self._stopped.is_set():
                made: Any = self._make()
                with self._lock:
                    self._iterator = made
                if self._stopped.is_set() and isinstance(made, Cancellable):
                    made.cancel()  # whoever stopped it did not see it yet
                try:
                    if isinstance(made, Polled):
                        made.listen(self.wake)
                        self._give(made.poll())
                        self._polled = made
                        return True
                    for item in made:
                        self._put(item)
                        if self._stopped.is_set():
                            break
                finally:
                    if self._polled is None and isinstance(made, Generator | Cancellable):
                        made.close()  # here and now, so that its span ends and its memory is freed
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
            end = _End(error)
        self._put(end)
        return False

    def _worked(self, future: Future[bool]) -> None:
        if not future.cancelled() and future.result():
            self.wake()  # what came meanwhile
        else:
            self._round.call(self._leave)

    def _give(self, item: Any) -> bool:
        """Whether there was one."""
        if item is not None:
            self._put(item)
        return item is not None

    # for what is polled

    def wake(self) -> None:
        """From any thread: there may be more to read."""
        if self._polled is not None and not self._due:
            self._due = True
            self._round.add(self._read)

    def _read(self) -> None:
        """On the event loop."""
        self._due = False
        if (polled := self._polled) is None:
            return
        try:
            if not self._stopped.is_set():
                while self._give(polled.poll()):
                    pass
                return
            polled.close()
            end = _End()
        except StopIteration:
            end = _End()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
            end = _End(error)
        self._polled = None
        self._put(end)
        self._leave()


class _Round:
    """What is to be read on the event loop, gathered from all threads: one wake-up for all.

    A thread of its own wakes the loop, since that lets go of the interpreter: an engine that did it itself would have
    to wait, after each of its tokens, until the loop has sent it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._gather, name="windlass-round", daemon=True).start()

    def add(self, read: Callable[[], None]) -> None:
        """From any thread."""
        self._due.put(read)

    def close(self) -> None:
        self._due.put(None)

    def call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self.loop.call_soon_threadsafe(function)

    def _gather(self) -> None:
        while (first := self._due.get()) is not None:
            reads = [first]
            with contextlib.suppress(queue.Empty):
                while (read := self._due.get_nowait()) is not None:
                    reads.append(read)
                self._due.put(None)
            self.call(partial(_all, reads))


def _all(actions: Sequence[Callable[[], None]]) -> None:
    for act in actions:
        act()


class _Inbox(Generic[T]):
    """Items from threads to the event loop. A burst of them wakes the loop once, not once each."""

    def __init__(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._items: deque[T] = deque()
        self._ready = asyncio.Event()
        self._woken = False

    def put(self, item: T) -> None:
        """From any thread."""
        self._items.append(item)
        if threading.get_ident() == self._thread:
            self._ready.set()
        elif not self._woken:
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

"""Between the asyncio server and models that block: a few threads, a bounded queue before them, and cancellation.

An iterator that blocks keeps its thread until it ends. One that can be polled has a thread only until its work has
begun; what it gives then is read on the event loop, that of all requests together: sixteen threads that wake up for a
token each would take the processor from the engine that writes the next ones. For the same reason what was read goes
to a function, and wakes no task.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
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

    error: BaseException | None


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

    async def run(
        self,
        makes: Sequence[Callable[[], Iterator[T]]],
        take: Callable[[int, T], None],
        receive: Receive,
        seconds: float,
    ) -> None:
        """Hands what the iterators of `makes` yield to `take`, with the number of the iterator: on the event loop, as
        it comes, until all have ended.

        When it returns, for whatever reason, nothing more is taken, and the iterators are cancelled, if they can be, or
        closed after the step they are in. Raises `HttpError` (429) when there is not a place for each of them,
        `ClientGone` when the client has left, `TimeoutError` after so many `seconds`, and what an iterator or `take`
        raises.
        """
        if self._taken + len(makes) > self._places:
            raise HttpError(429, "The server is busy: all places are taken.", "Try again soon.", code="busy")
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        left = len(makes)

        def given(index: int, item: T) -> None:
            if not ended.done():
                take(index, item)

        def end(error: BaseException | None) -> None:
            nonlocal left
            left -= 1
            if error is not None and not ended.done():
                ended.set_exception(error)
            elif not left and not ended.done():
                ended.set_result(None)

        def gone(watcher: asyncio.Task[None]) -> None:
            if not watcher.cancelled():
                end(watcher.exception() or ClientGone())

        watcher = asyncio.create_task(_disconnected(receive))
        watcher.add_done_callback(gone)
        late = loop.call_later(seconds, lambda: end(TimeoutError()))
        jobs = [self._start(make, partial(given, index), end) for index, make in enumerate(makes)]
        try:
            await ended
        except ClientGone:
            self._metrics.add(CANCELLED)
            raise
        finally:
            for job in jobs:
                job.stop()
            watcher.cancel()
            late.cancel()

    async def call(self, function: Callable[[], T], receive: Receive, seconds: float) -> T:
        """The result of one blocking call, made in a thread. Raises what `run` raises."""
        results: list[T] = []

        def once() -> Iterator[T]:
            yield function()

        await self.run([once], lambda _, result: results.append(result), receive, seconds)
        return results[0]

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

    def _start(
        self, make: Callable[[], Iterator[T]], take: Callable[[T], None], end: Callable[[BaseException | None], None]
    ) -> _Job[T]:
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

        job = _Job(make, take, end, leave, self._round)
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
        self,
        make: Callable[[], Iterator[T]],
        take: Callable[[T], None],
        end: Callable[[BaseException | None], None],
        leave: Callable[[], None],
        round: _Round,
    ) -> None:
        """On the event loop, `take` gets what there is, `end` what it ended with, and `leave` is called when its place
        is free."""
        self._make, self._take, self._end, self._left, self._round = make, take, end, leave, round
        self.begun = self._over = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._iterator: object = None
        self._made: deque[T | _End] = deque()
        """By the thread."""
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
            self._finish(None)

    # in a thread

    def _work(self) -> None:
        end = _End(None)
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
                        return
                    for item in made:
                        self._made.append(item)
                        self.wake()
                        if self._stopped.is_set():
                            break
                finally:
                    if self._polled is None and isinstance(made, Generator | Cancellable):
                        made.close()  # here and now, so that its span ends and its memory is freed
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
            end = _End(error)
        self._made.append(end)

    def _give(self, item: Any) -> None:
        if item is not None:
            self._made.append(item)

    def _worked(self, future: Future[None]) -> None:
        if future.cancelled():
            self._round.call(lambda: self._finish(None))
        else:
            self.wake()

    # on the event loop

    def wake(self) -> None:
        """From any thread: there may be more to read."""
        if not self._due:
            self._due = True
            self._round.add(self._read)

    def _read(self) -> None:
        self._due = False
        try:
            while self._made:
                item = self._made.popleft()
                if isinstance(item, _End):
                    self._finish(item.error)
                    return
                self._take(item)
            if self._polled is None:
                return
            while not self._stopped.is_set():
                piece: Any = self._polled.poll()
                if piece is None:
                    return
                self._take(piece)
            self._finish(None)
        except StopIteration:
            self._finish(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        polled, self._polled = self._polled, None
        try:
            if polled is not None:
                polled.close()
        finally:
            if not self._over:
                self._over = True
                self._end(error)
                self._left()


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


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has closed the connection. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass

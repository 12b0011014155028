"""The trace recorder: spans that cost their caller next to nothing and are safe once flushed.

`Recorder.span` opens a span under the one that is open in this context (`spans`). When it ends,
the caller only appends it to a queue; one writer thread encodes and stores batches. `flush()` returns
when everything ended before the call is on disk; a killed process loses at most what was not yet flushed.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from windlass.core.errors import WindlassError, WorkspaceError
from windlass.core.records import SpanRecord
from windlass.core.spans import Span
from windlass.core.store import Store


class _Flush:
    """Somebody who waits in `flush` until the writer has been through everything that was queued then."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.error: WindlassError | None = None


class Recorder:
    """Records spans into a store from one background thread; with `store=None` spans only have ids and nest.

    The store strikes out secrets by itself; `redact` may change spans further before they get there. At most `limit`
    spans wait in memory: when the store cannot take them (a full disk), later ones are dropped, counted in `dropped`,
    and said so on stderr. The process's exit flushes. A forked child records on its own; it must flush before it
    leaves by `os._exit`.
    """

    def __init__(
        self,
        store: Store | None,
        *,
        redact: Callable[[SpanRecord], SpanRecord] | None = None,
        interval: float = 0.2,
        batch: int = 512,
        limit: int = 20_000,
    ) -> None:
        self._store = store
        self._redact = redact
        self._interval = interval
        self._batch = batch
        self._limit = limit
        self._lock = threading.Lock()
        self._closed = False
        self._reset()
        _recorders.add(self)

    def _reset(self) -> None:
        """Nothing queued, no thread: as new, and in a forked child, whose parent stores what was queued before."""
        self._queue: deque[Span] = deque()
        self._waiting: list[_Flush] = []
        self._thread: threading.Thread | None = None
        self._asleep = True
        self._urge = threading.Event()
        self._failure: WindlassError | None = None
        self._lost: WindlassError | None = None  # a span was given up, and no `flush` has said so yet
        self._drops = itertools.count(1)  # next() on it is atomic, `+= 1` is not
        self._dropped = 0

    def span(self, name: str, operation: str = "invoke_workflow", **attributes: Any) -> Span:
        """A new span; enter it with `with`. `operation` is an OpenTelemetry GenAI operation name."""
        return Span(self if self._store is not None else None, name, operation, attributes)

    @property
    def stores(self) -> bool:
        """Whether spans are kept at all."""
        return self._store is not None

    @property
    def dropped(self) -> int:
        """How many spans were given up: the queue was full, the recorder closed, or they could not be stored."""
        return self._dropped

    def flush(self) -> None:
        """Returns when every span that ended before this call is stored; raises what keeps it from that, once."""
        with self._lock:
            if self._closed or (self._thread is None and not self._queue):
                return
            waiter = _Flush()
            self._waiting.append(waiter)
        self._wake()
        waiter.answered.wait()
        if waiter.error is not None:
            raise waiter.error

    def close(self) -> None:
        """Flushes and stops the writer thread, also when the flush fails. Spans that end later are dropped."""
        with self._lock:
            self._closed = True
            self._limit = 0
            thread, self._thread = self._thread, None
        if thread is None:
            return
        atexit.unregister(self._exit)
        self._urge.set()
        thread.join()
        if self._queue:
            assert self._failure is not None, "the writer leaves spans behind only when the store fails"
            raise self._failure

    # the caller's side ------------------------------------------------------------------------------------------

    def ended(self, span: Span) -> None:
        """Called by the span."""
        queue = self._queue
        if len(queue) >= self._limit:
            self._drop()
            return
        queue.append(span)
        if self._asleep:
            self._wake()

    def _drop(self) -> None:
        self._dropped = next(self._drops)
        if self._dropped == 1:
            reason = "the recorder is closed" if self._closed else f"{self._limit} spans are waiting already"
            print(f"windlass: spans are being dropped: {reason}.", file=sys.stderr)

    def _wake(self) -> None:
        with self._lock:
            self._asleep = False
            self._urge.set()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._write_loop, name="windlass-recorder", daemon=True)
                self._thread.start()
                atexit.register(self._exit)

    def _exit(self) -> None:
        try:
            self.close()
        except WindlassError as error:
            print(f"windlass: {len(self._queue)} spans were not stored: {error.message}", file=sys.stderr)

    # the writer's side ------------------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        idle = 0
        while not self._closed:
            idle = 0 if self._queue else idle + 1
            self._drain()
            if idle > 10:  # nothing for a while: sleep until somebody appends, rather than wake up for ever
                self._asleep = True
                # `ended` appends before it looks at `_asleep`, so one of the two sees what the other did
                self._urge.wait(None if not self._queue else 0)
                self._asleep = False
                idle = 0
            else:
                self._urge.wait(self._interval)
            self._urge.clear()
        self._drain()

    def _drain(self) -> None:
        """Stores what is queued now, then answers those who wait for it. What the store did not take stays queued."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        left = len(self._queue)  # only this thread takes from the queue: whatever was there when they asked is in it
        error: WindlassError | None = None
        while left > 0:
            spans = [self._queue.popleft() for _ in range(min(left, self._batch))]
            left -= len(spans)
            kept, problem = self._store_batch(spans)
            error = error or problem
            if kept:
                self._queue.extendleft(reversed(kept))
                break
        if waiting:
            error, self._lost = error or self._lost, None
        for waiter in waiting:
            waiter.error = error
            waiter.answered.set()

    def _store_batch(self, spans: Sequence[Span]) -> tuple[Sequence[Span], WindlassError | None]:
        """Returns the spans to try again later, and what went wrong."""
        assert self._store is not None
        try:
            if self._redact is None:
                self._store.add_spans(spans)
            else:
                self._store.add_spans([self._redact(span.record()) for span in spans])
        except WindlassError as error:
            if self._failure is None:
                print(f"windlass: traces are not being stored: {error.message}", file=sys.stderr)
            self._failure = error
            return spans, error
        except Exception as error:  # noqa: BLE001 - a fault in `redact` or the store must not keep all other spans out
            return self._store_singly(spans) if len(spans) > 1 else ((), self._unstorable(spans[0], error))
        self._failure = None
        return (), None

    def _store_singly(self, spans: Sequence[Span]) -> tuple[Sequence[Span], WindlassError | None]:
        """Finds the span that made its batch fail, and stores the others."""
        problem: WindlassError | None = None
        for done, span in enumerate(spans):
            kept, found = self._store_batch([span])
            problem = problem or found
            if kept:
                return spans[done:], problem
        return (), problem

    def _unstorable(self, span: Span, error: Exception) -> WindlassError:
        self._dropped = next(self._drops)
        failure = WorkspaceError(f"Span '{span.name}' cannot be stored: {type(error).__name__}: {error}.")
        failure.__cause__ = error
        print(f"windlass: {failure.message}", file=sys.stderr)
        self._lost = failure
        return failure


@contextlib.contextmanager
def recording(store: Store | None) -> Iterator[Recorder]:
    """A recorder for the length of a block."""
    recorder = Recorder(store)
    try:
        yield recorder
    finally:
        recorder.close()


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder._lock = threading.Lock()
        recorder._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""The trace recorder: spans that cost their caller next to nothing and are safe once flushed.

`Recorder.span` opens a span under the one that is open in this context (thread or asyncio task). When it ends,
the caller only appends it to a queue; one writer thread encodes and stores batches. `flush()` returns
when everything ended before the call is on disk; a killed process loses at most what was not yet flushed.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar, Token, copy_context
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from windlass.core.errors import WindlassError, WorkspaceError
from windlass.core.records import SpanRecord, SpanStatus
from windlass.core.store import Store

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Span | None] = ContextVar("windlass_span", default=None)
_marks: ContextVar[Mapping[str, Any] | None] = ContextVar("windlass_marks", default=None)
_ids = random.Random(random.SystemRandom().getrandbits(128))


def current_span() -> Span | None:
    """The innermost open span of this context."""
    return _current.get()


@contextlib.contextmanager
def marked(attributes: Mapping[str, Any]) -> Iterator[None]:
    """Spans without a parent that begin in this block carry these attributes besides their own, and those of blocks
    around it."""
    token = _marks.set({**(_marks.get() or {}), **attributes})
    try:
        yield
    finally:
        _marks.reset(token)


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """`function` for another thread: the spans it opens become children of the span that is open here and now.

    asyncio tasks inherit the context by themselves, threads and executors do not:
    `executor.submit(carried(work), …)`. May be called many times, also at once.
    """
    context = copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)  # a context can be entered only once at a time

    return run


class Span:
    """One timed step of a call. Use as a context manager; set what is known by `span["gen_ai.request.model"] = …`.

    Values are not copied: `attributes`, `input` and `output` belong to the recorder once the span has ended, which
    reads them in its own thread. Hand over a copy of what is going to be changed afterwards.

    A generator must not keep a `with span:` open across `yield`, because its caller would see the span as current.
    It uses `begin()` and `finish()`, and `with span.active():` around its own steps.
    """

    # Defaults stand on the class: a span then costs its caller only what it sets.
    parent: Span | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    start_ns: int = 0
    end_ns: int = 0
    _trace: int = 0
    _span: int = 0
    _token: Token[Span | None] | None = None

    def __init__(self, recorder: Recorder | None, name: str, operation: str, attributes: dict[str, Any]) -> None:
        self._recorder = recorder
        self.name = name
        self.operation = operation
        self.attributes = attributes

    # Ids are kept as numbers and written out only where somebody reads them, which is the writer thread mostly.

    @property
    def trace_id(self) -> str:
        return f"{self._trace:032x}"

    @property
    def span_id(self) -> str:
        return f"{self._span:016x}"

    @property
    def parent_id(self) -> str | None:
        return None if self.parent is None else self.parent.span_id

    @property
    def status(self) -> SpanStatus:
        return "ok" if self.error is None else "error"

    def __setitem__(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def begin(self, parent: Span | None = None) -> Span:
        """Starts the span without making it current; `parent` None means the span that is current here."""
        self.parent = parent if parent is not None else _current.get()
        self._trace = self._first() if self.parent is None else self.parent._trace
        self._span = _ids.getrandbits(64)
        self.start_ns = time.time_ns()
        return self

    def _first(self) -> int:
        """The trace that begins with this span."""
        if (marks := _marks.get()) is not None:
            self.attributes.update(marks)
        return _ids.getrandbits(128)

    def finish(self, error: BaseException | None = None) -> None:
        """Ends a span that `begin` started."""
        self.end_ns = time.time_ns()
        if error is not None:
            self._failed(error)
        if self._recorder is not None:
            self._recorder._ended(self)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):  # whoever reads a stream may stop early; nothing failed
            self.attributes["windlass.stopped_early"] = True
        else:
            self.error = f"{type(error).__name__}: {error}"

    @contextlib.contextmanager
    def active(self) -> Iterator[Span]:
        """Makes a span that `begin` started current for the length of a block."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def __enter__(self) -> Span:
        parent = _current.get()
        if parent is None:
            self._trace = self._first()
        else:
            self.parent = parent
            self._trace = parent._trace
        self._span = _ids.getrandbits(64)
        self._token = _current.set(self)
        self.start_ns = time.time_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_ns = time.time_ns()
        assert self._token is not None
        try:  # noqa: SIM105 - suppress() would take a quarter of the time that a span may take
            _current.reset(self._token)
        except ValueError:
            # The block is left in another context than it was entered in, which never saw this span as current:
            # a generator that one thread began and another one closes.
            pass
        if error is not None:
            self._failed(error)
        if self._recorder is not None:
            self._recorder._ended(self)

    def record(self) -> SpanRecord:
        return SpanRecord(
            self.trace_id,
            self.span_id,
            self.parent_id,
            self.name,
            self.operation,
            self.start_ns,
            self.end_ns,
            self.status,
            self.error,
            self.attributes,
            self.input,
            self.output,
        )


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

    def _ended(self, span: Span) -> None:
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
                # `_ended` appends before it looks at `_asleep`, so one of the two sees what the other did
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
    _ids.seed(random.SystemRandom().getrandbits(128))  # or the child would draw the same ids as its parent
    for recorder in list(_recorders):
        recorder._lock = threading.Lock()
        recorder._reset()


os.register_at_fork(after_in_child=_after_fork_in_child)

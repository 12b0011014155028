"""The trace recorder: spans that cost their caller next to nothing and are safe once flushed.

`Recorder.span` opens a span under the one that is open in this context (thread or asyncio task). When it ends,
the caller only appends it to a queue; one writer thread redacts, encodes and stores batches. `flush()` returns
when everything ended before the call is on disk; a killed process loses at most what was not yet flushed.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from windlass.core.errors import WindlassError
from windlass.core.records import SpanRecord
from windlass.core.store import Store

_current: ContextVar[Span | None] = ContextVar("windlass_span", default=None)
_random = random.SystemRandom().getrandbits(64)
_ids = random.Random(_random)


def current_span() -> Span | None:
    """The innermost open span of this context."""
    return _current.get()


class Span:
    """One timed step of a call. Use as a context manager; set what is known by `span["gen_ai.request.model"] = …`."""

    __slots__ = (
        "_recorder", "_token", "attributes", "end_ns", "error", "input", "name", "operation", "output",
        "parent_id", "span_id", "start_ns", "trace_id",
    )  # fmt: skip

    def __init__(self, recorder: Recorder | None, name: str, operation: str, attributes: dict[str, Any]) -> None:
        self._recorder = recorder
        self.name = name
        self.operation = operation
        self.attributes = attributes
        self.input: Any = None
        self.output: Any = None
        self.error: str | None = None
        self.end_ns = 0

    def __setitem__(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def __enter__(self) -> Span:
        parent = _current.get()
        if parent is None:
            self.trace_id = f"{_ids.getrandbits(128):032x}"
            self.parent_id = None
        else:
            self.trace_id = parent.trace_id
            self.parent_id = parent.span_id
        self.span_id = f"{_ids.getrandbits(64):016x}"
        self._token: Token[Span | None] = _current.set(self)
        self.start_ns = time.time_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_ns = time.time_ns()
        _current.reset(self._token)
        if kind is not None:
            self.error = f"{kind.__name__}: {error}"
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
            "ok" if self.error is None else "error",
            self.error,
            self.attributes,
            self.input,
            self.output,
        )


class Recorder:
    """Records spans into a store from one background thread. `redact` sees every span before it is stored."""

    def __init__(
        self,
        store: Store | None,
        *,
        redact: Callable[[SpanRecord], SpanRecord] | None = None,
        interval: float = 0.2,
        batch: int = 512,
    ) -> None:
        self._store = store
        self._redact = redact
        self._interval = interval
        self._batch = batch
        self._queue: deque[Span] = deque()
        self._wake = threading.Condition()
        self._ended_count = 0
        self._stored_count = 0
        self._failure: WindlassError | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def span(self, name: str, operation: str = "invoke_workflow", **attributes: Any) -> Span:
        """A new span; enter it with `with`. `operation` is an OpenTelemetry GenAI operation name."""
        return Span(self if self._store is not None else None, name, operation, attributes)

    def _ended(self, span: Span) -> None:
        self._queue.append(span)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._wake:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._write_loop, name="windlass-recorder", daemon=True)
                self._thread.start()

    def _write_loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait(self._interval)
                closing = self._closed
            self._drain()
            if closing:
                return

    def _drain(self) -> None:
        assert self._store is not None
        while self._queue:
            taken: list[Span] = []
            with contextlib.suppress(IndexError):  # the deque ran empty: the batch is what was taken
                while len(taken) < self._batch:
                    taken.append(self._queue.popleft())
            records = [span.record() for span in taken]
            if self._redact is not None:
                records = [self._redact(record) for record in records]
            try:
                self._store.add_spans(records)
            except WindlassError as error:
                self._queue.extendleft(reversed(taken))
                if self._failure is None:
                    print(f"windlass: traces are not being stored: {error.message}", file=sys.stderr)
                self._failure = error
                return
            self._failure = None

    def flush(self) -> None:
        """Returns when every span that ended before this call is stored; raises what keeps it from that."""
        raise AssertionError("written next")

    def close(self) -> None:
        """Flushes and stops the writer thread."""
        raise AssertionError("written next")


@contextlib.contextmanager
def recording(store: Store | None) -> Iterator[Recorder]:
    """A recorder for the length of a block."""
    recorder = Recorder(store)
    try:
        yield recorder
    finally:
        recorder.close()

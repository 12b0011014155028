"""A span: one timed step of a call, under the one that is open in this context (thread or asyncio task)."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, Token, copy_context
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from windlass.core.records import SpanRecord, SpanStatus

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


class Keeper(Protocol):
    """Takes spans that have ended: a recorder."""

    def ended(self, span: Span) -> None: ...


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

    def __init__(self, keeper: Keeper | None, name: str, operation: str, attributes: dict[str, Any]) -> None:
        self._keeper = keeper
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
        if self._keeper is not None:
            self._keeper.ended(self)

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
        if self._keeper is not None:
            self._keeper.ended(self)

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


def _after_fork_in_child() -> None:
    _ids.seed(random.SystemRandom().getrandbits(128))  # or the child would draw the same ids as its parent


os.register_at_fork(after_in_child=_after_fork_in_child)

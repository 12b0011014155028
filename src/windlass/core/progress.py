"""Progress of long work: what is done, at what rate, and when it will be finished."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from windlass.core.terminal import columns, cut

T = TypeVar("T")


class Progress:
    """One line that rewrites itself on a terminal, or a new line every `every` seconds elsewhere.

    `total` is None when unknown. Use as a context manager; `update(done)` takes the absolute count and may be called
    for every item. A job that goes on from where it was gives `start`, so that its rate counts only what it does
    itself; by default the first update is taken for the start, and its time too.
    """

    def __init__(
        self,
        label: str,
        total: float | None,
        unit: str,
        *,
        out: TextIO | None = None,
        every: float = 10.0,
        start: float | None = None,
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._out = out or sys.stderr
        self._terminal = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._every = 0.1 if self._terminal else every
        self._since = time.monotonic()
        self._due = self._since if self._terminal else self._since + every
        self._first = start
        self.done = start or 0.0

    def update(self, done: float, note: str = "") -> None:
        self.done = done
        now = time.monotonic()
        if self._first is None:
            self._first, self._since = done, now
        if now >= self._due:
            self._due = now + self._every
            self._print(self.line(now, note))

    def say(self, text: str) -> None:
        """A line of its own, above the one that rewrites itself."""
        self._out.write(f"\r\x1b[2K{text}\n" if self._terminal else f"{text}\n")
        self._out.flush()

    def line(self, now: float, note: str = "") -> str:
        count = f"{self.done:,.0f}" if self.total is None else f"{self.done:,.0f}/{self.total:,.0f}"
        parts = [f"{self.label}: {count} {self.unit}"]
        elapsed = now - self._since
        if elapsed > 0:
            rate = (self.done - (self._first or 0.0)) / elapsed
            parts.append(f"{rate:,.1f} {self.unit}/s")
            if self.total is not None and rate > 0:
                parts.append(f"{_duration(max(self.total - self.done, 0) / rate)} left")
        if note:
            parts.append(note)
        return " · ".join(parts)

    def _print(self, text: str) -> None:
        if self._terminal:
            # A line that the terminal breaks could not be rewritten: only its last part would go away.
            self._out.write(f"\r\x1b[2K{cut(text, columns(self._out) - 1)}")
        else:
            self._out.write(text + "\n")
        self._out.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._out.write("\r\x1b[2K")
            self._out.flush()


def _duration(seconds: float) -> str:
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def tracked(items: Iterable[T], label: str, total: int | None, unit: str) -> Iterator[T]:
    """Yields the items while showing progress."""
    with Progress(label, total, unit, start=0) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress.update(done)

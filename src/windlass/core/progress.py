"""Progress of long work: what is done, at what rate, and when it will be finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


class Progress:
    """One line that rewrites itself on a terminal, or a new line every `every` seconds elsewhere.

    `total` is None when unknown. Use as a context manager; `update(done)` takes the absolute count.
    """

    def __init__(
        self, label: str, total: float | None, unit: str, *, out: TextIO | None = None, every: float = 10.0
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._every = 0.1 if self._terminal else every
        self._started = time.monotonic()
        self._shown = self._started if not self._terminal else 0.0
        self._first: float | None = None
        self.done = 0.0

    def update(self, done: float, note: str = "") -> None:
        if self._first is None:
            self._first = done  # a resumed job's rate counts only what this process did
        self.done = done
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._print(self.line(now, note))

    def line(self, now: float, note: str = "") -> str:
        elapsed = max(now - self._started, 1e-9)
        rate = (self.done - (self._first or 0.0)) / elapsed
        parts = [f"{self.label}: {self.done:,.0f}"]
        if self.total is not None:
            parts[0] += f"/{self.total:,.0f}"
        parts[0] += f" {self.unit}"
        parts.append(f"{rate:,.1f} {self.unit}/s")
        if self.total is not None and rate > 0:
            parts.append(f"{max(self.total - self.done, 0) / rate:,.0f} s left")
        if note:
            parts.append(note)
        return " · ".join(parts)

    def _print(self, text: str) -> None:
        if self._terminal:
            self._out.write(f"\r\x1b[2K{text}")
        else:
            self._out.write(text + "\n")
        self._out.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._out.write("\r\x1b[2K")
            self._out.flush()


def tracked(items: Iterable[T], label: str, total: int | None, unit: str) -> Iterator[T]:
    """Yields the items while showing progress."""
    with Progress(label, total, unit) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress.update(done)

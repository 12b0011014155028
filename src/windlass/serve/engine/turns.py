"""Whose step is next: requests in progress take turns on the processor, one step each, in order of arrival."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Turns:
    """A lock that is handed on in the order it was asked for.

    A plain `threading.Lock` may be taken again by the thread that has just released it, and one long answer would
    then hold up all others.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._busy = False
        self._queue: deque[threading.Lock] = deque()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        with self._mutex:
            gate = threading.Lock() if self._busy else None
            if gate is not None:
                gate.acquire()
                self._queue.append(gate)
            self._busy = True
        if gate is not None:
            gate.acquire()  # until the one before us opens it
        try:
            yield
        finally:
            with self._mutex:
                if self._queue:
                    self._queue.popleft().release()
                else:
                    self._busy = False

"""Ctrl-C between steps of long work: the first one asks to stop at the next safe point, a later one stops at once.

SIGTERM asks the same: it is what a cluster sends to a job whose time is up, and torchrun to workers it wants to end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_ECHO_S = 1.0
"""One Ctrl-C may arrive twice: from the terminal, and passed on by the process that started this one."""


class Interrupt:
    requested = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block, Ctrl-C sets `requested`. Outside the main thread signals do not arrive, so nothing changes."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    first = float("inf")

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if interrupt.requested and time.monotonic() - first > _ECHO_S:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())
        interrupt.requested = True

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

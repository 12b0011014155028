"""Waiting for what is written for event loops."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from windlass.core.spans import carried

R = TypeVar("R")


def waited(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine, on an event loop of its own; where one runs already (a notebook), in a thread."""
    import asyncio  # here, as core is loaded by all
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(carried(lambda: asyncio.run(coroutine))).result()

"""The time that a whole call may take, all its tries and pieces together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import httpx2

from windlass.core.errors import TimedOut

T = TypeVar("T")


class Clock:
    """How much is left of the time that a whole call may take."""

    def __init__(self, within: float | None) -> None:
        self._within = within
        self._end = None if within is None else time.monotonic() + within

    def left(self) -> float | None:
        """Seconds. Raises `TimedOut` when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0.001:  # a timeout may fire a little early
            raise self._over()
        return left

    def limits(self, client: httpx2.Client | httpx2.AsyncClient) -> dict[str, Any]:
        """What a request says of its time: no phase may take longer than what is left of the whole."""
        left = self.left()
        if left is None:
            return {}
        usual = client.timeout
        phases = {"connect": usual.connect, "write": usual.write, "read": usual.read}
        shorter = {name: left if limit is None else min(left, limit) for name, limit in phases.items()}
        return {"timeout": {"pool": left, **shorter}}

    def watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, as long as there is time. A silent server is noticed by the timeout of the phase."""
        for piece in pieces:
            self.left()
            yield piece

    async def awaited(self, work: Awaitable[T]) -> T:
        """What `work` gives, if it does so in time. Around one step only: a generator that waited in here for its
        reader would stop the reader."""
        if self._end is None:
            return await work
        try:
            async with asyncio.timeout(max(0.0, self._end - time.monotonic())):
                return await work
        except TimeoutError as error:
            raise self._over() from error

    def _over(self) -> TimedOut:
        return TimedOut(f"The answer was not there after {self._within:g} seconds.", "Allow it more time.")

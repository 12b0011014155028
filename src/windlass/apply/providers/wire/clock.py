"""The time that a whole call may take, all its tries and pieces together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import TypeVar

from windlass.apply.providers.wire.plain_calls import Answer
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

    def phases(self, usual: Mapping[str, float | None]) -> Mapping[str, float | None]:
        """How long each phase of a request may take: none longer than what is left of the whole."""
        left = self.left()
        if left is None:
            return usual
        return {name: left if limit is None else min(left, limit) for name, limit in usual.items()}

    def collected(self, answer: Answer) -> bytes:
        """The whole content of an answer, as long as there is time."""
        if self._end is None:
            return answer.rest()
        pieces = list[bytes]()
        while piece := answer.piece(self.left()):
            pieces.append(piece)
        return b"".join(pieces)

    def watched(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
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

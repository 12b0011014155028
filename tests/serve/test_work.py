"""Blocking work beside an event loop: its limit in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("starlette")

from windlass.serve.api.operation import forever
from windlass.serve.metrics import Metrics
from windlass.serve.work import Workers


def numbers(count: int, pause: float) -> Iterator[int]:
    for number in range(count):
        yield number
        time.sleep(pause)


async def read(count: int, pause: float, *, seconds: float, reader: float = 0.0) -> list[int]:
    workers, got = Workers(2, 0, Metrics()), []
    try:
        async with workers.items([lambda: numbers(count, pause)], forever, seconds) as items:
            async for _, number in items:
                got.append(number)
                await asyncio.sleep(reader)
    except TimeoutError:
        got.append(-1)
    finally:
        await workers.close()
    return got


def test_what_takes_too_long_ends_with_what_there_is() -> None:
    got = asyncio.run(read(1_000, 0.01, seconds=0.2))
    assert got[:2] == [0, 1] and got[-1] == -1 and len(got) < 100


def test_the_time_that_a_reader_takes_does_not_count() -> None:
    assert asyncio.run(read(4, 0.0, seconds=0.3, reader=0.15)) == [0, 1, 2, 3]

"""A task over many items: so many at once, each answer in a journal before it counts, and no answer paid twice.

    done = tone.map(reviews, journal="tones.jsonl", at_once=32)
    print(done)                              # 9,998 of 10,000 items have a value, 2 failed; 1.2 M tokens, $0.31
    for result in done:                      # in the order of the items
        print(result.value if result.error is None else result.error)

Items are read as they are needed and results go to the journal, so memory does not grow with their number (8 bytes an
item; see `Journal` for one that goes on). After a crash the same call goes on where the last one was. A worker takes
its next item only when the last one's answer is on the disk, so a kill at any moment loses at most `at_once` answers:
the items that were under way are asked again, at most once for each crash, and the summary says how many it may have
been. Nothing else is asked twice.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from windlass.apply.tasks.asking import asking
from windlass.apply.tasks.mapping.items import Item, opened
from windlass.apply.tasks.mapping.journal import KIND, Journal
from windlass.apply.tasks.mapping.results import Mapped, Spent, metered
from windlass.apply.tasks.mapping.run import OnError, Run, Waiting
from windlass.apply.tasks.outcome import NoAnswer
from windlass.apply.tasks.running import arun
from windlass.apply.tasks.surroundings import here
from windlass.apply.tasks.variant import Variant
from windlass.apply.wrappers.wrapper import closed
from windlass.core.errors import InputError, ProviderError, TimedOut
from windlass.core.progress import Progress
from windlass.core.waiting import waited

R = TypeVar("R")

_OF_THE_ITEM = (NoAnswer, ProviderError, TimedOut, InputError)
"""What may go wrong with one item and not with the next."""


def mapped(variant: Variant[R], items: Iterable[Any] | str | Path, at_once: int, **options: Any) -> Mapped[R]:
    """As `amapped`, for callers that wait."""

    async def whole() -> Mapped[R]:
        # A model that can only be waited for is asked in threads: as many as items are under way, and some to write.
        with ThreadPoolExecutor(at_once + 4) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            try:
                return await amapped(variant, items, at_once, **options)
            finally:
                await closed(variant.model(here()))

    return waited(whole())


async def amapped(
    variant: Variant[R],
    items: Iterable[Any] | str | Path,
    at_once: int,
    *,
    journal: str | Path | None = None,
    on_error: OnError = "keep",
    retry_errors: bool = False,
    progress: bool = True,
    batch: bool = False,
) -> Mapped[R]:
    """See `Task.map`. One prompt serves all items, wherever its label moves meanwhile."""
    if at_once < 1:
        raise InputError(f"at_once={at_once}: at least one item must be under way.")
    path = _temporary() if journal is None else Path(journal)
    done: Mapped[R] = Mapped(variant.signature, path, journal is None)
    began = time.monotonic()
    with Journal(path, durable=journal is not None) as book, opened(items) as (rows, total):
        done.repeated = book.cut_off
        with Progress(variant.name, total, "items") as line:
            run = Run(variant, book, done, on_error, retry_errors, line if progress else None)
            book.begin(variant.name, at_once)
            try:
                if batch:
                    from windlass.apply.tasks.mapping.batching import by_batches  # with it comes HTTP

                    await by_batches(run, rows, at_once)
                else:
                    await _one_by_one(run, rows, at_once)
            finally:
                await book.settled()
            book.end()
        if run.failure is not None:
            raise run.failure
        done.left = book.left
        if run.disordered:
            done.places = book.arrange(done.places, {**KIND, "task": variant.name, "at_once": 0})
    done.seconds = time.monotonic() - began
    return done


async def _one_by_one(run: Run[Any], rows: Iterator[Item], at_once: int) -> None:
    """All items of a run, so many at once. What fails is noted in `run.failure`."""
    waiting = run.waiting(rows)

    async def worker() -> None:
        while run.failure is None and (one := next(waiting, None)) is not None:
            try:
                await _asked(run, one)
            except Exception as error:  # noqa: BLE001 - raised by `amapped`, when what is under way is stored
                run.failure = run.failure or error

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def _asked(run: Run[Any], one: Waiting) -> None:
    spent = Spent()
    variant, around = run.variant, run.around
    try:
        if one.fault is not None:
            raise one.fault
        with variant.calling(around, (), one.inputs) as (span, inputs):
            span["windlass.map.item"] = one.number
            steps = metered(asking(variant.question(inputs, run.model)), spent)
            outcome = variant.noted(span, await arun(steps, run.model, around.recorder))
    except _OF_THE_ITEM as error:
        await run.failed(one, error, spent)
    else:
        await run.answered(one, outcome, spent)


def _temporary() -> Path:
    handle, name = tempfile.mkstemp(prefix="windlass-map-", suffix=".jsonl")
    os.close(handle)
    return Path(name)

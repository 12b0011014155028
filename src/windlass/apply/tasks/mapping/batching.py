"""A map by a provider's batch API: the same items, journal and results; slower, and often at half the price.

Requests go up 10,000 at a time, or as many as a batch may hold; an answer that does not fit goes into the next one with
its fault. The journal holds a mark for each batch before it is made and its id afterwards, so a crash loses nothing:
the next run finds the batches again, takes the answers that are there, and makes new ones only for what has none.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from windlass.apply.providers.batches.batch import Batch, Batches, new_mark
from windlass.apply.providers.batches.known import batches_of
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.tasks.asking import asking
from windlass.apply.tasks.mapping.items import Item
from windlass.apply.tasks.mapping.results import Spent
from windlass.apply.tasks.mapping.run import Run, Waiting
from windlass.apply.tasks.outcome import NoAnswer, Outcome
from windlass.apply.tasks.running import asked, note
from windlass.apply.wrappers.wrapper import innermost
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import ChatRequest, ChatResponse

LINES = 10_000
"""Requests of one batch. So many times `AT_ONCE` items are in memory."""
AT_ONCE = 4


@dataclass(slots=True)
class Open:
    """An item whose answer is awaited."""

    one: Waiting
    steps: Generator[ChatRequest, ChatResponse, Outcome[Any]]
    request: ChatRequest
    round: int = 1
    """Which attempt it is."""
    spent: Spent = field(default_factory=Spent)

    @property
    def name(self) -> str:
        return f"{self.one.key.hex()}-{self.round}"


async def by_batches(run: Run[Any], rows: Iterator[Item], at_once: int) -> None:
    """All items of a run, in batches. What fails is noted in `run.failure`."""
    settings, model = run.variant.settings, innermost(run.model)
    if settings.cache or settings.budget:
        raise Unsupported("A batch is asked without cache and budget.", "Leave them out, or map without batch=True.")
    if not isinstance(model, RemoteChat):
        raise Unsupported(f"{run.model.name} has no batch API.", "Leave out batch=True.")
    work = _Work(run, batches_of(model, run.tell))
    await work.find_earlier()
    waiting = run.waiting(rows)

    async def worker() -> None:
        while run.failure is None and (some := list(islice(waiting, LINES))):
            try:
                await work.through(some)
            except Exception as error:  # noqa: BLE001 - raised by `amapped`, when what is there is stored
                run.failure = run.failure or error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, AT_ONCE)):
            group.create_task(worker())


@dataclass(frozen=True, slots=True)
class Sent:
    """Requests of one batch, by their names, and its mark."""

    mark: str
    batch: Batch
    named: dict[str, Open]


class _Work:
    def __init__(self, run: Run[Any], batches: Batches) -> None:
        self._run = run
        self._batches = batches
        self._known = {id for id in run.book.batches.values() if id is not None}
        """Ids of batches whose marks are known."""
        self._at_hand: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        """Lines of earlier runs' batches, by `Open.name`."""

    async def find_earlier(self) -> None:
        """Waits for the batches of earlier runs that were not taken in, and takes their answers."""
        for mark, id in self._run.book.batches.items():
            try:
                batch = await self._batches.find(mark, self._known) if id is None else await self._batches.look(id)
                if batch is None:
                    continue  # it was never made
                self._known.add(batch.id)
                batch = await self._batches.ended(batch)
                if batch.refused:
                    await self._run.book.note({"batch": mark, "taken": True})
                    continue
                for name, line in await self._batches.results(batch):
                    self._at_hand[name.rpartition("-")[0]].append(line)
            except ProviderError as error:
                if error.status not in (404, 410):
                    raise
                raise ProviderError(
                    f"The batch {id or mark} of an earlier run is kept no longer by {self._batches.remote.name}'s"
                    f" provider: {error.message}",
                    f"To ask its items again, and pay for them again, remove the lines of {self._run.book.path} that"
                    f' begin with {{"batch":"{mark}".',
                    status=error.status,
                ) from error

    async def through(self, some: Sequence[Waiting]) -> None:
        """Asks these items until each has its value or its error."""
        open_ones = [one for item in some if (one := await self._opened(item)) is not None]
        while open_ones:
            open_ones = await self._round(open_ones)

    async def _opened(self, one: Waiting) -> Open | None:
        """The item with its next request; None where what is at hand answers it already."""
        run = self._run
        if one.fault is not None:
            await run.failed(one, one.fault, Spent())
            return None
        steps = asking(run.variant.question(one.inputs, run.model))
        awaited: Open | None = Open(one, steps, next(steps))
        while awaited is not None and (lines := self._at_hand.get(awaited.name)):
            awaited = await self._answered(awaited, lines.pop(0))
        return awaited

    async def _round(self, asked_now: Sequence[Open]) -> list[Open]:
        """As many batches as these need, all at once; returns the items whose answers did not fit and that are to be
        asked again."""
        again: list[Open] = []
        for sent in [sent async for sent in self._sent(asked_now)]:
            batch = await self._batches.ended(sent.batch)
            if batch.refused:
                await self._run.book.note({"batch": sent.mark, "taken": True})
                raise ProviderError(f"The batch {batch.id} was refused: {batch.refused}")
            for name, line in await self._batches.results(batch):
                if name in sent.named and (left := await self._answered(sent.named.pop(name), line)) is not None:
                    again.append(left)
            for one in sent.named.values():
                error = ProviderError(f"The batch {batch.id} ended as '{batch.status}' without an answer to it.")
                await self._run.failed(one.one, error, one.spent)
            await self._run.book.note({"batch": sent.mark, "taken": True})
        return again

    async def _sent(self, asked_now: Sequence[Open]) -> AsyncIterator[Sent]:
        """Batches that are not larger than the provider takes. One line alone that is, it refuses itself."""
        lines: list[bytes] = []
        named: dict[str, Open] = {}
        mark, size, seen = new_mark(), 0, Counter[str]()
        for one in asked_now:
            name = f"{one.name}-{seen[one.name]}"
            seen[one.name] += 1
            line = self._batches.line(mark, name, one.request)
            if lines and size + len(line) > self._batches.largest:
                yield await self._submitted(mark, lines, named)
                lines, named, size, mark = [], {}, 0, new_mark()
                line = self._batches.line(mark, name, one.request)
            lines.append(line)
            named[name] = one
            size += len(line) + 1
        yield await self._submitted(mark, lines, named)

    async def _submitted(self, mark: str, lines: Sequence[bytes], named: dict[str, Open]) -> Sent:
        book = self._run.book
        await book.note({"batch": mark})
        batch = await self._batches.submit(lines, mark, self._known)
        self._known.add(batch.id)
        await book.note({"batch": mark, "id": batch.id})
        return Sent(mark, batch, named)

    async def _answered(self, one: Open, line: Mapping[str, Any]) -> Open | None:
        """Takes an answer; returns the item if it must be asked again."""
        run = self._run
        try:
            response = self._batches.answer(line, one.request)
            one.spent.add(response)
            one.request = one.steps.send(response)
        except StopIteration as done:
            await run.answered(one.one, self._recorded(one.one, done.value), one.spent)
            return None
        except (NoAnswer, ProviderError) as error:
            await run.failed(one.one, error, one.spent)
            return None
        one.round += 1
        return one

    def _recorded(self, one: Waiting, outcome: Outcome[Any]) -> Outcome[Any]:
        """The outcome on the trace, as if it had been asked now."""
        run = self._run
        with run.variant.calling(run.around, (), one.inputs) as (span, _):
            span["windlass.map.item"] = one.number
            span["windlass.batch"] = True
            for attempt in outcome.attempts:
                with asked(run.around.recorder, run.model, attempt.request) as call:
                    note(call, attempt.response)
            return run.variant.noted(span, outcome)

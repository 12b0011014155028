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
import hashlib
import os
import tempfile
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from windlass.apply.tasks.asking import asking
from windlass.apply.tasks.items import Inputs, Item, opened
from windlass.apply.tasks.journal import KIND, Journal, Line
from windlass.apply.tasks.outcome import NoAnswer, Outcome, Refused
from windlass.apply.tasks.prompt import content
from windlass.apply.tasks.results import Mapped, Spent, metered, money, shape_of
from windlass.apply.tasks.running import Model, arun
from windlass.apply.tasks.schema import Unfit
from windlass.apply.tasks.surroundings import Surroundings, here
from windlass.core.errors import InputError, ProviderError, TimedOut, WindlassError
from windlass.core.progress import Progress
from windlass.core.trace import carried

if TYPE_CHECKING:
    from windlass.apply.tasks.functions import Task

R = TypeVar("R")
OnError = Literal["keep", "raise"]

_OF_THE_ITEM = (NoAnswer, ProviderError, TimedOut, InputError)
"""What may go wrong with one item and not with the next."""
HOPELESS = (401, 403, 404)
"""Status of a provider that lets nobody in, or knows no such model: no other item would fare better."""
_ANSWERED = (NoAnswer.__name__, Refused.__name__)
"""Errors that were paid for, and stand: the model said what it had to say."""


def mapped(task: Task[..., R], items: Iterable[Any] | str | Path, at_once: int, **options: Any) -> Mapped[R]:
    """As `amapped`, for callers that wait."""

    async def whole() -> Mapped[R]:
        around = here()
        # A model that can only be waited for is asked in threads: as many as items are under way, and some to write.
        with ThreadPoolExecutor(at_once + 4) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            try:
                return await amapped(task, items, at_once, **options)
            finally:
                await closed(task.settled(around)._model(around))

    return waited(whole())


async def closed(model: Model) -> None:
    """Closes a model's connections that belong to this event loop, which is about to end."""
    close = getattr(model, "aclose", None)
    if close is not None:
        await close()


def waited(coroutine: Coroutine[Any, Any, R]) -> R:
    """The result of a coroutine, on an event loop of its own; where one runs already (a notebook), in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(carried(lambda: asyncio.run(coroutine))).result()


async def amapped(
    task: Task[..., R],
    items: Iterable[Any] | str | Path,
    at_once: int,
    *,
    journal: str | Path | None = None,
    on_error: OnError = "keep",
    retry_errors: bool = False,
    progress: bool = True,
    batch: bool = False,
) -> Mapped[R]:
    """See `Task.map`."""
    if at_once < 1:
        raise InputError(f"at_once={at_once}: at least one item must be under way.")
    task = task.settled()  # one prompt for all items, wherever its label moves meanwhile
    path = _temporary() if journal is None else Path(journal)
    done: Mapped[R] = Mapped(task, path, journal is None)
    began = time.monotonic()
    with Journal(path, durable=journal is not None) as book, opened(items) as (rows, total):
        done.repeated = book.cut_off
        with Progress(task.__name__, total, "items") as line:
            run = Run(task, book, done, on_error, retry_errors, line if progress else None)
            book.begin(task.__name__, at_once)
            try:
                if batch:
                    from windlass.apply.tasks.batching import carried_out

                    await carried_out(run, rows, at_once)
                else:
                    await run.workers(rows, at_once)
            finally:
                await book.settled()
            book.end()
        if run.failure is not None:
            raise run.failure
        done.left = book.left
        if run.disordered:
            done.places = book.arrange(done.places, {**KIND, "task": task.__name__, "at_once": 0})
    done.seconds = time.monotonic() - began
    return done


class Run(Generic[R]):
    """One run of a map: what each item needs, and what has become of all of them."""

    def __init__(
        self, task: Task[..., R], book: Journal, done: Mapped[R], on_error: OnError, retry: bool,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.task, self.book, self.done = task, book, done
        self.around: Surroundings = here()
        self.model: Model = task._model(self.around)
        self.failure: BaseException | None = None
        """Why no more items are taken."""
        self.disordered = False
        self._on_error, self._retry, self._progress = on_error, retry, progress
        self._shape = shape_of(task)
        self._inputs = Inputs(task.signature)
        self._finished = 0

    async def workers(self, rows: Iterator[Item], at_once: int) -> None:
        waiting = self.waiting(rows)

        async def worker() -> None:
            while self.failure is None and (one := next(waiting, None)) is not None:
                try:
                    await self._one(one)
                except Exception as error:  # noqa: BLE001 - raised by `amapped`, when what is under way is stored
                    self.failure = self.failure or error

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())

    def waiting(self, rows: Iterator[Item]) -> Iterator[Waiting]:
        """The items that have to be asked; those whose answers stand in the journal are counted on the way."""
        while self.failure is None:
            one = Waiting(len(self.done.places))
            try:
                item = next(rows, None)
                if item is None:
                    return
                one.key = self._named(one, item)
            except Exception as error:  # noqa: BLE001 - raised by `amapped`, when what is under way is stored
                self.failure = error
                return
            self.done.places.append(-1)
            found = self.book.take(one.key)
            if found is not None:
                place, line = found
                if self._stands(line):
                    self.done.resumed += 1
                    self.disordered |= line["item"] != one.number or "instead" in line
                    self._count(line, one.number, place)
                    continue
                one.instead, one.before = place, Spent.of(line)
            yield one

    def _named(self, one: Waiting, item: Item) -> bytes:
        """Reads an item and returns its key. One that does not fit has its place for a key."""
        try:
            one.inputs = self._inputs(item)
            return self._key(one.inputs)
        except InputError as error:
            named = error.message.startswith(item.where)
            fault = error if named else InputError(f"{item.where}: {error.message}", error.hint)
            if one.number == 0 or self._on_error == "raise":  # likely that none fits
                raise fault from None
            one.fault = fault
            return hashlib.sha256(f"{self.task.digest}\nunfit {one.number}".encode()).digest()[:16]

    def _stands(self, line: Line) -> bool:
        return "value" in line or (line["error"]["kind"] in _ANSWERED and not self._retry)

    async def _one(self, one: Waiting) -> None:
        spent = Spent()
        try:
            if one.fault is not None:
                raise one.fault
            with self.task._span(self.around, (), one.inputs) as (span, inputs):
                span["windlass.map.item"] = one.number
                steps = metered(asking(self.task._question(inputs, self.model)), spent)
                outcome = self.task._noted(span, await arun(steps, self.model, self.around.recorder))
        except _OF_THE_ITEM as error:
            await self.failed(one, error, spent)
        else:
            await self.answered(one, outcome, spent)

    async def answered(self, one: Waiting, outcome: Outcome[Any], spent: Spent) -> None:
        await self._store(one, {**self._written(outcome.value, one.inputs), "trace": outcome.trace_id}, spent)

    def _written(self, value: Any, inputs: Mapping[str, Any]) -> Line:
        """The value as JSON; and where it can only be read beside its inputs (quotations are), their texts, too."""
        if self._shape is None:
            return {"value": value}
        plain = self._shape.plain(value)
        try:
            self._shape.value(plain)
        except Unfit:
            texts = {name: text for name, text in inputs.items() if isinstance(text, str | int | float | list | dict)}
            return {"value": plain, "inputs": texts}
        return {"value": plain}

    async def failed(self, one: Waiting, error: WindlassError, spent: Spent) -> None:
        """Keeps the reason; or ends the run, where no other item would fare better, or the caller wants it so."""
        hopeless = isinstance(error, ProviderError) and error.status in HOPELESS
        if not hopeless or spent.attempts:
            reason = {"kind": type(error).__name__, "reason": error.message}
            await self._store(one, {"error": reason}, spent)
        if hopeless or self._on_error == "raise":
            raise error

    async def _store(self, one: Waiting, said: Line, spent: Spent) -> None:
        self.done.spent_now += spent
        whole = Spent()
        whole += one.before
        whole += spent
        line: Line = {"item": one.number, "key": one.key.hex(), **said, **whole.line()}
        if one.instead is not None:
            line["instead"] = one.instead
            self.disordered = True
        place = await self.book.add(line)
        self._count(line, one.number, place)
        if self._progress is not None:
            self._progress.update(self._finished, self._note())

    def _count(self, line: Line, number: int, place: int) -> None:
        done = self.done
        if "error" in line:
            done.failed += 1
            if self._on_error == "raise" and self.failure is None:
                self.failure = _again(number, line["error"], done.journal)
        else:
            done.values += 1
        done.spent += Spent.of(line)
        done.places[number] = place
        # In order is: each line stands behind the one of the item before it.
        self.disordered |= number > 0 and not 0 <= done.places[number - 1] < place
        self._finished += 1

    def tell(self, what: str) -> None:
        """A line of progress while nothing is finished."""
        if self._progress is not None:
            self._progress.update(self._finished, what)

    def _note(self) -> str:
        failed = f" · {self.done.failed:,} failed" if self.done.failed else ""
        return f"{money(self.done.spent)}{failed}"

    @cached_property
    def _base(self) -> Any:
        return hashlib.sha256(f"{self.task.digest}\n{self.model.name}\n{self.model.digest}".encode())

    def _key(self, inputs: Mapping[str, Any]) -> bytes:
        """Of the task, the model and the words and media that say this item."""
        key = self._base.copy()
        said = content(inputs, self.task.signature.inputs)
        for part in (said,) if isinstance(said, str) else said:
            for piece in (part,) if isinstance(part, str) else (getattr(part, f.name) for f in fields(part)):
                data = piece if isinstance(piece, bytes) else str(piece).encode("utf-8", "replace")
                key.update(b"%d:" % len(data))
                key.update(data)
        return key.digest()[:16]  # type: ignore[no-any-return]


@dataclass(slots=True)
class Waiting:
    """An item that has no answer yet."""

    number: int
    inputs: dict[str, Any] = field(default_factory=dict)
    key: bytes = b""
    fault: InputError | None = None
    """Why it cannot be asked."""
    instead: int | None = None
    """Place of the line that the new one supersedes."""
    before: Spent = field(default_factory=Spent)
    """What earlier runs paid for it."""


def _again(number: int, error: Mapping[str, str], journal: Path) -> NoAnswer:
    hint = f"It stands in {journal}. retry_errors=True asks such items again."
    return NoAnswer(f"Item {number} failed in an earlier run: {error['reason']}", hint, ())


def _temporary() -> Path:
    handle, name = tempfile.mkstemp(prefix="windlass-map-", suffix=".jsonl")
    os.close(handle)
    return Path(name)

"""One run of a map: which items still need an answer, and what has become of all of them.

Who asks (`mapping` one by one, `batching` by the provider's batches) takes what is `waiting` and hands back what was
`answered` or `failed`; the journal has it before it counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from windlass.apply.tasks.forms.schema import Unfit
from windlass.apply.tasks.mapping.items import Inputs, Item
from windlass.apply.tasks.mapping.journal import Journal, Line
from windlass.apply.tasks.mapping.results import Mapped, Spent, money, shape_of
from windlass.apply.tasks.mapping.silence import Silence
from windlass.apply.tasks.outcome import NoAnswer, Outcome, Refused
from windlass.apply.tasks.prompt import content
from windlass.apply.tasks.running import Model
from windlass.apply.tasks.surroundings import Surroundings, here
from windlass.apply.tasks.variant import Variant
from windlass.core.errors import InputError, ProviderError, WindlassError
from windlass.core.progress import Progress

R = TypeVar("R")
OnError = Literal["keep", "raise"]

HOPELESS = (401, 403, 404)
"""Status of a provider that lets nobody in, or knows no such model: no other item would fare better."""
_ANSWERED = (NoAnswer.__name__, Refused.__name__)
"""Errors that were paid for, and stand: the model said what it had to say."""


class Run(Generic[R]):
    """One run of a map: what each item needs, and what has become of all of them."""

    def __init__(
        self, variant: Variant[R], book: Journal, done: Mapped[R], on_error: OnError, retry: bool,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.variant, self.book, self.done = variant, book, done
        self.around: Surroundings = here()
        self.model: Model = variant.model(self.around)
        self.failure: BaseException | None = None
        """Why no more items are taken."""
        self.disordered = False
        self._on_error, self._retry, self._progress = on_error, retry, progress
        self._shape = shape_of(variant.signature)
        self._inputs = Inputs(variant.signature)
        self._finished = 0
        self._silence = Silence()

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
            return hashlib.sha256(f"{self.variant.digest}\nunfit {one.number}".encode()).digest()[:16]

    def _stands(self, line: Line) -> bool:
        return "value" in line or (line["error"]["kind"] in _ANSWERED and not self._retry)

    async def answered(self, one: Waiting, outcome: Outcome[Any], spent: Spent) -> None:
        self._silence.broken()
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
        self._silence.failed(error)

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
        return hashlib.sha256(f"{self.variant.digest}\n{self.model.name}\n{self.model.digest}".encode())

    def _key(self, inputs: Mapping[str, Any]) -> bytes:
        """Of the task, the model and the words and media that say this item."""
        key = self._base.copy()
        said = content(inputs, self.variant.signature.inputs)
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

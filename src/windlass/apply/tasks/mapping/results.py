"""What came of a task's items, and what each took: values, errors, attempts, tokens and dollars."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.mapping.journal import Line, lines_at
from windlass.apply.tasks.outcome import Outcome
from windlass.apply.tasks.signature import Signature
from windlass.core.errors import InputError
from windlass.core.values import ChatRequest, ChatResponse, Usage

R = TypeVar("R")


@dataclass(slots=True)
class Spent:
    """What an item took: all its attempts, also those before an error or in an earlier run."""

    attempts: int = 0
    known_tokens: Usage = field(default_factory=Usage)
    known_usd: float = 0.0
    unpriced: int = 0
    """Attempts whose price is not known."""
    uncounted: int = 0
    """Attempts that reported no tokens."""

    def add(self, response: ChatResponse) -> None:
        usage, cost = response.usage, response.cost_usd
        self += Spent(1, usage, cost or 0.0, int(cost is None), int(usage == Usage()))

    def __iadd__(self, other: Spent) -> Spent:
        self.attempts += other.attempts
        self.known_tokens += other.known_tokens
        self.known_usd += other.known_usd
        self.unpriced += other.unpriced
        self.uncounted += other.uncounted
        return self

    @property
    def usage(self) -> Usage:
        """No count is known when one of the attempts did not report its own."""
        return Usage() if self.uncounted else self.known_tokens

    @property
    def cost_usd(self) -> float | None:
        """US dollars; None when one of the attempts has no known price."""
        return None if self.unpriced else self.known_usd

    @classmethod
    def of(cls, line: Line) -> Spent:
        return cls(
            line["attempts"], Usage(**line["usage"]), line["known_usd"], line["unpriced"], line.get("uncounted", 0)
        )  # fmt: skip

    def line(self) -> Line:
        known = self.known_tokens
        counts = {f.name: count for f in fields(Usage) if (count := getattr(known, f.name)) is not None}
        return {
            "attempts": self.attempts, "usage": counts, "known_usd": self.known_usd, "unpriced": self.unpriced,
            "uncounted": self.uncounted,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """What came of one item."""

    item: int
    """Its number, from 0 on."""
    value: R | None
    error: str | None
    """Why there is no value."""
    kind: str | None
    """The error's class: `NoAnswer`, `Refused`, `ProviderError`, `TimedOut`, `InputError`."""
    usage: Usage
    cost_usd: float | None
    attempts: int
    trace_id: str | None


class Mapped(Generic[R]):
    """The results of a map, in the order of its items, read from the journal each time."""

    def __init__(self, signature: Signature, journal: Path, temporary: bool) -> None:
        self.signature = signature
        self.journal = journal
        self.values = 0
        """Items that have a value."""
        self.failed = 0
        self.resumed = 0
        """Items whose answers stood in the journal already."""
        self.spent = Spent()
        """By all items, earlier runs included."""
        self.spent_now = Spent()
        """By this run."""
        self.repeated = 0
        """At most so many items were under way when earlier runs died: what they had cost by then was paid twice."""
        self.left = 0
        """Lines in the journal that are none of these items': kept, and not counted."""
        self.seconds = 0.0
        self.places = array("q")
        self._shape = shape_of(signature)
        if temporary:
            weakref.finalize(self, journal.unlink, missing_ok=True)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def usage(self) -> Usage:
        return self.spent.usage

    @property
    def cost_usd(self) -> float | None:
        return self.spent.cost_usd

    def __iter__(self) -> Iterator[Result[R]]:
        for number, line in enumerate(lines_at(self.journal, self.places)):
            error = line.get("error") or {}
            spent = Spent.of(line)
            yield Result(
                number, self._value(number, line), error.get("reason"), error.get("kind"),
                spent.usage, spent.cost_usd, spent.attempts, line.get("trace"),
            )  # fmt: skip

    def _value(self, number: int, line: Line) -> R | None:
        if "value" not in line:
            return None
        if self._shape is None:
            return line["value"]  # type: ignore[no-any-return]
        try:
            value: R = self._shape.value(line["value"], line.get("inputs"))
            return value
        except Unfit as unfit:
            raise InputError(
                f"{self.journal}: the value of item {number} is not what '{self.signature.name}' returns: {unfit}.",
                "Was the journal edited, or does the type not read what it writes?",
            ) from unfit

    def __str__(self) -> str:
        lines = [
            f"{self.values:,} of {len(self):,} items have a value, {self.failed:,} failed; "
            f"{tokens(self.spent)}, {money(self.spent)}"
        ]
        if self.resumed:
            lines.append(f"{self.resumed:,} stood in the journal already; this run: {money(self.spent_now)}")
        if self.repeated:
            lines.append(
                f"Up to {self.repeated:,} items were under way when an earlier run died: they were asked again, and "
                "what they had cost by then is not counted."
            )
        if self.left:
            lines.append(f"{self.left:,} lines of the journal belong to other items, or another version of the task.")
        return "\n".join(lines)


def tokens(spent: Spent) -> str:
    known = spent.known_tokens.total
    if known is None:
        return "tokens not reported"
    return f"{known:,} tokens" + (f" and {spent.uncounted:,} answers that report none" if spent.uncounted else "")


def money(spent: Spent) -> str:
    if not spent.unpriced:
        return f"${spent.known_usd:,.4f}"
    return f"${spent.known_usd:,.4f} and {spent.unpriced:,} answers without a known price"


def metered(
    steps: Generator[ChatRequest, ChatResponse, Outcome[Any]], spent: Spent
) -> Generator[ChatRequest, ChatResponse, Outcome[Any]]:
    """`steps`, with every answer counted: also when the one after it fails."""
    try:
        request = next(steps)
        while True:
            response = yield request
            spent.add(response)
            request = steps.send(response)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def shape_of(signature: Signature) -> Shape[Any] | None:
    """The form of values in the journal; None: text."""
    output = signature.output
    return None if output is str else Shape(output, where=f"'{signature.name}'")

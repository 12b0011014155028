"""What came of asking: the value, every attempt, and what all of them cost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from windlass.core.errors import WindlassError
from windlass.core.values import ChatRequest, ChatResponse, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    request: ChatRequest
    response: ChatResponse
    problems: Sequence[str] = ()
    """What was wrong with the answer; none: it was taken."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    value: T
    attempts: Sequence[Attempt]
    trace_id: str | None = None

    @property
    def usage(self) -> Usage:
        """Tokens of all attempts; no count is known when one of them did not report its own."""
        return usage_of(self.attempts)

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all attempts; None when one of them is not known."""
        return cost_of(self.attempts)


class NoAnswer(WindlassError):
    """No attempt gave a value that fits. `attempts` holds what was said."""

    def __init__(self, message: str, hint: str, attempts: Sequence[Attempt]) -> None:
        super().__init__(message, hint)
        self.attempts = tuple(attempts)

    @property
    def usage(self) -> Usage:
        return usage_of(self.attempts)

    @property
    def cost_usd(self) -> float | None:
        return cost_of(self.attempts)


class Refused(NoAnswer):
    """The model declined to answer."""


def usage_of(attempts: Sequence[Attempt]) -> Usage:
    """Their sum, which is as unknown as the least known of them: a sum of the others would pass for all."""
    total = Usage()
    for attempt in attempts:
        if attempt.response.usage == Usage():
            return Usage()
        total += attempt.response.usage
    return total


def cost_of(attempts: Sequence[Attempt]) -> float | None:
    costs = [attempt.response.cost_usd for attempt in attempts]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None

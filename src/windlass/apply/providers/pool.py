"""Several models that stand in for each other: the next is asked when one fails, and one that keeps failing is spared.

    Pool([model("openai:gpt-5-mini"), model("ollama:qwen3")])                # in this order
    Pool([here, there], balance=True, weights=[3, 1])                       # three calls of four go here first

A model that failed `failures` times in a row is left out for `pause` seconds; then one call tries it, and the others
follow if it answers (the circuit breaker of Nygard, "Release It!"). A request that is itself wrong goes nowhere else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windlass.apply.providers.wrapper import can_be_awaited, can_be_waited_for, costs_of, identity_of
from windlass.core.errors import ConfigError, ProviderError, TimedOut
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.trace import carried, current_span
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Usage

Model = ChatModel | AsyncChatModel

OWN_FAULT = frozenset({400, 422})
"""Statuses that say that the request itself is wrong: no other model is asked."""


@dataclass(slots=True)
class _Member:
    model: Model
    weight: float
    failed: int = 0
    """How often in a row."""
    until: float = 0.0
    """When it may be asked again, once it has failed too often."""


class Pool:
    """Implements `ChatModel` and `AsyncChatModel`. Raises what the last model raised."""

    digest: str | None = None

    def __init__(
        self,
        models: Sequence[Model],
        *,
        balance: bool = False,
        weights: Sequence[float] | None = None,
        failures: int = 3,
        pause: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        shares = [1.0] * len(models) if weights is None else list(weights)
        if not models:
            raise ConfigError("A pool needs at least one model.")
        if len(shares) != len(models) or any(share <= 0 for share in shares):
            raise ConfigError(f"A pool of {len(models)} models needs as many weights above 0.")
        self._members = [_Member(model, share) for model, share in zip(models, shares)]
        self._balance = balance
        self._failures, self._pause, self._clock = failures, pause, clock

    @property
    def name(self) -> str:
        return "+".join(dict.fromkeys(member.model.name for member in self._members))

    @property
    def structured(self) -> Literal["schema", "tool", "prompt"]:
        """What all of them can: the first way that none of them lacks."""
        ways = {getattr(member.model, "structured", "schema") for member in self._members}
        return "prompt" if "prompt" in ways else "tool" if "tool" in ways else "schema"

    @property
    def identity(self) -> Any:
        return [identity_of(member.model) for member in self._members]

    def costs(self, usage: Usage, request: ChatRequest) -> float | None:
        """The most that one of them would cost; None when that is not known of all."""
        costs = [costs_of(member.model, usage, request) for member in self._members]
        known = [cost for cost in costs if cost is not None]
        return max(known) if len(known) == len(costs) else None

    def complete(self, request: ChatRequest) -> ChatResponse:
        for turn in self._turns():
            if not can_be_waited_for(turn.member.model):
                raise TypeError(f"{turn.member.model.name} can be asked on an event loop only.")
            with turn:
                return turn.member.model.complete(request)
        raise AssertionError("the last turn raises")

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """Another model is asked only as long as nothing has been said."""
        for turn in self._turns():
            if not can_be_waited_for(turn.member.model):
                raise TypeError(f"{turn.member.model.name} can be asked on an event loop only.")
            with turn:
                for delta in turn.member.model.stream(request):
                    turn.last = True
                    yield delta
                return

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        for turn in self._turns():
            with turn:
                if can_be_awaited(turn.member.model):
                    return await turn.member.model.acomplete(request)
                return await asyncio.to_thread(carried(turn.member.model.complete), request)
        raise AssertionError("the last turn raises")

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        for turn in self._turns():
            if not can_be_awaited(turn.member.model):
                raise TypeError(f"{turn.member.model.name} cannot stream on an event loop.")
            with turn:
                async for delta in turn.member.model.astream(request):
                    turn.last = True
                    yield delta
                return

    def _turns(self) -> list[_Turn]:
        """Those to be asked, in their order. If all are spared, the one whose pause is over first."""
        members = list(self._members)
        if self._balance:  # without replacement, each time in proportion to the weights (Efraimidis & Spirakis 2006)
            members.sort(key=lambda member: random.random() ** (1 / member.weight), reverse=True)
        now = self._clock()
        ready = [m for m in members if m.failed < self._failures or now >= m.until]
        ready = ready or [min(members, key=lambda member: member.until)]
        return [_Turn(self, member, last=member is ready[-1]) for member in ready]


class _Turn:
    """One model's turn to answer. A failure that another model may not have ends it quietly, save the last one's."""

    def __init__(self, pool: Pool, member: _Member, *, last: bool) -> None:
        self.member = member
        self.last = last
        """Whether nobody is asked afterwards."""
        self._pool = pool

    def __enter__(self) -> None:
        if self.member.failed >= self._pool._failures:  # this call tries it; the others keep away until it has answered
            self.member.until = self._pool._clock() + self._pool._pause

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        member = self.member
        if error is None:
            member.failed = 0
            return False
        if not isinstance(error, ProviderError | TimedOut) or getattr(error, "status", None) in OWN_FAULT:
            return False
        member.failed += 1
        member.until = self._pool._clock() + self._pool._pause
        if not self.last and (span := current_span()) is not None:
            passed = span.attributes.setdefault("windlass.fallbacks", [])
            passed.append(f"{member.model.name}: {error.message}")
        return not self.last

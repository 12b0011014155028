"""Several models that stand in for each other: the next is asked when one fails, and one that keeps failing is spared.

    Pool([model("openai:gpt-5-mini"), model("ollama:qwen3")])                # in this order
    Pool([here, there], balance=True, weights=[3, 1])                       # three calls of four go here first

A model that failed `failures` times in a row is left out for `pause` seconds; then one call tries it, and the others
follow if it answers (the circuit breaker of Nygard, "Release It!"). One whose budget or window does not allow the
request is passed over, which is no failure of its. A request that is itself wrong goes nowhere else.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windlass.apply.wrappers.budget import OverBudget
from windlass.apply.wrappers.wrapper import can_be_awaited, can_be_waited_for, costs_of, identity_of
from windlass.core.errors import ConfigError, ProviderError, TimedOut, TooLong, WindlassError
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.spans import carried, current_span
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Usage

Model = ChatModel | AsyncChatModel

OWN_FAULT = frozenset({400, 422})
"""Statuses that say that the request itself is wrong: no other model is asked."""
_FAILED = (ProviderError, TimedOut)
_PASSED_OVER = (OverBudget, TooLong)
"""Not asked at all, while another model may have the means or the room."""


@dataclass(slots=True)
class _Member:
    model: Model
    weight: float
    failed: int = 0
    """How often in a row."""
    until: float = 0.0
    """When it may be asked again, once it has failed too often."""


class Pool:
    """Implements `ChatModel` and `AsyncChatModel`.

    Where nobody answers it raises the last failure, as that may be over later, or else the last reason why one could
    not be asked; the message names every model and its reason.
    """

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

    def _turns(self) -> _Turns:
        members = list(self._members)
        if self._balance:  # without replacement, each time in proportion to the weights (Efraimidis & Spirakis 2006)
            members.sort(key=lambda member: random.random() ** (1 / member.weight), reverse=True)
        return _Turns(self, members)


class _Turns:
    """Who is asked, one after the other, and why nobody has answered yet."""

    def __init__(self, pool: Pool, members: Sequence[_Member]) -> None:
        now = pool._clock()
        self.pool = pool
        self.waiting = [m for m in members if m.failed < pool._failures or now >= m.until]
        self._spared = sorted((m for m in members if m not in self.waiting), key=lambda member: member.until)
        self._reasons: list[tuple[str, WindlassError]] = []

    def __iter__(self) -> Iterator[_Turn]:
        while self.waiting or self._spared:
            if not self.waiting:  # nobody else could be asked: then the one whose pause is over first
                self.waiting, self._spared = self._spared[:1], self._spared[1:]
            yield _Turn(self, self.waiting.pop(0))

    def others(self) -> bool:
        """Whether another model may answer."""
        failed = any(isinstance(error, _FAILED) for _, error in self._reasons)
        return bool(self.waiting or (self._spared and not failed))

    def note(self, name: str, error: WindlassError) -> None:
        self._reasons.append((name, error))
        if self.others() and (span := current_span()) is not None:
            span.attributes.setdefault("windlass.fallbacks", []).append(f"{name}: {error.message}")

    def error(self) -> WindlassError:
        """What is raised where all have had their turn."""
        errors = [error for _, error in self._reasons]
        worst = ([error for error in errors if isinstance(error, _FAILED)] or errors)[-1]
        told = [f"{name}: {error.message}" for name, error in self._reasons]
        told += [f"{m.model.name}: spared, as it failed {m.failed} times in a row." for m in self._spared]
        if len(told) == 1:
            return worst
        whole = copy.copy(worst)  # of its own class, with its status, for those who look at it
        whole.message = f"No model of the pool answered. {' '.join(told)}"
        return whole


class _Turn:
    """One model's turn to answer. An error that another model may not have ends it quietly, save the last one's."""

    def __init__(self, turns: _Turns, member: _Member) -> None:
        self.member = member
        self.last = False
        """Whether nobody is to be asked afterwards, whatever happens."""
        self._turns = turns
        self._until = member.until

    def __enter__(self) -> None:
        pool = self._turns.pool
        if self.member.failed >= pool._failures:  # this call tries it; the others keep away until it has answered
            self.member.until = pool._clock() + pool._pause

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        member, turns = self.member, self._turns
        if error is None:
            member.failed = 0
            return False
        if isinstance(error, _FAILED) and getattr(error, "status", None) not in OWN_FAULT:
            member.failed += 1
            member.until = turns.pool._clock() + turns.pool._pause
        elif isinstance(error, _PASSED_OVER):
            member.until = self._until
        else:
            return False
        if self.last:
            return False
        turns.note(member.model.name, error)
        if turns.others():
            return True
        whole = turns.error()
        if whole is error:
            return False
        raise whole from error

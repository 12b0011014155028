"""What calls may take together, enforced before each: in dollars or tokens, under a name, per day, month or ever.

    Budgeted(model("openai:gpt-5-mini"), Budget("team-a", dollars=5.0), ledger)          # five dollars a day
    Budgeted(m, [Budget("summaries", dollars=1.0), Budget("team-a", tokens=10_000_000, per="month")], ledger)

Before a call its prompt is counted or estimated (`tokens`), `max_tokens` or else 1,000 tokens of answer are added, and
all that may come to is held back, so that calls at once, of other processes too, see each other. Afterwards what it
took is charged instead. A call whose estimate does not fit is not made. One that fits and takes more, because it has no
`max_tokens`, passes the limit once: then the next is refused.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.apply.wrappers.ledger import Ledger, Per, Slot, Spent, period
from windlass.apply.wrappers.tokens import count, tokenizer_at
from windlass.apply.wrappers.wrapper import Model, Wrapper, innermost, to_its_end
from windlass.core.errors import ConfigError, ProviderError, TimedOut, WindlassError, WorkspaceError
from windlass.core.pricing import Price
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Usage

ASSUMED_OUTPUT = 1000
"""Tokens of an answer without `max_tokens`, as estimated."""


class OverBudget(WindlassError):
    """The call was not made: a budget does not allow what it may take."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At least one of `dollars` and `tokens` is given; days and months are those of UTC."""

    name: str = ""
    """Whatever is spent together: a task, a key, a team. Empty, of a task: the task's own name."""
    dollars: float | None = None
    tokens: int | None = None
    per: Per = "day"

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.dollars, self.tokens) if limit is not None]
        if not limits:
            raise ConfigError(f"The budget '{self.name}' limits neither dollars nor tokens.", "Give one of them.")
        if not all(limit > 0 and math.isfinite(limit) for limit in limits):
            raise ConfigError(f"The limits of the budget '{self.name}' must be above 0.", "Make none for no limit.")
        if self.per not in ("day", "month", "ever"):
            raise ConfigError(f"The budget '{self.name}' is per '{self.per}'.", "Allowed: day, month, ever.")


class Budgeted(Wrapper):
    """Implements `ChatModel` and `AsyncChatModel`. Raises `OverBudget`, and before any call `ConfigError` when a limit
    is in dollars and the model's price is not known.

    `price`: of a model that the price table does not know. `tokenizer`: a tokenizers JSON that counts its prompts.
    """

    def __init__(
        self,
        model: Model,
        budgets: Budget | Sequence[Budget],
        ledger: Ledger,
        *,
        price: Price | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        super().__init__(model)
        self.budgets = [budgets] if isinstance(budgets, Budget) else list(budgets)
        if not self.budgets or not all(budget.name for budget in self.budgets):
            raise ConfigError("A budgeted model needs budgets with names.", 'Write Budget("team-a", dollars=5).')
        if len({(budget.name, budget.per) for budget in self.budgets}) < len(self.budgets):
            raise ConfigError("Two budgets have one name and period.", "One budget may limit dollars and tokens.")
        self._ledger = ledger
        self._price = price
        self._of_text = None if tokenizer is None else tokenizer_at(tokenizer)

    def complete(self, request: ChatRequest) -> ChatResponse:
        with self._begun(request) as call:
            return call.took(self._ask(request))

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        with self._begun(request) as call, self._deltas(request) as deltas:
            for delta in deltas:
                call.answered = True
                if delta.response is not None:
                    call.took(delta.response)
                yield delta

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        async with self._abegun(request) as call:
            return call.took(await self._aask(request))

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        async with self._abegun(request) as call, self._adeltas(request) as deltas:
            async for delta in deltas:
                call.answered = True
                if delta.response is not None:
                    call.took(delta.response)
                yield delta

    def spent(self, now: float | None = None) -> dict[str, Spent]:
        """What each budget's current period has seen, by its name."""
        at = time.time() if now is None else now
        return {budget.name: self._ledger.spent(Slot(budget.name, period(budget.per, at))) for budget in self.budgets}

    # one call ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _begun(self, request: ChatRequest) -> Iterator[_Call]:
        call = self._estimate(request)
        self._hold(call)
        try:
            call.sent = True
            yield call
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            self._settle(call)

    @contextlib.asynccontextmanager
    async def _abegun(self, request: ChatRequest) -> AsyncIterator[_Call]:
        """As `_begun`. Cancelled while it waits for the ledger, it gives back what it held."""
        call = self._estimate(request)
        try:
            await to_its_end(self._hold, call)
            call.sent = True
            yield call
        except BaseException as error:
            call.failed(error)
            raise
        finally:
            if call.held:
                await to_its_end(self._settle, call)

    def _estimate(self, request: ChatRequest) -> _Call:
        read = count(request, innermost(self.model), self._of_text).tokens
        usage = Usage(input=read, output=request.max_tokens or ASSUMED_OUTPUT)
        dollars = self.costs(usage, request)
        if dollars is None and any(budget.dollars is not None for budget in self.budgets):
            raise ConfigError(
                f"The price of '{self.name}', asked for like this, is not known: no limit in dollars can be kept.",
                f'Write [prices."{self.name}"] in windlass.toml, ask at the standard tier, or limit tokens.',
            )
        return _Call(request, usage.total or 0, dollars or 0.0, priced=dollars is not None)

    def costs(self, usage: Usage, request: ChatRequest) -> float | None:
        return super().costs(usage, request) if self._price is None else self._price.of(usage)

    def _hold(self, call: _Call) -> None:
        now = time.time()
        call.slots = [Slot(budget.name, period(budget.per, now)) for budget in self.budgets]
        limits = dict(zip(call.slots, self.budgets, strict=True))

        def check(slot: Slot, spent: Spent) -> None:
            _refuse(limits[slot], spent, call)

        self._ledger.hold(call.slots, call.tokens, call.dollars, check)
        call.held = True

    def _settle(self, call: _Call) -> None:
        tokens, dollars = call.tokens, call.dollars if call.priced else None
        if call.response is not None and call.response.kept is not None:
            tokens, dollars = 0, 0.0
        elif call.response is not None:
            usage = call.response.usage
            if usage.total is not None:  # else nobody reported it, and the estimate stays
                tokens = usage.total
                dollars = call.response.cost_usd
                if dollars is None:
                    dollars = self.costs(usage, call.request)
                if dollars is None and any(budget.dollars is not None for budget in self.budgets):
                    dollars = call.dollars
        elif call.free:
            tokens, dollars = 0, 0.0
        try:
            self._ledger.settle(call.slots, call.tokens, call.dollars, tokens, dollars)
        except WorkspaceError as error:  # the answer is paid for: it is not lost because the disk is full
            warnings.warn(f"A call stays charged as it was estimated: {error.message}", stacklevel=3)


@dataclass(slots=True)
class _Call:
    """What a call may take, and what came of it."""

    request: ChatRequest
    tokens: int
    dollars: float
    priced: bool
    """Whether `dollars` are known."""
    slots: Sequence[Slot] = ()
    held: bool = False
    """Whether the estimate is charged."""
    sent: bool = False
    answered: bool = False
    """Whether the answer began: from then on it costs."""
    response: ChatResponse | None = None
    free: bool = False
    """Failed in a way that nobody charges for. All other failures are charged as estimated: they may have cost."""

    def took(self, response: ChatResponse) -> ChatResponse:
        self.response = response
        return response

    def failed(self, error: BaseException) -> None:
        self.free = not self.sent or (not self.answered and _costs_nothing(error))


def _costs_nothing(error: BaseException) -> bool:
    """Whether a call that failed in this way was refused, or never arrived."""
    if isinstance(error, ProviderError):
        # By name, as whoever budgets a local model has no HTTP client to import.
        unsent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
        return unsent or (error.status is not None and error.status >= 400)
    return isinstance(error, WindlassError) and not isinstance(error, TimedOut)


def _refuse(budget: Budget, spent: Spent, call: _Call) -> None:
    """Raises `OverBudget` if the call does not fit."""
    for limit, taken, held, more, shown in (
        (budget.dollars, spent.dollars, spent.dollars_held, call.dollars, _dollars),
        (budget.tokens, spent.tokens, spent.tokens_held, call.tokens, _tokens),
    ):
        # A millionth of a cent: sums of binary fractions do not end exactly at a limit.
        if limit is None or taken + held + more <= limit + 1e-8:
            continue
        until = {"day": "Wait until 00:00 UTC, raise", "month": "Wait for the next month, raise", "ever": "Raise"}
        raise OverBudget(
            f"The budget '{budget.name}' of {shown(limit)}{_PER[budget.per]} does not allow this call: {shown(taken)}"
            f" spent, {shown(held)} held by calls under way, and it may take {shown(more)}.",
            f"{until[budget.per]} the budget, or lower max_tokens.",
        )


_PER = {"day": " a day", "month": " a month", "ever": " in all"}


def _dollars(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.2g}"


def _tokens(amount: float) -> str:
    return f"{amount:,.0f} tokens"

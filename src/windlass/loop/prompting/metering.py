"""What a search may spend, kept before each call and not after it."""

from __future__ import annotations

from collections.abc import Iterator

from windlass.apply.providers.budget import Budget, OverBudget
from windlass.apply.providers.wrapper import Wrapper
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse


class Meter:
    """Counts what all models of a search spend together, one call after the other.

    A call is made only if one as dear as the dearest so far would still be covered; so the budget can be passed by no
    more than what a call costs beyond all before it. `kept_back`: the share of both that is not to be touched now.
    Raises `InputError` for a budget that is not for all of one search.
    """

    def __init__(self, budget: Budget) -> None:
        if budget.name or budget.per != "ever":
            raise InputError(
                "The budget of a search is for all of that search: it has no name, and no day or month.",
                'Write Budget(dollars=2, per="ever"); a named one is a setting of the task, and holds besides.',
            )
        self.budget = budget
        self.kept_back = 0.0
        self.usd = 0.0
        self.tokens = 0
        self.calls = 0
        self._dearest = (0.0, 0)

    def before(self) -> None:
        """Raises `OverBudget`."""
        for spent, next_one, limit, unit in (
            (self.usd, self._dearest[0], self.budget.dollars, "US dollars"),
            (self.tokens, self._dearest[1], self.budget.tokens, "tokens"),
        ):
            if limit is not None and spent + next_one > limit * (1 - self.kept_back):
                raise OverBudget(
                    f"{spent:,.6g} of {limit:,.6g} {unit} are spent in {self.calls:,} calls, and the next may take "
                    f"{next_one:,.6g}"
                    + (f"; {self.kept_back:.0%} are kept for the comparison." if self.kept_back else "."),
                    "Give the search a larger budget.",
                )

    def after(self, response: ChatResponse) -> None:
        """Raises `InputError` for a call whose price, or count, is not known: such a budget cannot be kept."""
        usd, tokens = response.cost_usd, response.usage.total
        limits = ((usd, self.budget.dollars, "price"), (tokens, self.budget.tokens, "number of tokens"))
        for value, limit, what in limits:
            if value is None and limit is not None:
                raise InputError(
                    f"The {what} of a call to {response.model} is not known, so the budget cannot be kept.",
                    "Set its price in windlass.toml under [prices], or limit the other of dollars and tokens.",
                )
        self.calls += 1
        self.usd += usd or 0.0
        self.tokens += tokens or 0
        self._dearest = max(self._dearest[0], usd or 0.0), max(self._dearest[1], tokens or 0)

    @property
    def share(self) -> float:
        """Of the budget, that is spent: the larger of the two."""
        usd, tokens = self.budget.dollars, self.budget.tokens
        return max(self.usd / usd if usd else 0.0, self.tokens / tokens if tokens else 0.0)


class Metered(Wrapper):
    """Implements `ChatModel` over another one, on a meter."""

    def __init__(self, model: ChatModel, meter: Meter) -> None:
        super().__init__(model)
        self._meter = meter

    def complete(self, request: ChatRequest) -> ChatResponse:
        self._meter.before()
        response = self._ask(request)
        self._meter.after(response)
        return response

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self._meter.before()
        with self._deltas(request) as deltas:
            for delta in deltas:
                if delta.response is not None:
                    self._meter.after(delta.response)
                yield delta

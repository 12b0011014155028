"""What a search may spend, kept before each call and not after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from windlass.core.errors import InputError, WindlassError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse


@dataclass(frozen=True, slots=True)
class Budget:
    """US dollars and tokens; None: not limited in this. Raises `InputError` when nothing is limited."""

    usd: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.usd, self.tokens) if limit is not None]
        if not limits or min(limits) <= 0:
            raise InputError("A search needs a budget above 0.", "Give it dollars, tokens, or both.")


class Spent(WindlassError):
    """The next call might not be covered by the budget, so it was not made."""


class Meter:
    """Counts what all models of a search spend together.

    A call is made only if one as dear as the dearest so far would still be covered; so the budget can be passed by no
    more than what a call costs beyond all before it. `kept_back`: the share of both that is not to be touched now.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.kept_back = 0.0
        self.usd = 0.0
        self.tokens = 0
        self.calls = 0
        self._dearest = (0.0, 0)

    def before(self) -> None:
        """Raises `Spent`."""
        for spent, next_one, limit, unit in (
            (self.usd, self._dearest[0], self.budget.usd, "US dollars"),
            (self.tokens, self._dearest[1], self.budget.tokens, "tokens"),
        ):
            if limit is not None and spent + next_one > limit * (1 - self.kept_back):
                raise Spent(
                    f"{spent:,.6g} of {limit:,.6g} {unit} are spent in {self.calls:,} calls, and the next may take "
                    f"{next_one:,.6g}"
                    + (f"; {self.kept_back:.0%} are kept for the comparison." if self.kept_back else "."),
                    "Give the search a larger budget.",
                )

    def after(self, response: ChatResponse) -> None:
        """Raises `InputError` for a call whose price, or count, is not known: such a budget cannot be kept."""
        usd, tokens = response.cost_usd, response.usage.total
        for value, limit, what in ((usd, self.budget.usd, "price"), (tokens, self.budget.tokens, "number of tokens")):
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
        usd, tokens = self.budget.usd, self.budget.tokens
        return max(self.usd / usd if usd else 0.0, self.tokens / tokens if tokens else 0.0)


class Metered:
    """Implements `ChatModel` over another one, on a meter."""

    def __init__(self, model: ChatModel, meter: Meter) -> None:
        self._model = model
        self._meter = meter
        self.structured: Literal["schema", "tool", "prompt"] = getattr(model, "structured", "schema")

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def digest(self) -> str | None:
        return self._model.digest

    def complete(self, request: ChatRequest) -> ChatResponse:
        self._meter.before()
        response = self._model.complete(request)
        self._meter.after(response)
        return response

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self._meter.before()
        for delta in self._model.stream(request):
            if delta.response is not None:
                self._meter.after(delta.response)
            yield delta

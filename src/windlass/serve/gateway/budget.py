"""What a key may still spend: held back before a call by an estimate, settled after it by what it took.

Without the estimate, a hundred calls at once would all find the budget untouched. What calls under way may come to
take is held in memory; what they took is counted in the workspace, by `serve.keys`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from windlass.core.values import Usage
from windlass.serve.errors import HttpError
from windlass.serve.gate import admit
from windlass.serve.gateway.envelope import Envelope
from windlass.serve.gateway.gateway import Gateway, Route
from windlass.serve.keys import Key, Keys

_BYTES_PER_TOKEN = 4
"""Of English in common tokenizers. Other languages take more tokens, JSON and the names of fields fewer."""
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(slots=True)
class Hold:
    """What one call may take, and then what it took."""

    key: Key
    tokens: int
    dollars: float
    answered: bool = False
    """Whether a provider began to answer: from then on it costs."""
    usage: Usage | None = None
    """None: the answer was cut off, so that nobody reported it. Then the estimate is charged."""
    cost: float | None = None


class Budgets:
    """The budgets of all keys. For one event loop."""

    def __init__(self, keys: Keys | None) -> None:
        self._keys = keys
        self._held: dict[str, list[Hold]] = defaultdict(list)

    async def hold(
        self, key: Key | None, gateway: Gateway, route: Route, model: str, envelope: Envelope, *, writes: bool
    ) -> Hold | None:
        """Counts a request of `key` and holds back what it may take; None where there is no key to charge.

        `writes`: whether the answer has tokens of its own. Raises `HttpError`: 429 when a limit is reached, or would be
        passed; 400 when the key's limit is in dollars and a price is not known.
        """
        if key is None or self._keys is None:
            return None
        hold = _estimate(key, gateway, route, model, envelope, writes)
        held = self._held[key.id]
        held.append(hold)  # before the first pause, so that calls at once see each other
        tokens, dollars = sum(one.tokens for one in held), sum(one.dollars for one in held)
        try:
            await admit(self._keys, key, tokens=tokens, dollars=dollars)
        except BaseException:
            self._release(hold)
            raise
        return hold

    def settle(self, hold: Hold | None) -> None:
        """Charges what the call took, and gives the rest back."""
        if hold is None or self._keys is None:
            return
        try:
            if hold.answered:
                counted = None if hold.usage is None else hold.usage.total
                tokens = hold.tokens if counted is None else counted
                cost = hold.cost if counted is not None else hold.dollars if _in_dollars(hold.key) else None
                self._keys.charge(hold.key, tokens, cost)
        finally:
            self._release(hold)

    def _release(self, hold: Hold) -> None:
        held = self._held[hold.key.id]
        held[:] = [one for one in held if one is not hold]
        if not held:
            del self._held[hold.key.id]


def _estimate(key: Key, gateway: Gateway, route: Route, model: str, envelope: Envelope, writes: bool) -> Hold:
    fields = envelope.fields
    read = envelope.size // _BYTES_PER_TOKEN + 1
    asked = next((n for name in _LIMITS if type(n := fields.get(name)) is int and n > 0), None)
    answers = n if type(n := fields.get("n")) is int and n > 0 else 1
    written = (asked or gateway.config.assumed_output_tokens) * answers if writes else 0
    dollars = 0.0
    if _in_dollars(key):
        for target in (*route.targets, *route.fallbacks):
            name = target.model or model
            price = gateway.price(target, name)
            cost = None if price is None else price.of(Usage(input=read, output=written))
            if cost is None:
                raise HttpError(
                    400,
                    f"The key '{key.name}' has a limit in dollars, and the price of '{name}' at"
                    f" '{target.provider}' is not known.",
                    "Give the target a price in the gateway's configuration: price = { input = …, output = … }.",
                    code="price_unknown",
                    param="model",
                )
            dollars = max(dollars, cost)
    return Hold(key, read + written, dollars)


def _in_dollars(key: Key) -> bool:
    return key.limits.dollars_per_day is not None or key.limits.dollars_per_month is not None

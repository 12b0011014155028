"""The targets of a route while the gateway runs: who is busy, who rests, and in which order they are asked."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from windlass.core.pricing import Price
from windlass.serve.gateway.config import Balance, Breaker

_LONGEST_REST = 60.0
"""Seconds for which a provider is left alone at most, whatever it asks for: then one request finds out."""


class Target:
    """One model at one provider, with what was seen of it lately.

    A circuit breaker: after some failures in a row it rests, then one request tries, and only when that succeeds do
    the others follow. A provider that asks to be left alone for a time (`Retry-After`) is.
    """

    def __init__(self, provider: str, model: str, weight: float, price: Price | None, breaker: Breaker) -> None:
        self.provider = provider
        self.model = model
        self.weight = weight
        self.price = price
        self.running = 0
        self._breaker = breaker
        self._failures = 0
        self._broken = 0
        self._until = 0.0
        self._trying = False

    def wait(self) -> float:
        """Seconds until it may be asked; 0: now."""
        if self._trying:
            return self._breaker.rest_s
        return max(0.0, self._until - time.monotonic())

    def begin(self) -> None:
        self.running += 1
        if self._failures >= self._breaker.failures:
            self._trying = True

    def end(self) -> None:
        """The request is over, whatever came of it."""
        self.running -= 1
        self._trying = False

    def succeeded(self) -> None:
        self._failures = 0
        self._trying = False

    def failed(self) -> None:
        """It could not be asked, or did not answer, or answered that it is broken."""
        self._trying = False
        self._failures += 1
        if self._failures >= self._breaker.failures:
            self._until = time.monotonic() + self._breaker.rest_s

    def completed(self) -> None:
        """A stream of it reached its end."""
        self._broken = 0

    def broke(self) -> None:
        """A stream of it began well and then failed: counted apart, since each good beginning is a success."""
        self._broken += 1
        if self._broken >= self._breaker.failures:
            self._broken = 0
            self._failures = self._breaker.failures
            self._until = time.monotonic() + self._breaker.rest_s

    def leave_alone(self, seconds: float) -> None:
        """It asks to wait. That is no failure: it works, for others."""
        self._until = max(self._until, time.monotonic() + min(seconds, _LONGEST_REST))

    @property
    def resting(self) -> bool:
        return self._failures >= self._breaker.failures and self.wait() > 0


def order(targets: Sequence[Target], fallbacks: Sequence[Target], balance: Balance) -> Iterator[Target]:
    """Every target and fallback once, in the order in which one request asks them."""
    left = list(targets)
    while left:
        chosen = _chosen(left, balance)
        left.remove(chosen)
        yield chosen
    yield from fallbacks


def _chosen(targets: Sequence[Target], balance: Balance) -> Target:
    free = [target for target in targets if target.wait() == 0] or targets
    if len(free) == 1:
        return free[0]
    if balance == "least_busy":
        least = min(target.running / target.weight for target in free)
        free = [target for target in free if target.running / target.weight == least]
    return random.choices(free, [target.weight for target in free])[0]

"""What a model call costs, from a dated table of public list prices in the package, which `windlass.toml` can extend.

Nothing is fetched: a price list that changes by itself makes yesterday's figures wrong. What the table does not know
has no price, which is None and never 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from windlass.core.values import Usage

PriceOf = Callable[[str, Usage], float | None]
"""US dollars for (model that answered, usage); None when the price or a count is not known."""

_SELLERS: Mapping[str, str] = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.together.xyz": "together",
}
"""Host -> its name in the price table. A model of the same name elsewhere has no known price."""

_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens of each class. None: not sold, or not known."""

    input: float
    output: float | None = None
    """None for models that only read, such as embedders."""
    cache_read: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None
    """None: as output."""
    input_audio: float | None = None
    output_audio: float | None = None
    input_image: float | None = None
    output_image: float | None = None
    long_from: int | None = None
    """Prompts of more tokens than these cost as `long` says, all of them and the answer too."""
    long: Price | None = None
    peak: Peak | None = None
    """The hours in which it is sold at another price."""
    batch: float | None = None
    """What a call in a batch costs of it: 0.5 for half the price. None: not sold, or not known."""
    batch_cache_read: float | None = None
    """The same for what is read from a cache, where it is not taken off twice. None: as `batch`."""
    as_of: str = ""
    """The day on which this was the list price."""
    source: str = ""

    def in_batch(self) -> Price | None:
        """The price of a call in a batch."""
        if self.batch is None:
            return None
        share = dict.fromkeys(_CLASSES, self.batch)
        share["cache_read"] = self.batch if self.batch_cache_read is None else self.batch_cache_read
        prices = {name: dollars * share[name] for name in _CLASSES if (dollars := getattr(self, name)) is not None}
        long = None
        if self.long is not None:
            long = replace(self.long, batch=self.batch, batch_cache_read=self.batch_cache_read).in_batch()
        return replace(self, **prices, long=long, batch=None, batch_cache_read=None)

    def of(self, usage: Usage, at: datetime | None = None) -> float | None:
        """The cost of `usage` in US dollars; None when a class that was used has no price, or counts are missing.

        `at`: the time of the answer, now if it is not given.
        """
        if self.peak is not None:
            busy = self.peak.busy(at or datetime.now(UTC))
            if busy is None:
                return None
            return (self.peak.price if busy else replace(self, peak=None)).of(usage)
        if usage.prompt is None or (self.output is not None and usage.completion is None):
            return None
        if self.long is not None and self.long_from is not None and usage.prompt > self.long_from:
            return self.long.of(usage)
        total = 0.0
        for name in _CLASSES:
            tokens, dollars = getattr(usage, name), getattr(self, name)
            if name == "reasoning" and dollars is None:
                dollars = self.output
            if tokens:
                if dollars is None:
                    return None
                total += tokens * dollars
        return total / 1e6


_CLASSES = (
    "input", "output", "cache_read", "cache_write", "reasoning",
    "input_audio", "output_audio", "input_image", "output_image",
)  # fmt: skip
"""What `Price` has a price for."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Hours from Monday to Friday in which a seller takes another price, but for the holidays where it works."""

    price: Price
    hours: Sequence[tuple[int, int]]
    """In UTC: the first, and the first after it that is none of them."""
    holidays: Sequence[tuple[str, str]] = ()
    """Days from one date to another, both included."""
    until: str = "9999-12-31"
    """The last day of which it is known whether it is a holiday."""

    def busy(self, at: datetime) -> bool | None:
        """None: nobody knows here whether that day is a holiday."""
        at = at.astimezone(UTC)
        day = at.date().isoformat()
        if at.weekday() > 4 or not any(begin <= at.hour < end for begin, end in self.hours):
            return False
        if day > self.until:
            return None
        return not any(first <= day <= last for first, last in self.holidays)


def undated(model: str) -> str:
    """A model's name without the date at its end, if there is one."""
    return _DATED.sub("", model)


_SHARED = ("as_of", "source", "batch", "batch_cache_read")
"""What a seller's entry says once for all its models."""


@cache
def list_prices() -> Mapping[str, Price]:
    """The table in the package: "provider/model" -> price."""
    table = json.loads(resources.files("windlass.core").joinpath("prices.json").read_text(encoding="utf-8"))
    return {
        f"{provider}/{model}": _price({key: entry.get(key) for key in _SHARED} | numbers)
        for provider, entry in table.items()
        for model, numbers in entry["models"].items()
    }


def _price(numbers: Mapping[str, Any]) -> Price:
    nested: dict[str, Any] = {}
    if (long := numbers.get("long")) is not None:
        nested["long"] = Price(**long)
    if (peak := numbers.get("peak")) is not None:
        days = {name: tuple(map(tuple, peak[name])) for name in ("hours", "holidays")}  # prices can be in sets
        nested["peak"] = Peak(**{**peak, **days, "price": Price(**peak["price"])})
    return Price(**{**numbers, **nested})


@dataclass(frozen=True, slots=True)
class SellerPrices:
    """A `PriceOf`, which also knows what batches cost."""

    seller: str
    extra: Mapping[str, Price] | None = None

    def __call__(self, model: str, usage: Usage) -> float | None:
        return price(model, usage, self.seller, extra=self.extra)

    def batch(self, model: str, usage: Usage) -> float | None:
        known = find(model, self.seller, extra=self.extra)
        batched = None if known is None else known.in_batch()
        return None if batched is None else batched.of(usage)


def prices_at(host: str, extra: Mapping[str, Price] | None = None) -> PriceOf:
    """Prices of the seller behind `host`; `extra` is the `[prices]` of windlass.toml."""
    return SellerPrices(seller_at(host), extra)


def seller_at(host: str) -> str:
    """The name under which the price table knows the seller behind `host`; the host itself where it knows none."""
    return _SELLERS.get(host, host)


def price(
    model: str, usage: Usage, provider: str | None = None, *, extra: Mapping[str, Price] | None = None
) -> float | None:
    """The cost of a call in US dollars, or None when it is not known.

    `model` is the name the provider answered with; a date at its end may be missing in the table. `extra` (the
    `[prices]` of `windlass.toml`) goes before the table. Without `provider`, a model that several providers sell at
    different prices has none.
    """
    known = find(model, provider, extra=extra)
    return None if known is None else known.of(usage)


def find(model: str, provider: str | None = None, *, extra: Mapping[str, Price] | None = None) -> Price | None:
    """The price that applies to `model`."""
    for table in (extra or {}, list_prices()):
        for name in (model, undated(model)):
            if provider is not None:
                exact = table.get(f"{provider}/{name}") or (table.get(name) if table is extra else None)
                if exact is not None:
                    return exact
                continue
            found = {p for key, p in table.items() if key == name or key.partition("/")[2] == name}
            if len(found) == 1:
                return found.pop()
            if found:
                return None
    return None

"""A model at a provider: its dialect says what to send, its endpoint sends it, its seller's prices say what it cost."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

from windlass.apply.providers.dialects.dialect import Call, Dialect, OnUnsupported, Reading, fitted
from windlass.apply.providers.wire.http import Endpoint
from windlass.core.errors import ProviderError
from windlass.core.files import sha256_json
from windlass.core.pricing import PriceOf, prices_at, seller_at
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Usage

_COUNTS = tuple(field.name for field in fields(Usage))
_AT_LIST_PRICE: Mapping[str, Sequence[Any]] = {
    "service_tier": (None, "auto", "default", "standard_only"),
    "serviceTier": (None, "standard"),
    "speed": (None, "standard"),
    "inference_geo": (None, "global"),
}
"""Parameters by which providers sell the same model at another price, and with which values they do not."""


def at_list_price(request: ChatRequest) -> bool:
    """Whether nothing is asked for that costs more or less than the tables say: another tier, a longer cache."""
    kept = request.extra.get("cache_control")
    longer = isinstance(kept, Mapping) and kept.get("ttl", "5m") != "5m"
    return not longer and all(request.extra.get(name) in usual for name, usual in _AT_LIST_PRICE.items())


class RemoteChat:
    """Implements `ChatModel` and `AsyncChatModel`. Raises `Unsupported` for what the provider's API cannot say,
    `ProviderError` for what goes wrong there, `TimedOut` when `ChatRequest.timeout` is over."""

    digest: str | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        *,
        price_of: PriceOf | None = None,
        on_unsupported: OnUnsupported = "error",
    ) -> None:
        self.endpoint = endpoint
        self.dialect = dialect
        self._price = price_of or prices_at(endpoint.host)
        self._on_unsupported: OnUnsupported = on_unsupported

    @property
    def name(self) -> str:
        return self.dialect.model

    @property
    def structured(self) -> Literal["schema", "tool", "prompt"]:
        """The best way that this API has of keeping an answer to a schema."""
        knows = self.dialect.knows
        return "schema" if "schema" in knows else "tool" if "tools" in knows else "prompt"

    @property
    def identity(self) -> Any:
        """What decides who answers: address, API, model, and the user's headers, digested as they may be secret."""
        return [
            self.endpoint.base_url, self.dialect.api, self.dialect.model, sha256_json(dict(self.endpoint.headers)),
        ]  # fmt: skip

    @property
    def seller(self) -> str:
        """Under which name the tables of prices and windows know the provider."""
        return seller_at(self.endpoint.host)

    def costs(self, usage: Usage, request: ChatRequest) -> float | None:
        """US dollars at the price of the model that is asked; None when it is not known, or asked for otherwise."""
        return self._price(self.dialect.model, usage) if at_list_price(request) else None

    def complete(self, request: ChatRequest) -> ChatResponse:
        request = fitted(request, self.dialect, self._on_unsupported)
        value = self.endpoint.post(self.dialect.call(request, stream=False), request.timeout)
        return self._answer(value, request)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        request = fitted(request, self.dialect, self._on_unsupported)
        reading = self.dialect.reading()
        call = self.dialect.call(request, stream=True)
        for event in self.endpoint.events(call, self.dialect.frames(), request.timeout):
            yield from self._deltas(reading, event)
        yield ChatDelta(response=self._end(reading, request))

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        request = fitted(request, self.dialect, self._on_unsupported)
        value = await self.endpoint.apost(self.dialect.call(request, stream=False), request.timeout)
        return self._answer(value, request)

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        request = fitted(request, self.dialect, self._on_unsupported)
        reading = self.dialect.reading()
        call = self.dialect.call(request, stream=True)
        events = self.endpoint.aevents(call, self.dialect.frames(), request.timeout)
        async with contextlib.aclosing(events):  # whoever stops reading ends the request with it
            async for event in events:
                for delta in self._deltas(reading, event):
                    yield delta
        yield ChatDelta(response=self._end(reading, request))

    def close(self) -> None:
        self.endpoint.close()

    async def aclose(self) -> None:
        await self.endpoint.aclose()

    def _deltas(self, reading: Reading, event: Mapping[str, Any]) -> Sequence[ChatDelta]:
        with self.understood():
            deltas = reading.feed(event)
            for delta in deltas:
                _texts(delta.text, delta.reasoning, *(call.arguments for call in delta.calls))
        return deltas

    def called(self, request: ChatRequest) -> Call:
        """What is sent for a request that is not streamed. Raises `Unsupported`."""
        return self.dialect.call(fitted(request, self.dialect, self._on_unsupported), stream=False)

    def batched(self, value: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        """An answer out of a batch, at its price; None where the table does not know what a batch costs."""
        price = getattr(self._price, "batch", None)
        response = self._answer(value, request)
        if price is None or not at_list_price(request):
            return replace(response, cost_usd=None)
        return replace(response, cost_usd=price(response.model, response.usage))

    def _answer(self, value: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        with self.understood():
            return self._priced(self.dialect.answer(value), request)

    def _end(self, reading: Reading, request: ChatRequest) -> ChatResponse:
        with self.understood():
            response = reading.end()
            if response is not None:
                return self._priced(response, request)
        raise ProviderError(
            f"{self.endpoint.base_url} ended its stream before the answer was finished.",
            "What arrived so far is not a whole answer; ask again.",
        )

    def _priced(self, response: ChatResponse, request: ChatRequest) -> ChatResponse:
        """Dialects take the types of what they read on trust; here, once for all, they are looked at."""
        message = response.message
        _texts(message.content, message.reasoning)
        for call in message.tool_calls:
            _texts(call.id, call.name, call.arguments)
        for name in _COUNTS:
            count = getattr(response.usage, name)
            if count is not None and (type(count) is not int or count < 0):
                raise ValueError(f"{count!r} {name} tokens")
        cost = self._price(response.model, response.usage) if at_list_price(request) else None
        object.__setattr__(response, "cost_usd", cost)  # it was just made, and nobody has seen it without
        return response

    @contextlib.contextmanager
    def understood(self) -> Iterator[None]:
        """Makes of what goes wrong in reading an answer a `ProviderError` that names the endpoint."""
        try:
            yield
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            why = self.endpoint.replies.clean(repr(error))
            raise ProviderError(
                f"{self.endpoint.base_url} answered without a usable answer ({why[:500]}).",
                f"The server does not follow {self.dialect.api} here.",
            ) from (error if why == repr(error) else None)


def _texts(*values: object) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} where a text should be")

"""A model at a media host: orders, looks until it is made, fetches what was made, and cancels when nobody waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from windlass.apply.media.download import LARGEST, fetched, sources
from windlass.apply.media.prediction import MediaDialect, Prediction
from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.tasks.surroundings import here
from windlass.core import semconv
from windlass.core.errors import ProviderError, TimedOut, WindlassError
from windlass.core.protocols import Made
from windlass.core.retry import AGAIN
from windlass.core.spans import Span
from windlass.core.values import AudioPart, FilePart, ImagePart
from windlass.core.waiting import waited

LOOKS = (0.5, 10.0)
"""Seconds between looks: at first, and at most."""
_PATIENCE = 5
"""How often in a row a look may fail: what is being made has been paid for."""


class MediaHost:
    """Implements `MediaModel`. Raises `ProviderError` for what goes wrong at the host, `TimedOut` when `timeout` is
    over; whatever ends the waiting, Ctrl-C too, cancels the order.

    `folder`: where files are kept; by default `media` in the workspace. `price_of`: US dollars for what was made; by
    default it is unknown. `largest`: bytes of one file. `transport`: in place of the network, for files too.
    """

    digest: str | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: MediaDialect,
        *,
        folder: Path | None = None,
        price_of: Callable[[Made], float | None] = lambda made: None,
        largest: int = LARGEST,
        transport: Any = None,
    ) -> None:
        self.endpoint = endpoint
        self.dialect = dialect
        self._folder = folder
        self._price = price_of
        self._largest = largest
        self._transport = transport

    @property
    def name(self) -> str:
        return self.dialect.model

    def make(self, prompt: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 600.0) -> Made:
        async def whole() -> Made:
            try:
                return await self.amake(prompt, inputs, timeout=timeout)
            finally:
                await self.endpoint.aclose()

        return waited(whole())

    async def amake(self, prompt: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 600.0) -> Made:
        """As `make`, on an event loop. Cancelling the task cancels the order."""
        around = here()
        folder = self._folder or around.media
        with around.recorder.span("make", "generate_content") as span:
            span.input = {"prompt": prompt, **{name: _short(value) for name, value in (inputs or {}).items()}}
            span[semconv.REQUEST_MODEL] = self.name
            span[semconv.COST_USD] = None  # until it is known
            try:
                async with asyncio.timeout(timeout):
                    made = await self._made(self.dialect.order(prompt, inputs or {}), folder, span)
            except TimeoutError as error:
                raise TimedOut(f"{self.name} was not done after {timeout:g} seconds.", "Allow it more time.") from error
            made = replace(made, cost_usd=self._price(made))
            span[semconv.COST_USD] = made.cost_usd
            span.output = [
                {"digest": file.digest, "media_type": file.media_type, "bytes": file.size} for file in made.files
            ]
            return made

    async def _made(self, order: Call, folder: Path, span: Span) -> Made:
        prediction = self._read(await self.endpoint.apost(order, again=False, refuse_errors=False), order)
        span[semconv.RESPONSE_ID] = id = prediction.id
        try:
            wait, longest = LOOKS
            while prediction.status == "running":
                await asyncio.sleep(wait * random.uniform(0.75, 1.25))
                wait = min(wait * 1.5, longest)
                prediction = await self._looked(id)
        except BaseException:
            await self._cancelled(id, span)
            raise
        if prediction.status == "failed":
            raise ProviderError(f"{self.name} made nothing: {prediction.problem}", "Mend the prompt or the inputs.")
        output = prediction.output
        if (result := self.dialect.result(id)) is not None:
            output = await self.endpoint.apost(result)
        found = list(sources(output))
        if not found:
            raise ProviderError(f"{self.name} answered without a file: {str(output)[:200]!r}.", "Does it make files?")
        plain = self.endpoint.base_url.startswith("http://")
        files = [
            await fetched(url, kind, folder, largest=self._largest, plain=plain, transport=self._transport)
            for url, kind in found
        ]
        return Made(id, self.name, files, prediction.usage, prediction.seconds)

    async def _looked(self, id: str) -> Prediction:
        look = self.dialect.look(id)
        for left in reversed(range(_PATIENCE)):
            try:
                return self._read(await self.endpoint.apost(look, refuse_errors=False), look)
            except ProviderError as error:
                if not left or (error.status is not None and error.status not in AGAIN):
                    raise
                await asyncio.sleep(LOOKS[1])
        raise AssertionError("unreachable")

    async def _cancelled(self, id: str, span: Span) -> None:
        """Nobody waits for it any more. What goes wrong here is said on the trace, as another error is being raised."""
        if (cancel := self.dialect.cancel(id)) is None:
            return
        try:
            await self.endpoint.apost(cancel, 5.0, refuse_errors=False)
            span["windlass.cancelled"] = True
        except WindlassError as error:
            span["windlass.cancelled"] = str(error)

    def _read(self, value: Mapping[str, Any], call: Call) -> Prediction:
        try:
            return self.dialect.read(value)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            self.endpoint.replies.refuse_error(value, call.path)
            raise ProviderError(
                f"{self.endpoint.base_url}{call.path} answered without a usable answer ({error!r}).",
                f"The server does not follow {self.dialect.api} here.",
            ) from error


def _short(value: Any) -> Any:
    """Files are not written on the trace, whatever they are given as."""
    if isinstance(value, ImagePart | AudioPart | FilePart):
        return type(value).__name__
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return value[:40] + "…" if isinstance(value, str) and value.startswith("data:") else value

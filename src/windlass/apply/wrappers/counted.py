"""A model that counts what its calls took together: for work of several calls that is answered for as one."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

from windlass.apply.wrappers.wrapper import Model, Wrapper
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Usage


class Counted(Wrapper):
    """Implements `ChatModel` and `AsyncChatModel`. Make one for each piece of work."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.calls = 0
        """Answers that came; calls that failed are not counted."""
        self.usage = Usage()
        self._dollars: float | None = 0.0
        self._lock = threading.Lock()

    @property
    def cost_usd(self) -> float | None:
        """Of all calls; None when that of one is not known, or there was none."""
        return self._dollars if self.calls else None

    def complete(self, request: ChatRequest) -> ChatResponse:
        return self._counted(self._ask(request))

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        with self._deltas(request) as deltas:
            for delta in deltas:
                if delta.response is not None:
                    self._counted(delta.response)
                yield delta

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        return self._counted(await self._aask(request))

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        async with self._adeltas(request) as deltas:
            async for delta in deltas:
                if delta.response is not None:
                    self._counted(delta.response)
                yield delta

    def _counted(self, response: ChatResponse) -> ChatResponse:
        with self._lock:
            self.calls += 1
            self.usage += response.usage
            known = self._dollars is not None and response.cost_usd is not None
            self._dollars = self._dollars + response.cost_usd if known else None  # type: ignore[operator]
        return response

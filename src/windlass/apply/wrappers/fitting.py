"""A request that cannot fit its model's window fails before it is sent, and says by how many tokens.

The window is the model's own, or that of the dated table in `core.windows` and of `[windows]` in windlass.toml; a model
that none of them knows is asked all the same. The model's tokenizer counts, or a tokenizers JSON. Where neither is
known, tokens are estimated, and only what is far too long is refused: where an estimate may err, the provider decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from windlass.apply.wrappers.tokens import count, tokenizer_at
from windlass.apply.wrappers.wrapper import Model, Wrapper, counts_tokens, innermost
from windlass.core.errors import TooLong
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse
from windlass.core.windows import Window, window


class Fitting(Wrapper):
    """Implements `ChatModel` and `AsyncChatModel`. Raises `TooLong`.

    `window`: of a model that is not known. `windows`: the `[windows]` of windlass.toml. `tokenizer`: a tokenizers JSON.
    """

    def __init__(
        self,
        model: Model,
        *,
        window: Window | None = None,
        windows: Mapping[str, Window] | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        super().__init__(model)
        self.window = window or window_of(model, windows)
        self._of_text = None if tokenizer is None else tokenizer_at(tokenizer)

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.check(request)
        return self._ask(request)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self.check(request)
        with self._deltas(request) as deltas:
            yield from deltas

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        self.check(request)
        return await self._aask(request)

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        self.check(request)
        async with self._adeltas(request) as deltas:
            async for delta in deltas:
                yield delta

    def check(self, request: ChatRequest) -> None:
        """Raises `TooLong`."""
        room = self.window
        if room is None:
            return
        written = request.max_tokens or 0
        if room.output is not None and written > room.output:
            raise TooLong(
                f"'{self.name}' writes at most {room.output:,} tokens; max_tokens={written:,} is"
                f" {written - room.output:,} too many.",
                "Lower max_tokens.",
                written - room.output,
            )
        counted = count(request, innermost(self.model), self._of_text)
        read, how = counted.least, "" if counted.exact else "about "
        longest = room.context - max(written, 1) if room.input is None else min(room.input, room.context - written)
        if read <= longest:
            return
        answer = f", of which {written:,} are kept for the answer" if written else ""
        raise TooLong(
            f"The prompt of {how}{counted.tokens:,} tokens does not fit '{self.name}': it reads and writes"
            f" {room.context:,}{answer}. It is {how}{counted.tokens - longest:,} tokens too long.",
            "Leave something out, lower max_tokens, or ask a model with a larger window.",
            read - longest,
        )


def window_of(model: Model, extra: Mapping[str, Window] | None = None) -> Window | None:
    """The model's own window, or what the tables say; None: nobody knows."""
    inner = innermost(model)
    if counts_tokens(inner):
        return Window(inner.context)
    return window(inner.name, getattr(inner, "seller", ""), extra=extra)

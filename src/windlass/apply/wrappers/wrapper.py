"""What every wrapper of a model shares: it is called as its model, asks it in both ways, and says which it is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from windlass.core.errors import ConfigError
from windlass.core.protocols import AsyncChatModel, ChatModel, Tokenizing
from windlass.core.spans import carried
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # in typing from Python 3.13 on

P = ParamSpec("P")
R = TypeVar("R")
Model = ChatModel | AsyncChatModel


class Wrapper:
    """`model` is the one that is asked."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def digest(self) -> str | None:
        return self.model.digest

    @property
    def structured(self) -> Literal["schema", "tool", "prompt"]:
        return getattr(self.model, "structured", "schema")

    @property
    def identity(self) -> Any:
        return identity_of(self.model)

    def costs(self, usage: Usage, request: ChatRequest) -> float | None:
        return costs_of(self.model, usage, request)

    def close(self) -> None:
        if (close := getattr(self.model, "close", None)) is not None:
            close()

    async def aclose(self) -> None:
        await closed(self.model)

    def _ask(self, request: ChatRequest) -> ChatResponse:
        return self._waiting.complete(request)

    def _deltas(self, request: ChatRequest) -> AbstractContextManager[Iterator[ChatDelta]]:
        """Ends the work when the block is left, wherever that is."""
        return closing(self._waiting.stream(request))

    async def _aask(self, request: ChatRequest) -> ChatResponse:
        if can_be_awaited(self.model):
            return await self.model.acomplete(request)
        import asyncio

        return await asyncio.to_thread(carried(self._waiting.complete), request)

    @contextlib.asynccontextmanager
    async def _adeltas(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ChatDelta]]:
        """As `_deltas`."""
        if not can_be_awaited(self.model):
            raise TypeError(f"{self.name} cannot stream on an event loop.")
        deltas = self.model.astream(request)
        try:
            yield deltas
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()

    @property
    def _waiting(self) -> ChatModel:
        if not can_be_waited_for(self.model):
            raise TypeError(f"{self.name} can be asked on an event loop only.")
        return self.model


@contextlib.contextmanager
def closing(deltas: Iterator[ChatDelta]) -> Iterator[Iterator[ChatDelta]]:
    """Closes what can be closed: generators, and the iterators of our engine."""
    try:
        yield deltas
    finally:
        if (close := getattr(deltas, "close", None)) is not None:
            close()


def identity_of(model: Model) -> Any:
    """What tells a model from all others, as JSON: its digest, or its provider's address and name. Raises
    `ConfigError` for a model that has neither."""
    if (known := getattr(model, "identity", None)) is not None:
        return known
    if model.digest is None:
        raise ConfigError(
            f"Nothing tells the model '{model.name}' from others of that name: it has neither digest nor identity.",
            "Give it a property `identity`: what decides its answers, as text.",
        )
    return [model.name, model.digest, getattr(model, "policy", None)]


def costs_of(model: Model, usage: Usage, request: ChatRequest) -> float | None:
    """US dollars that `usage` would cost there, asked for as `request` does; None when that is not known."""
    costs: Callable[[Usage, ChatRequest], float | None] | None = getattr(model, "costs", None)
    return None if costs is None else costs(usage, request)


# As isinstance with the protocols says, in a fraction of its 15 µs: it looks at every member of the class at each call.


def can_be_waited_for(model: object) -> TypeIs[ChatModel]:
    return hasattr(model, "complete")


def can_be_awaited(model: object) -> TypeIs[AsyncChatModel]:
    return hasattr(model, "acomplete")


def counts_tokens(model: object) -> TypeIs[Tokenizing]:
    return hasattr(model, "encode_chat")


def innermost(model: Model) -> Model:
    """The model behind all wrappers."""
    while isinstance(model, Wrapper):
        model = model.model
    return model


async def closed(model: Model) -> None:
    """Closes a model's connections that belong to this event loop, which is about to end."""
    if (aclose := getattr(model, "aclose", None)) is not None:
        await aclose()


async def to_its_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs `work` in a thread. Cancelled, it waits for the end all the same: what was begun is not left half done."""
    import asyncio

    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        running.exception()  # looked at, or asyncio would report it as lost
        raise

"""Models that answer, and what some of them can do besides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message


@runtime_checkable
class ChatModel(Protocol):
    """Anything that answers a chat request: a local model, a remote provider, a grounded assistant."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None:
        """Digest of the artifact behind the model, or None for a remote one."""
        ...

    def complete(self, request: ChatRequest) -> ChatResponse: ...

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """Deltas whose texts concatenate to the message of the response that the last delta carries."""
        ...


@runtime_checkable
class AsyncChatModel(Protocol):
    """A chat model that many tasks of one event loop may ask at once. Cancelling the task cancels the call."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    async def acomplete(self, request: ChatRequest) -> ChatResponse: ...

    def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """As `ChatModel.stream`."""
        ...


@runtime_checkable
class Cancellable(Protocol):
    """An iterator of `ChatModel.stream` that can be told to end while another thread waits for its next item."""

    def cancel(self) -> None:
        """Ends the work as soon as possible. Safe to call from any thread, more than once, and after the end."""
        ...

    def close(self) -> None:
        """Ends the work and waits for its end. To be called where the iterator is read."""
        ...


@runtime_checkable
class Polled(Cancellable, Protocol):
    """One that can also be read without waiting, so that a single thread may read many."""

    def listen(self, wake: Callable[[], None]) -> None:
        """From now on it is read by `poll`, and `wake` is called, from any thread, when there may be more to read. To
        be called before anything is read."""
        ...

    def poll(self) -> ChatDelta | None:
        """The next item, or None when there is none yet. The first call begins the work, which may take a while; the
        others do not wait. Raises `StopIteration` at the end."""
        ...


@runtime_checkable
class Tokenizing(Protocol):
    """A chat model whose tokens are known: a local one."""

    @property
    def context(self) -> int:
        """The window: tokens of prompt and answer together."""
        ...

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text; `special`: with those that the tokenizer puts around it."""
        ...

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """Tokens of a conversation, through the chat template."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included. Raises `InputError` for a number that is no token."""
        ...

    def token_facts(self) -> Mapping[str, Any]:
        """`bos_token`, `eos_token`, `pad_token` and `chat_template`, as texts or None."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A chat model that takes adapters while it runs; each is then a model of its own."""

    @property
    def adapters(self) -> Mapping[str, ChatModel]:
        """Those that are loaded now, by name."""
        ...

    def load_adapter(self, name: str, folder: Path) -> ChatModel:
        """Raises `InputError` naming what is wrong with the folder or the name, `Unsupported` for another kind."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Requests that were accepted with it finish with it. Raises `NotFound`."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A model that counts: its engine's queue, batch and memory."""

    def stats(self) -> Mapping[str, float]:
        """Gauges by name, as the metrics page shows them."""
        ...

"""What an engine is asked (`Generation`), and how the one who asked follows it (`Running`).

    running = engine.submit(Generation(prompt=ids, max_tokens=64, sampling=Sampling(temperature=0)))
    for token in running:           # as they are written; `running.cancel()` from any thread ends it
        ...
    running.finish, running.cached

Values and one queue; no arithmetic, and torch is not needed to make them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from windlass.serve.engine.sampling.token import Token

if TYPE_CHECKING:
    from windlass.serve.engine.constraints.constraint import Constraint
    from windlass.serve.engine.sampling.settings import Sampling

Finish = Literal["stop", "length", "cancelled", "deadline", "error"]
"""stop: a stop token was written, or the constraint allows nothing more. error: iterating raises it."""


PATIENCE = 10.0
"""Seconds of waiting that a unit of priority is worth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One request to an engine, in tokens."""

    prompt: Sequence[int]
    max_tokens: int
    """0 only reads the prompt, for its log-probabilities."""
    sampling: Sampling
    stop_tokens: frozenset[int] = frozenset()
    """Writing any of these ends the answer; it is its last token."""
    constraint: Constraint | None = None
    adapter: str | None = None
    priority: int = 0
    """Lower is served first; equals in order of arrival. Who has waited `PATIENCE` seconds longer for each unit has
    caught up, so nobody waits for ever."""
    deadline: float | None = None
    """`time.monotonic()` at which the request ends, finished or not."""
    prompt_logprobs: int | None = None
    """Report the prompt's tokens with so many alternatives each (None: no report)."""
    prompt_from: int = 0
    """The first position that `prompt_logprobs` reports; those before it cost nothing when they are cached."""

    def due(self, arrived: float) -> float:
        """When a request that arrived then is due: the earlier goes first. Priority that grows with waiting (Kleinrock,
        A delay dependent queue discipline, 1964) needs no look at the clock where all grow alike."""
        return arrived + PATIENCE * self.priority


class Running:
    """A request that an engine has accepted. Iterate for its tokens, once; safe to share between threads."""

    def __init__(self, generation: Generation, wake: Callable[[], None], seed: int = 0) -> None:
        """`wake` tells the engine's thread to look at its requests again."""
        self.generation = generation
        self.seed = seed
        """Of its random numbers, given or drawn."""
        self.cached = 0
        """Tokens of the prompt that were taken from the prefix cache instead of being read."""
        self.prompt_logprobs: list[Token] = []
        """The prompt's tokens from `prompt_from` on, complete when the first token of the answer comes. The prompt's
        very first token follows nothing: its logprob is None."""
        self.finish: Finish | None = None
        self.cancelled = False
        self._wake = wake
        self._tokens: queue.SimpleQueue[Token | _End] = queue.SimpleQueue()
        self._done = threading.Event()
        self._heard: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Token]:
        """The answer's tokens as they are written. Raises what went wrong in the engine, if anything did."""
        while not isinstance(item := self._tokens.get(), _End):
            yield item
        self._tokens.put(item)  # whoever looks again finds the end again
        if item.error is not None:
            raise item.error

    def polled(self, heard: Callable[[], None]) -> Iterator[Token | None]:
        """The same without waiting: None where there is no token yet. `heard` is called, from the engine's thread, at
        each token and at the end."""
        self._heard = heard
        while True:
            try:
                item = self._tokens.get_nowait()
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _End):
                self._tokens.put(item)
                if item.error is not None:
                    raise item.error
                return
            yield item

    def cancel(self) -> None:
        """Ends the request and frees its memory before the engine's next step; tokens already written stay readable.

        Does nothing when it has ended.
        """
        self.cancelled = True
        self._wake()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the request has ended, waiting for it that long at most."""
        return self._done.wait(seconds)

    # ---- the engine's side

    def deliver(self, token: Token) -> None:
        self._tokens.put(token)
        if self._heard is not None:
            self._heard()

    def end(self, finish: Finish, error: BaseException | None = None) -> None:
        """Called exactly once."""
        assert self.finish is None, f"a request that ended as {self.finish} ends again as {finish}"
        self.finish = finish
        self._done.set()
        self._tokens.put(_End(error))
        if self._heard is not None:
            self._heard()


class _End(NamedTuple):
    error: BaseException | None

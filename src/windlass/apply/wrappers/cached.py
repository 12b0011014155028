"""The same question is paid for once: a model in front of which stands a file of answers.

    Cached(model("openai:gpt-5-mini"), Answers(path))
    Cached(model("openai:gpt-5-mini"), Answers(path), embedder=embedder, threshold=0.97)    # similar questions, too

Two requests are the same when all that decides the answer is: the model and its address, messages (media by their
digests), parameters, schema, tools, and `ChatRequest.draw`, by which several draws of one request are kept apart.
Timeouts do not count. Nothing is kept that was refused, cut off or failed. A kept answer says so: `ChatResponse.kept`
and the trace hold what it cost when it was made; itself it costs nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from windlass.apply.wrappers.answers import Answers
from windlass.apply.wrappers.wrapper import Model, Wrapper, identity_of, to_its_end
from windlass.core import semconv
from windlass.core.errors import ConfigError, InputError, WorkspaceError
from windlass.core.plain import asked, digest_of
from windlass.core.protocols import Embedder
from windlass.core.spans import Span, carried, current_span
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Kept, ToolCallDelta, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORMAT = 1
"""Raised whenever a key comes to mean something else."""


@dataclass(frozen=True, slots=True)
class _Question:
    key: str
    kind: str | None = None
    """All of the request but the words of its last message: questions of one kind may be similar."""
    vector: NDArray[np.float32] | None = None
    """Of those words, of unit length."""


class Cached(Wrapper):
    """Implements `ChatModel` and `AsyncChatModel`; raises what the model raises, and `WorkspaceError` when the file
    cannot be read. An answer that cannot be written is given all the same, with a warning.

    `embedder`: finds questions whose words differ, and whose cosine is at least `threshold`, which depends on the
    embedder and has no default. Only the last message may differ, only if it is text, and only at `draw=0`.
    """

    def __init__(
        self, model: Model, answers: Answers, *, embedder: Embedder | None = None, threshold: float | None = None
    ) -> None:
        super().__init__(model)
        if (embedder is None) != (threshold is None):
            raise ConfigError("Similar questions need both an embedder and a threshold.", "Give both, or neither.")
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigError(f"The threshold {threshold} is no cosine above 0.", "For example 0.97.")
        self._answers = answers
        self._embedder = embedder
        self._threshold = threshold
        self._identity = identity_of(model)

    def complete(self, request: ChatRequest) -> ChatResponse:
        question, kept = self._look(request)
        return self._keep(question, self._ask(request)) if kept is None else kept

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """A kept answer comes in one piece."""
        question, kept = self._look(request)
        if kept is not None:
            yield from replayed(kept)
            return
        with self._deltas(request) as deltas:
            for delta in deltas:
                if delta.response is not None:
                    self._keep(question, delta.response)
                yield delta

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        import asyncio

        question, kept = await asyncio.to_thread(carried(self._look), request)
        return await to_its_end(self._keep, question, await self._aask(request)) if kept is None else kept

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        import asyncio

        question, kept = await asyncio.to_thread(carried(self._look), request)
        if kept is not None:
            for delta in replayed(kept):
                yield delta
            return
        async with self._adeltas(request) as deltas:
            async for delta in deltas:
                if delta.response is not None:
                    await to_its_end(self._keep, question, delta.response)
                yield delta

    def _look(self, request: ChatRequest) -> tuple[_Question, ChatResponse | None]:
        """What is asked, and the answer that is kept for it."""
        key = digest_of([_FORMAT, self._identity, request.draw, asked(request)])
        if (answer := self._answers.get(key)) is not None:
            return _Question(key), _given(answer, None)
        words = _words(request)
        if self._embedder is None or self._threshold is None or words is None or request.draw:
            return _Question(key), None
        *before, last = request.messages
        frame = replace(request, messages=[*before, replace(last, content="")])
        kind = digest_of([_FORMAT, self._identity, self._embedder.digest, asked(frame)])
        vector = self._embedder.embed([words], "query").vectors[0]
        question = _Question(key, kind, vector)
        near = self._answers.nearest(kind, vector)
        if near is None or near[1] < self._threshold or (answer := self._answers.get(near[0])) is None:
            return question, None
        return question, _given(answer, near[1])

    def _keep(self, question: _Question, response: ChatResponse) -> ChatResponse:
        if response.refused or response.finish_reason not in ("stop", "tool_calls") or response.kept is not None:
            return response
        try:
            self._answers.put(question.key, response, kind=question.kind, vector=question.vector)
        except (WorkspaceError, InputError) as error:  # the answer is paid for: it is not lost because the disk is full
            warnings.warn(f"An answer could not be kept: {error.message}", stacklevel=3)
        return response


def _given(answer: ChatResponse, similarity: float | None) -> ChatResponse:
    """A kept answer as it is given: it took nothing, and says what it took when it was made."""
    made = Kept(answer.usage, answer.cost_usd, similarity)
    if (span := current_span()) is not None:
        mark(span, made)
    return replace(answer, usage=Usage(input=0, output=0), cost_usd=0.0, trace_id=None, kept=made)


def mark(span: Span, kept: Kept) -> None:
    """Says on the trace that an answer was kept, and what it cost when it was made."""
    span[semconv.KEPT] = "exact" if kept.similarity is None else "similar"
    span[semconv.SAVED_USD] = kept.cost_usd
    if kept.similarity is not None:
        span[semconv.KEPT_SIMILARITY] = kept.similarity


def _words(request: ChatRequest) -> str | None:
    """The text of the last message, if it is nothing but text that somebody wrote."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user" or not isinstance(last.content, str):
        return None
    return last.content


def replayed(response: ChatResponse) -> Iterator[ChatDelta]:
    """An answer that is there already, as a stream in one piece."""
    message = response.message
    if message.reasoning:
        yield ChatDelta(reasoning=message.reasoning)
    if message.text:
        yield ChatDelta(message.text, logprobs=response.logprobs)
    for number, call in enumerate(message.tool_calls):
        yield ChatDelta(calls=[ToolCallDelta(number, call.arguments, call.id, call.name)])
    yield ChatDelta(response=response)

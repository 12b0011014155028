"""An answer while it is being written: values that grow, and in the end the one that was checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

from windlass.apply.tasks.asking import Mode
from windlass.apply.tasks.forms.begun import shown
from windlass.apply.tasks.forms.partial import NOTHING, beginning
from windlass.apply.tasks.forms.strict import Strict
from windlass.apply.tasks.outcome import Outcome
from windlass.apply.tasks.running import Steps, asked, note
from windlass.apply.wrappers.wrapper import can_be_awaited, can_be_waited_for
from windlass.core.errors import ProviderError
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.spans import Span
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse

T = TypeVar("T")


class Streaming(Generic[T]):
    """Iterate over it once, by `for` or by `async for`: plain JSON of what is there so far, or the text of a task that
    answers with text. Afterwards `outcome` holds what `run` would have given.

    An answer that does not fit is asked for again, and then the values begin anew.
    """

    def __init__(
        self, steps: Steps[Outcome[T]], model: ChatModel | AsyncChatModel, recorder: Recorder, span: Span,
        mode: Mode, strict: Strict | None,
    ) -> None:  # fmt: skip
        self._steps, self._model, self._recorder, self._span = steps, model, recorder, span
        self._mode, self._strict = mode, strict
        self._outcome: Outcome[T] | None = None

    @property
    def outcome(self) -> Outcome[T]:
        """Raises `RuntimeError` before the end."""
        if self._outcome is None:
            raise RuntimeError("The answer is not whole yet: read it to its end first.")
        return self._outcome

    @property
    def value(self) -> T:
        return self.outcome.value

    def __iter__(self) -> Iterator[Any]:
        if not can_be_waited_for(self._model):
            raise TypeError(f"{self._model.name} can be asked on an event loop only: use `async for`.")
        self._span.begin()
        try:
            request: ChatRequest | None = next(self._steps)
            while request is not None:
                call = asked(self._recorder, self._model, request, self._span).begin(self._span)
                growing = _Growing(self)
                try:
                    for delta in self._model.stream(request):
                        yield from growing.fed(delta)
                    note(call, growing.whole(self._model.name))
                except BaseException as error:
                    call.finish(error)
                    raise
                call.finish()
                request = self._sent(growing)
        except BaseException as error:
            self._span.finish(error)
            raise
        self._span.finish()

    async def __aiter__(self) -> AsyncIterator[Any]:
        if not can_be_awaited(self._model):
            raise TypeError(f"{self._model.name} cannot stream on an event loop: use `for` in a thread.")
        self._span.begin()
        try:
            request: ChatRequest | None = next(self._steps)
            while request is not None:
                call = asked(self._recorder, self._model, request, self._span).begin(self._span)
                growing = _Growing(self)
                try:
                    async for delta in self._model.astream(request):
                        for value in growing.fed(delta):
                            yield value
                    note(call, growing.whole(self._model.name))
                except BaseException as error:
                    call.finish(error)
                    raise
                call.finish()
                request = self._sent(growing)
        except BaseException as error:
            self._span.finish(error)
            raise
        self._span.finish()

    def _sent(self, growing: _Growing) -> ChatRequest | None:
        """The next request, or None when the answer fits."""
        try:
            return self._steps.send(growing.whole(self._model.name))
        except StopIteration as done:
            self._outcome = done.value
            return None


class _Growing:
    """What one answer has said so far."""

    def __init__(self, streaming: Streaming[Any]) -> None:
        self._mode, self._strict = streaming._mode, streaming._strict
        self._text = ""
        self._shown: Any = NOTHING
        self._response: ChatResponse | None = None

    def fed(self, delta: ChatDelta) -> Iterator[Any]:
        """The new value, if it is another one."""
        self._response = delta.response or self._response
        piece = "".join(call.arguments for call in delta.calls) if self._mode == "tool" else delta.text
        if not piece:
            return
        self._text += piece
        value, whole = (self._text, False) if self._mode == "text" else beginning(self._text)
        if value is not NOTHING and self._strict is not None:
            value = shown(self._strict, value, whole)
        if value is not NOTHING and value != self._shown:
            self._shown = value
            yield value

    def whole(self, name: str) -> ChatResponse:
        if self._response is None:
            raise ProviderError(f"{name} ended its stream without an answer.")
        return self._response

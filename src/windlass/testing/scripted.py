"""A model that answers what it was given, one answer after the other, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from windlass.core.errors import InputError
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, ToolCall, ToolCallDelta, Usage

Answer = str | ChatResponse | Exception | Mapping[str, Any] | Callable[[ChatRequest], Any]
"""A text; a whole response; an error to raise; an object to be sent as JSON; or a function of the request that gives
any of these."""


class Scripted:
    """Implements `ChatModel` and `AsyncChatModel`. Each answer is given once; asked for more, it says so.

    `usage`: what each answer is said to have taken. `structured`: how it wants the form of answers asked for.
    """

    digest: str | None = None

    def __init__(
        self,
        *answers: Answer,
        name: str = "scripted",
        usage: Usage | None = None,
        cost_usd: float | None = None,
        structured: Literal["schema", "tool", "prompt"] = "schema",
    ) -> None:
        self.name = name
        self.requests: list[ChatRequest] = []
        self.structured = structured
        self._answers = list(answers)
        self._usage = usage or Usage(input=10, output=5)
        self._cost = cost_usd

    @property
    def last(self) -> ChatRequest:
        """What it was asked last."""
        return self.requests[-1]

    def complete(self, request: ChatRequest) -> ChatResponse:
        number = len(self.requests)
        self.requests.append(request)
        if number >= len(self._answers):
            raise InputError(f"The scripted model has {len(self._answers)} answers, and was asked once more.")
        answer = self._answers[number]
        return self._response(request, answer(request) if callable(answer) else answer, number)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """Three characters at a time."""
        response = self.complete(request)
        text = response.message.text
        for at in range(0, len(text), 3):
            yield ChatDelta(text[at : at + 3])
        for number, call in enumerate(response.message.tool_calls):
            yield ChatDelta(calls=[ToolCallDelta(number, "", call.id, call.name)])
            for at in range(0, len(call.arguments), 3):
                yield ChatDelta(calls=[ToolCallDelta(number, call.arguments[at : at + 3])])
        yield ChatDelta(response=response)

    async def acomplete(self, request: ChatRequest) -> ChatResponse:
        return self.complete(request)

    async def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        for delta in self.stream(request):
            yield delta

    def _response(self, request: ChatRequest, answer: Any, number: int) -> ChatResponse:
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, ChatResponse):
            return answer
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        calls: Sequence[ToolCall] = ()
        if any(tool.name == request.tool_choice for tool in request.tools):  # told to call it: the text is what it says
            calls, text = [ToolCall(f"call-{number}", request.tool_choice, text)], ""
        return ChatResponse(
            f"scripted-{number}",
            self.name,
            Message("assistant", text, calls),
            "tool_calls" if calls else "stop",
            self._usage,
            self._cost,
        )

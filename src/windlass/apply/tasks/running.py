"""Drives `asking`: sends what it asks, on the caller's thread or its event loop, and records each call."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from windlass.apply.wrappers.cached import mark
from windlass.apply.wrappers.wrapper import can_be_awaited, can_be_waited_for
from windlass.core import semconv
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.spans import Span, carried, current_span
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, ChatResponse, Message

T = TypeVar("T")
Model = ChatModel | AsyncChatModel
Steps = Generator[ChatRequest, ChatResponse, T]


def run(steps: Steps[T], model: Model, recorder: Recorder) -> T:
    """Raises what the model and the steps raise, and `TypeError` for a model that only event loops can ask."""
    if not can_be_waited_for(model):
        raise TypeError(f"{model.name} can be asked on an event loop only: await the task.")
    try:
        request = next(steps)
        while True:
            with asked(recorder, model, request) as span:
                response = model.complete(request)
                note(span, response)
            request = steps.send(response)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def arun(steps: Steps[T], model: Model, recorder: Recorder) -> T:
    """As `run`. A model that can only be waited for is asked in another thread."""
    import asyncio  # whoever has an event loop has it; tasks that wait need not load it

    try:
        request = next(steps)
        while True:
            with asked(recorder, model, request) as span:
                if can_be_awaited(model):
                    response = await model.acomplete(request)
                else:
                    response = await asyncio.to_thread(carried(model.complete), request)
                note(span, response)
            request = steps.send(response)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


_INHERITED = (semconv.PROMPT_NAME, semconv.PROMPT_VERSION, semconv.PROMPT_DIGEST)


def asked(recorder: Recorder, model: Model, request: ChatRequest, parent: Span | None = None) -> Span:
    """The span of one call, not yet begun. It says of the prompt what its `parent` does, or else the current span."""
    span = recorder.span("ask", "chat")
    above = parent or current_span()
    if above is not None:
        for name in _INHERITED:
            if name in above.attributes:
                span[name] = above.attributes[name]
    span.input = [plain(message) for message in request.messages]
    span[semconv.REQUEST_MODEL] = model.name
    span[semconv.COST_USD] = None  # until the model says what it cost, it is unknown
    if model.digest is not None:
        span[semconv.MODEL_DIGEST] = model.digest
    return span


def note(span: Span, response: ChatResponse) -> None:
    """What came back, on the span of the call."""
    usage, message = response.usage, response.message
    said: dict[str, Any] = {"role": "assistant", "content": message.text}
    if message.tool_calls:
        said["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    span.output = said
    span[semconv.RESPONSE_ID] = response.id
    span[semconv.RESPONSE_MODEL] = response.model
    span[semconv.FINISH_REASONS] = [response.finish_reason]
    span[semconv.COST_USD] = response.cost_usd
    if response.kept is not None:
        mark(span, response.kept)
    counts = {
        semconv.INPUT_TOKENS: usage.prompt,
        semconv.OUTPUT_TOKENS: usage.completion,
        semconv.CACHE_READ_TOKENS: usage.cache_read,
        semconv.CACHE_WRITE_TOKENS: usage.cache_write,
        semconv.REASONING_TOKENS: usage.reasoning,
    }
    for name, value in counts.items():
        if value is not None:
            span[name] = value


def plain(message: Message) -> dict[str, Any]:
    """A message as spans hold it: its text, and of what kind the rest is."""
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    if not isinstance(message.content, str):
        others = [type(part).__name__ for part in message.content if not hasattr(part, "text")]
        if others:
            said["parts"] = others
    return said

"""The events of a streamed /v1/responses: every item is opened, filled and closed; the last event carries it all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from windlass.core.values import ChatDelta, ChatResponse, TokenLogprob, ToolCall
from windlass.serve.api.fields import Json
from windlass.serve.api.messages import logprob_json
from windlass.serve.api.responses_answer import Answer, call_item, message_item, new_id, reasoning_item, text_part
from windlass.serve.api.sse import event
from windlass.serve.errors import error_json


class Events:
    """One stream. At any time at most one item is open: the reasoning, or the message."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._number = 0
        self._ids: list[str] = []
        self._open: str | None = None
        """`rs` or `msg`."""
        self._text = ""
        self._logprobs: list[TokenLogprob] = []

    async def of(self, answers: AsyncGenerator[tuple[int, ChatDelta]]) -> AsyncGenerator[bytes]:
        started = False
        async with contextlib.aclosing(answers):
            async for _, delta in answers:
                if not started:
                    started = True
                    yield self._event("response.created", response=self._answer.unfinished())
                    yield self._event("response.in_progress", response=self._answer.unfinished())
                for data in self._piece(delta):
                    yield data
                if delta.response is not None:
                    for data in self._end(delta.response):
                        yield data

    def failed(self, error: Exception) -> bytes:
        """The event of a failure in the middle."""
        said = error_json(error)["error"]
        wrong = {"code": said["code"] or "server_error", "message": said["message"]}
        return self._event("response.failed", response=self._answer.unfinished("failed", wrong))

    def _piece(self, delta: ChatDelta) -> Iterator[bytes]:
        if delta.reasoning:
            yield from self._opened("rs")
            self._text += delta.reasoning
            yield self._event("response.reasoning_text.delta", **self._place(), delta=delta.reasoning)
        if delta.text or delta.logprobs:
            yield from self._opened("msg")
            self._text += delta.text
            self._logprobs += delta.logprobs
            scored = [logprob_json(one) for one in delta.logprobs]
            yield self._event("response.output_text.delta", **self._place(), delta=delta.text, logprobs=scored)

    def _end(self, response: ChatResponse) -> Iterator[bytes]:
        cut = response.finish_reason in ("length", "content_filter")
        if not response.message.text and not response.message.tool_calls:
            yield from self._opened("msg")  # an empty answer is an answer
        yield from self._closed("incomplete" if cut else "completed")
        for call in response.message.tool_calls:
            yield from self._call(call)
        kind = "response.incomplete" if cut else "response.completed"
        yield self._event(kind, response=self._answer.whole(response, self._ids))

    def _opened(self, kind: str) -> Iterator[bytes]:
        if self._open == kind:
            return
        yield from self._closed("completed")
        self._open = kind
        self._ids.append(new_id(kind))
        if kind == "rs":
            item = reasoning_item(self._ids[-1], "") | {"content": [], "status": "in_progress"}
            part: Json = {"type": "reasoning_text", "text": ""}
        else:
            item = message_item(self._ids[-1], "", (), "in_progress") | {"content": []}
            part = text_part("")
        yield self._event("response.output_item.added", output_index=len(self._ids) - 1, item=item)
        yield self._event("response.content_part.added", **self._place(), part=part)

    def _closed(self, status: str) -> Iterator[bytes]:
        if self._open is None:
            return
        place = self._place()
        if self._open == "rs":
            item = reasoning_item(place["item_id"], self._text)
            part: Json = {"type": "reasoning_text", "text": self._text}
            yield self._event("response.reasoning_text.done", **place, text=self._text)
        else:
            item = message_item(place["item_id"], self._text, self._logprobs, status)
            part = text_part(self._text, self._logprobs)
            yield self._event("response.output_text.done", **place, text=self._text, logprobs=part["logprobs"])
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)
        self._open, self._text, self._logprobs = None, "", []

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        self._ids.append(new_id("fc"))
        index = len(self._ids) - 1
        item = call_item(self._ids[-1], call)
        place = {"item_id": item["id"], "output_index": index}
        opening = item | {"arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=index, item=opening)
        yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
        yield self._event("response.function_call_arguments.done", **place, arguments=call.arguments, name=call.name)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _place(self) -> Json:
        return {"item_id": self._ids[-1], "output_index": len(self._ids) - 1, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = event({"type": kind, "sequence_number": self._number, **fields}, kind)
        self._number += 1
        return data

"""The events of a streamed /v1/responses: every item is opened, filled and closed; the last event carries it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from windlass.core.values import ChatDelta, ChatResponse, TokenLogprob, ToolCall, ToolCallDelta
from windlass.serve.api.context import Answers
from windlass.serve.api.fields import Json
from windlass.serve.api.messages import at_once, logprob_json
from windlass.serve.api.responses_answer import Answer, call_item, message_item, new_id, reasoning_item, text_part
from windlass.serve.api.sse import Put, event
from windlass.serve.errors import error_json


class Events:
    """One stream. At any time at most one item is open: reasoning, a message, or a call."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._number = 0
        self._items: list[Json] = []
        """As they stand in the response, but for the one that is open."""
        self._open: str | None = None
        """`rs`, `msg`, or `fc`."""
        self._id = ""
        self._text = ""
        """Of the open item; a call's arguments."""
        self._logprobs: list[TokenLogprob] = []
        self._call = ToolCall("", "", "")
        """The open one, without its arguments."""
        self._told = 0
        """Calls that were opened."""

    async def of(self, answers: Answers, put: Put) -> None:
        def take(index: int, delta: ChatDelta) -> None:
            put(b"".join(self._told_of(delta)))

        await answers(take)

    def failed(self, error: Exception) -> bytes:
        """The event of a failure in the middle."""
        said = error_json(error)["error"]
        wrong = {"code": said["code"] or "server_error", "message": said["message"]}
        return self._event("response.failed", response=self._answer.unfinished("failed", wrong))

    def _told_of(self, delta: ChatDelta) -> Iterator[bytes]:
        if not self._number:
            yield self._event("response.created", response=self._answer.unfinished())
            yield self._event("response.in_progress", response=self._answer.unfinished())
        yield from self._piece(delta)
        if delta.response is not None:
            yield from self._end(delta.response)

    def _piece(self, delta: ChatDelta) -> Iterator[bytes]:
        if delta.reasoning:
            yield from self._opened("rs")
            self._text += delta.reasoning
            yield self._event("response.reasoning_text.delta", **self._part(), delta=delta.reasoning)
        if delta.text or (delta.logprobs and self._open != "fc"):
            yield from self._opened("msg")
            self._text += delta.text
            self._logprobs += delta.logprobs
            scored = [logprob_json(one) for one in delta.logprobs]
            yield self._event("response.output_text.delta", **self._part(), delta=delta.text, logprobs=scored)
        for piece in delta.calls:
            yield from self._called(piece)

    def _called(self, piece: ToolCallDelta) -> Iterator[bytes]:
        if piece.name is not None:
            yield from self._closed("completed")
            self._call, self._told = ToolCall(piece.id or new_id("call"), piece.name, ""), self._told + 1
            yield from self._opened("fc")
        if piece.arguments:
            self._text += piece.arguments
            yield self._event("response.function_call_arguments.delta", **self._place(), delta=piece.arguments)

    def _end(self, response: ChatResponse) -> Iterator[bytes]:
        cut = response.finish_reason in ("length", "content_filter")
        if not response.message.text and not response.message.tool_calls:
            yield from self._opened("msg")  # an empty answer is an answer
        yield from self._closed("incomplete" if cut else "completed")
        if not self._told:
            for piece in at_once(response.message.tool_calls):
                yield from self._called(piece)
            yield from self._closed("completed")
        kind = "response.incomplete" if cut else "response.completed"
        yield self._event(kind, response=self._answer.whole(response, self._items))

    def _opened(self, kind: str) -> Iterator[bytes]:
        if self._open == kind:
            return
        # Behind whole calls an answer ends, so a call that text follows was not finished, and the text says it again.
        yield from self._closed("incomplete" if self._open == "fc" else "completed")
        self._open, self._id = kind, new_id(kind)
        item = self._item("in_progress")
        if kind != "fc":
            item["content"] = []
        yield self._event("response.output_item.added", output_index=len(self._items), item=item)
        if kind != "fc":
            part: Json = {"type": "reasoning_text", "text": ""} if kind == "rs" else text_part("")
            yield self._event("response.content_part.added", **self._part(), part=part)

    def _closed(self, status: str) -> Iterator[bytes]:
        if self._open is None:
            return
        item = self._item(status)
        if self._open == "fc":
            if status == "completed":
                said = {"arguments": self._text, "name": self._call.name}
                yield self._event("response.function_call_arguments.done", **self._place(), **said)
        else:
            (part,) = item["content"]
            if self._open == "rs":
                yield self._event("response.reasoning_text.done", **self._part(), text=self._text)
            else:
                scored = part["logprobs"]
                yield self._event("response.output_text.done", **self._part(), text=self._text, logprobs=scored)
            yield self._event("response.content_part.done", **self._part(), part=part)
        yield self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        self._open, self._text, self._logprobs = None, "", []

    def _item(self, status: str) -> Json:
        """The open item."""
        if self._open == "fc":
            return call_item(self._id, replace(self._call, arguments=self._text), status)
        if self._open == "rs":
            return reasoning_item(self._id, self._text) | {"status": status}
        return message_item(self._id, self._text, self._logprobs, status)

    def _place(self) -> Json:
        return {"item_id": self._id, "output_index": len(self._items)}

    def _part(self) -> Json:
        return {**self._place(), "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = event({"type": kind, "sequence_number": self._number, **fields}, kind)
        self._number += 1
        return data

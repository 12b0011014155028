"""What was asked and answered in a trace, as messages that a model can learn from, or why it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.core import semconv
from windlass.core.records import SpanRecord
from windlass.core.redact import MARK

Turn = dict[str, Any]
_TASK = "windlass.task"
"""What the span of a typed task has; those of its calls stand right under it."""


class NotSpoken(Exception):
    """Why a span is no example, in words that complete "3 traces ..."."""


@dataclass(frozen=True, slots=True)
class Spoken:
    prompt: Sequence[Turn]
    """Messages in OpenAI's shape, texts only."""
    answer: Turn

    @property
    def texts(self) -> Iterator[str]:
        for turn in (*self.prompt, self.answer):
            yield turn["content"]


def spoken(span: SpanRecord) -> Spoken:
    """The conversation of a span that ended well, answered to its end. Raises `NotSpoken`."""
    if span.status == "error":
        raise NotSpoken("whose call failed")
    if span.attributes.get("windlass.stopped_early"):
        raise NotSpoken("whose reader left before the end")
    if "length" in (span.attributes.get(semconv.FINISH_REASONS) or ()):
        raise NotSpoken("whose answer was cut at its longest")
    found = span.input.get("messages") if isinstance(span.input, Mapping) else span.input
    prompt = [_turn(message) for message in found] if isinstance(found, list) else []
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in prompt):
        raise NotSpoken("without a question")
    output = span.output if isinstance(span.output, Mapping) else {"content": span.output}
    answer = _turn({"role": "assistant", **output, "content": output.get("content") or output.get("answer") or ""})
    if not answer["content"].strip() and "tool_calls" not in answer:
        raise NotSpoken("without an answer")
    one = Spoken(prompt, answer)
    if any(MARK in text for text in one.texts):
        raise NotSpoken("in which a secret was struck out")
    return one


def answered_by(spans: Sequence[SpanRecord], model: str) -> list[SpanRecord]:
    """The chats of a trace that this model answered, those of tasks as `settled` has them."""
    names = (semconv.RESPONSE_MODEL, semconv.REQUEST_MODEL)
    return [one for one in settled(spans) if model in map(one.attributes.get, names)]


def answers_in(spans: Sequence[SpanRecord], root: SpanRecord) -> list[SpanRecord]:
    """What answers in a trace: its root, or the calls of the typed task that the root is."""
    return [one for one in settled(spans) if one.parent_id == root.span_id] if _TASK in root.attributes else [root]


def settled(spans: Sequence[SpanRecord]) -> list[SpanRecord]:
    """The chats of a trace. A typed task asks again as long as an answer does not fit: then what was asked first stands
    with the answer that was taken, and the others, with what was said against them, are left out. Where the task failed
    in the end, no answer fitted, and what stands there failed too."""
    tasks = {one.span_id: one for one in spans if _TASK in one.attributes}
    chats = sorted((one for one in spans if one.operation == "chat"), key=lambda one: one.start_ns)
    found = []
    for one in chats:
        task = tasks.get(one.parent_id or "")
        if task is None:
            found.append(one)
            continue
        own = [other for other in chats if other.parent_id == one.parent_id]
        if not any(_goes_on(one, later) for later in own):
            first = next(earlier for earlier in own if earlier is one or _goes_on(earlier, one))
            found.append(replace(one, input=first.input, status="error" if task.status == "error" else one.status))
    return found


def _goes_on(one: SpanRecord, later: SpanRecord) -> bool:
    """Whether the later call asks what the earlier one did, and then says more."""
    asked, again = one.input, later.input
    if not isinstance(asked, list) or not isinstance(again, list):
        return False
    return len(again) > len(asked) and again[: len(asked)] == asked


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise NotSpoken("whose messages are not as windlass records them")
    turn: Turn = {"role": "system" if message["role"] == "developer" else message["role"], "content": _text(message)}
    if calls := message.get("tool_calls"):
        turn["tool_calls"] = [_call(call) for call in calls]
    return turn | {name: message[name] for name in ("tool_call_id", "name") if message.get(name)}


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise NotSpoken("that hold more than text")
    return "".join(part for part in parts if part)


def _call(call: Mapping[str, Any]) -> Turn:
    """As OpenAI has it, from the same or from our own, flat shape; arguments as values, since templates write them."""
    said = call.get("function", call)
    arguments = said.get("arguments") or "{}"
    try:
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        raise NotSpoken("with a broken tool call") from error
    return {"type": "function", "function": {"name": said.get("name"), "arguments": values}}

"""POST /v1/responses, OpenAI's newer endpoint, without a memory: every request carries its whole conversation.

What needs a memory or somebody else's tools (`previous_response_id`, `store`, `background`, web search, …) is refused
by name. A streamed answer is a sequence of numbered events; `responses_stream` writes them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from windlass.core.values import ChatRequest, ImagePart, Message, Part, TextPart, ToolCall
from windlass.serve.api.context import Context
from windlass.serve.api.fields import (
    Json,
    Table,
    anything,
    array,
    by_type,
    flag,
    integer,
    mapping,
    one_of,
    only,
    record,
    text,
    text_or,
)
from windlass.serve.api.generate import HARMLESS, MAX_LOGPROBS, MAX_TOKENS, TEXT, Call, text_request
from windlass.serve.api.messages import FUNCTION, MAX_TOOLS, check_tools, tool_spec
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, obj
from windlass.serve.api.responses_answer import Answer
from windlass.serve.api.responses_stream import Events
from windlass.serve.api.sse import EventStream
from windlass.serve.errors import BadField

# input ---------------------------------------------------------------------------------------------------------------

_TEXT_PART = {"text": text(), "annotations": anything, "logprobs": anything}
_PART = by_type(
    {
        kind: record({"type": one_of(kind), **_TEXT_PART}, ["type", "text"]).then(lambda at, v: TextPart(v["text"]))
        for kind in ("input_text", "output_text")
    }
    | {
        "input_image": record(
            {"type": one_of("input_image"), "image_url": text(empty=False), "detail": only("auto"), "file_id": only()},
            ["type", "image_url"],
        ).then(lambda at, v: ImagePart(url=v["image_url"]))
    }
)
_STATUS = one_of("in_progress", "completed", "incomplete")
_ITEM = by_type(
    {
        "message": record(
            {
                "type": one_of("message"),
                "role": one_of("system", "developer", "user", "assistant"),
                "content": text_or(array(_PART, least=1, most=1000)),
                "id": text(),
                "status": _STATUS,
                "phase": text(),
            },
            ["role", "content"],
        ).then(lambda at, item: Message(item["role"], _content(item["content"]))),
        "function_call": record(
            {
                "type": one_of("function_call"),
                "call_id": text(empty=False),
                "name": text(empty=False),
                "arguments": text(),
                "id": text(),
                "status": _STATUS,
            },
            ["type", "call_id", "name", "arguments"],
        ).then(lambda at, item: ToolCall(item["call_id"], item["name"], item["arguments"])),
        "function_call_output": record(
            {
                "type": one_of("function_call_output"),
                "call_id": text(empty=False),
                "output": text_or(array(_PART, least=1, most=1000)),
                "id": text(),
                "status": _STATUS,
            },
            ["type", "call_id", "output"],
        ).then(lambda at, item: Message("tool", _content(item["output"]), tool_call_id=item["call_id"])),
        "reasoning": record(
            {
                "type": one_of("reasoning"),
                "id": text(),
                "summary": array(anything, most=1000),
                "content": array(record({"type": one_of("reasoning_text"), "text": text()}, ["text"]), most=1000),
                "status": _STATUS,
                "encrypted_content": only(),
            },
            ["type"],
        ).then(lambda at, item: "".join(part["text"] for part in item.get("content", ()))),
    },
    default="message",
)
_FORMAT = by_type(
    {
        "text": record({"type": one_of("text")}, ["type"]),
        "json_object": record({"type": one_of("json_object")}, ["type"]),
        "json_schema": record(
            {
                "type": one_of("json_schema"),
                "name": text(empty=False),
                "schema": mapping,
                "strict": flag,
                "description": text(),
            },
            ["type", "name", "schema"],
        ),
    }
)
_TOOL = by_type({"function": record({"type": one_of("function"), **FUNCTION}, ["type", "name"])})
_NAMED = record({"type": one_of("function"), "name": text(empty=False)}, ["type", "name"])


def _content(value: str | list[Part]) -> str | tuple[Part, ...]:
    return value if isinstance(value, str) else tuple(value)


def operation(context: Context) -> Operation:
    shared = {name: check for name, check in TEXT.items() if name not in ("stop", "stream_options", "max_tokens")}
    table: Table = {
        **shared,
        **dict.fromkeys(HARMLESS, anything),
        "model": context.model_field(context.models),
        "input": text_or(array(_ITEM, least=1, most=context.limits.messages)),
        "instructions": text(),
        "max_output_tokens": integer(1, MAX_TOKENS),
        "stream_options": record({"include_obfuscation": flag}),
        "tools": array(_TOOL, most=MAX_TOOLS),
        "tool_choice": text_or(_NAMED.then(lambda at, value: value["name"]), empty=False),
        "parallel_tool_calls": flag,
        "text": record({"format": _FORMAT, "verbosity": text(empty=False)}),
        "reasoning": record({"effort": text(empty=False), "summary": only("auto")}),
        "top_logprobs": integer(0, MAX_LOGPROBS),
        "include": array(one_of("message.output_text.logprobs", "reasoning.encrypted_content"), most=8),
        "truncation": only("disabled"),
        # What needs a memory on this side.
        "store": only(False, hint="This server keeps no answers; send the whole conversation each time."),
        "previous_response_id": only(hint="This server keeps no answers; send the whole conversation each time."),
        "conversation": only(hint="This server keeps no conversations; send the whole one each time."),
        "background": only(False),
        "prompt": only(),
        "max_tool_calls": only(),
        "context_management": only([]),
    }

    async def handle(caller: Caller, fields: Json) -> Json | Response:
        call, answer = responses_call(fields)
        if call.stream:
            events = Events(answer)
            return EventStream(lambda put: events.of(partial(context.answers, call, caller), put), events.failed)
        return answer.whole((await context.answers(call, caller))[0])

    return Operation(
        method="POST",
        path="/v1/responses",
        summary="Answers a conversation; OpenAI's newer form",
        scope="generate",
        table=table,
        required=("model", "input"),
        answer=ANSWER,
        streams=True,
        handle=handle,
        errors=(404,),
    )


def responses_call(fields: Json) -> tuple[Call, Answer]:
    """The call that a body's fields, read by the table above, ask for, and what its answer repeats of them."""
    tools = [tool_spec(f"tools[{i}]", tool) for i, tool in enumerate(fields.get("tools", ()))]
    choice = fields.get("tool_choice", "auto")
    check_tools(tools, choice)
    form, reasoning = fields.get("text", {}), fields.get("reasoning", {})
    format = form.get("format", {"type": "text"})
    logprobs = fields.get("top_logprobs")
    if logprobs is None and "message.output_text.logprobs" in fields.get("include", ()):
        logprobs = 0
    extra = {"reasoning_effort": reasoning["effort"]} if "effort" in reasoning else {}
    extra |= {"verbosity": form["verbosity"]} if "verbosity" in form else {}
    shared = {name: value for name, value in fields.items() if name != "stream_options"}
    request: ChatRequest = text_request(
        shared,
        messages=_messages(fields["input"], fields.get("instructions")),
        max_tokens=fields.get("max_output_tokens"),
        tools=tools,
        tool_choice=choice if tools else "auto",
        schema={"type": "object"} if format["type"] == "json_object" else format.get("schema"),
        logprobs=logprobs,
        extra=extra,
    )
    call = Call(fields["model"], [request], fields.get("stream", False))
    return call, Answer(fields, format, int(time.time()))


def _messages(items: str | Sequence[Any], instructions: str | None) -> list[Message]:
    """The conversation: reasoning and calls, which are items of their own here, belong to the assistant's message."""
    messages = [Message("system", instructions)] if instructions else []
    if isinstance(items, str):
        return [*messages, Message("user", items)]
    thought, calls = "", list[ToolCall]()

    def assistant(content: str | Sequence[Part] = "") -> None:
        nonlocal thought, calls
        if content or calls or thought:
            messages.append(Message("assistant", content, tuple(calls), reasoning=thought))
        thought, calls = "", []

    for item in items:
        if isinstance(item, str):
            thought += item
        elif isinstance(item, ToolCall):
            calls.append(item)
        elif item.role == "assistant":
            if calls:
                assistant()
            assistant(item.content)
        else:
            assistant()
            messages.append(item)
    assistant()
    if not any(message.role != "system" for message in messages):
        raise BadField("input", "'input' holds no message.")
    return messages


ANSWER = obj(
    {
        "id": TEXT_,
        "object": {"const": "response"},
        "created_at": COUNT,
        "status": {"enum": ["completed", "incomplete", "in_progress", "failed"]},
        "model": TEXT_,
        "output": {"type": "array", "items": obj({"type": TEXT_, "id": TEXT_})},
        "usage": {
            "anyOf": [{"type": "null"}, obj({"input_tokens": COUNT, "output_tokens": COUNT, "total_tokens": COUNT})]
        },
        "error": {"type": ["object", "null"]},
        "windlass": {"type": "object"},
    }
)

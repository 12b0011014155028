"""POST /v1/chat/completions.

What an answer carries beyond OpenAI's fields (trace id, citations, whether the model abstained) stands in its field
`windlass`; in a stream, in that of the last chunk with a choice. Clients pass unknown fields through, so that
`response.windlass["citations"]` works in the official `openai` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from windlass.core.values import ChatDelta, ChatResponse, TokenLogprob
from windlass.serve.api.context import Answers, Context
from windlass.serve.api.envelope import Envelope, envelope_schema
from windlass.serve.api.fields import Json, Table, array, by_type, flag, integer, mapping, only, record, text
from windlass.serve.api.fields import one_of as one
from windlass.serve.api.generate import (
    CHAT_EXTRAS,
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_TOKENS,
    TEXT,
    Call,
    text_request,
    times,
)
from windlass.serve.api.messages import (
    MESSAGE,
    TOOL_CHOICE,
    TOOLS,
    at_once,
    call_deltas_json,
    check_tools,
    extension_json,
    logprob_json,
    message_json,
)
from windlass.serve.api.operation import Caller, Operation, obj
from windlass.serve.api.sse import DONE, EventStream, Put, Template
from windlass.serve.errors import BadField

JSON_SCHEMA: Table = {"name": text(empty=False), "description": text(), "schema": mapping, "strict": flag}
FORMAT = by_type(
    {
        "text": record({"type": one("text")}, ["type"]),
        "json_object": record({"type": one("json_object")}, ["type"]),
        "json_schema": record(
            {"type": one("json_schema"), "json_schema": record(JSON_SCHEMA, ["name", "schema"])},
            ["type", "json_schema"],
        ),
    }
)


def operation(context: Context) -> Operation:
    table: Table = {
        "model": context.model_field(context.models),
        "messages": array(MESSAGE, least=1, most=context.limits.messages),
        **TEXT,
        **CHAT_EXTRAS,
        "max_completion_tokens": integer(1, MAX_TOKENS),
        "n": integer(1, MAX_CHOICES),
        "logprobs": flag,
        "top_logprobs": integer(0, MAX_LOGPROBS),
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "response_format": FORMAT,
        "functions": only([]),
        "function_call": only("none", "auto"),
    }

    async def handle(caller: Caller, fields: Json) -> Json | Response:
        call = chat_call(fields)
        made = _Chat(call)
        if call.stream:
            return EventStream(lambda put: made.chunks(partial(context.answers, call, caller), put))
        return made.whole(await context.answers(call, caller))

    return Operation(
        method="POST",
        path="/v1/chat/completions",
        summary="Answers a conversation",
        scope="generate",
        table=table,
        required=("model", "messages"),
        answer=ANSWER,
        streams=True,
        handle=handle,
        errors=(404,),
    )


def chat_call(fields: Json) -> Call:
    """The call that a body's fields, read by the table above, ask for."""
    limits = [fields[name] for name in ("max_completion_tokens", "max_tokens") if name in fields]
    if len(limits) == 2:
        raise BadField("max_tokens", "Both 'max_completion_tokens' and 'max_tokens' are given.", "Give one of them.")
    logprobs = None
    if fields.get("logprobs"):
        logprobs = fields.get("top_logprobs", 0)
    elif fields.get("top_logprobs"):
        raise BadField("top_logprobs", "'top_logprobs' is given, but 'logprobs' is not true.")
    tools, choice = fields.get("tools", ()), fields.get("tool_choice", "auto")
    check_tools(tools, choice)
    request = text_request(
        fields,
        messages=fields["messages"],
        max_tokens=limits[0] if limits else None,
        tools=tools,
        tool_choice=choice if tools else "auto",
        schema=_schema(fields.get("response_format")),
        logprobs=logprobs,
    )
    include_usage = fields.get("stream_options", {}).get("include_usage", False)
    return Call(fields["model"], times(request, fields.get("n", 1)), fields.get("stream", False), include_usage)


def _schema(format: Json | None) -> Json | None:
    if format is None or format["type"] == "text":
        return None
    schema: Json = {"type": "object"} if format["type"] == "json_object" else format["json_schema"]["schema"]
    return schema


class _Chat:
    """The answers of one call as JSON: whole, or as the chunks of a stream."""

    def __init__(self, call: Call) -> None:
        self._scored = call.requests[0].logprobs is not None
        self._envelope = Envelope(call, KIND, f"{KIND}.chunk", prefix="chatcmpl")

    def whole(self, responses: Sequence[ChatResponse]) -> Json:
        choices = [
            {
                "index": i,
                "message": message_json(response.message),
                "logprobs": _logprobs(response.logprobs) if self._scored else None,
                "finish_reason": response.finish_reason,
            }
            for i, response in enumerate(responses)
        ]
        return self._envelope.whole(choices, [responses], responses[0].id)

    async def chunks(self, answers: Answers, put: Put) -> None:
        templates: dict[int, Template] = {}
        """Of the answers that have begun."""
        calling: set[int] = set()
        """Answers whose calls were streamed."""

        def take(index: int, delta: ChatDelta) -> None:
            told = b""
            if index not in templates:
                templates[index] = Template(self._chunk(index, {"content": Template.BLANK}))
                told = self._chunk(index, {"role": "assistant", "content": ""})
            if delta.calls:
                calling.add(index)
            if delta.text and not (delta.reasoning or delta.calls or delta.logprobs):
                told += templates[index].filled(delta.text)
            elif (piece := _piece(delta)) or delta.logprobs:
                told += self._chunk(index, piece, logprobs=delta.logprobs)
            if delta.response is not None:
                told += self._closing(index, delta.response, told=index in calling)
            put(told)

        responses = await answers(take)
        put(self._envelope.usage([responses]) + DONE)

    def _closing(self, index: int, response: ChatResponse, *, told: bool) -> bytes:
        """The last chunk of an answer. `told`: its calls were streamed."""
        calls = [] if told else call_deltas_json(at_once(response.message.tool_calls))
        delta: Json = {"tool_calls": calls} if calls else {}
        return self._chunk(index, delta, finish=response.finish_reason, windlass=extension_json(response))

    def _chunk(
        self, index: int, delta: Json, *, finish: str | None = None, logprobs: Sequence[TokenLogprob] = (), **more: Any
    ) -> bytes:
        scored = _logprobs(logprobs) if logprobs else None
        choice = {"index": index, "delta": delta, "logprobs": scored, "finish_reason": finish}
        return self._envelope.chunk(choice, **more)


def _piece(delta: ChatDelta) -> Json:
    piece: Json = {"content": delta.text} if delta.text else {}
    if delta.reasoning:
        piece["reasoning_content"] = delta.reasoning
    if delta.calls:
        piece["tool_calls"] = call_deltas_json(delta.calls)
    return piece


def _logprobs(logprobs: Sequence[TokenLogprob]) -> Json:
    return {"content": [logprob_json(one) for one in logprobs], "refusal": None}


KIND = "chat.completion"
ANSWER = envelope_schema(
    KIND, {"message": obj({"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}})}
)

"""Messages and tools as the chat endpoint's JSON has them <-> windlass' values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from windlass.core.values import (
    ChatResponse,
    ImagePart,
    Message,
    Part,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
    Usage,
)
from windlass.serve.api.fields import (
    Check,
    Json,
    anything,
    array,
    by_type,
    flag,
    mapping,
    one_of,
    only,
    record,
    short,
    text,
    text_or,
)
from windlass.serve.errors import BadField

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")


# messages ------------------------------------------------------------------------------------------------------------

_PART = by_type(
    {
        "text": record({"type": one_of("text"), "text": text()}, ["type", "text"]),
        "image_url": record(
            {
                "type": one_of("image_url"),
                "image_url": record({"url": text(empty=False), "detail": only("auto")}, ["url"]),
            },
            ["type", "image_url"],
        ),
    }
).then(lambda at, part: _part(part))

_TOOL_CALL = record(
    {
        "id": text(empty=False),
        "type": one_of("function"),
        "function": record({"name": text(empty=False), "arguments": text()}, ["name", "arguments"]),
        "index": anything,
    },
    ["id", "type", "function"],
).then(lambda at, call: ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"]))

MESSAGE = record(
    {
        "role": one_of("system", "developer", "user", "assistant", "tool"),
        "content": text_or(array(_PART, least=1, most=1000)),
        "tool_calls": array(_TOOL_CALL, most=MAX_TOOLS),
        "tool_call_id": text(empty=False),
        "name": text(empty=False),
        # What an answer of ours carries besides, which clients send back as history.
        "reasoning_content": text(),
        "refusal": only(""),
        "annotations": only([]),
        "audio": only(),
        "function_call": only(),
        "windlass": anything,
    },
    ["role"],
).then(lambda at, message: _message(at, message))


def _part(part: Json) -> Part:
    return TextPart(part["text"]) if part["type"] == "text" else ImagePart(url=part["image_url"]["url"])


def _message(at: str, message: Json) -> Message:
    role, calls, content = message["role"], message.get("tool_calls", ()), message.get("content")
    if content is None and not calls:
        raise BadField(f"{at}.content", f"'{at}.content' is missing.", code="missing")
    if calls and role != "assistant":
        raise BadField(f"{at}.tool_calls", f"'{at}.tool_calls' belongs to messages of the assistant only.")
    if (role == "tool") != ("tool_call_id" in message):
        raise BadField(f"{at}.tool_call_id", f"'{at}.tool_call_id' belongs to messages of role 'tool', and to all.")
    return Message(
        role,
        "" if content is None else content if isinstance(content, str) else tuple(content),
        tuple(calls),
        message.get("tool_call_id"),
        message.get("name"),
        message.get("reasoning_content", ""),
    )


# tools ---------------------------------------------------------------------------------------------------------------

FUNCTION = {
    "name": text(empty=False, longest=64),
    "description": text(),
    "parameters": mapping,
    "strict": flag,
}


def tool_spec(at: str, function: Json) -> ToolSpec:
    """A tool from the fields of `FUNCTION`."""
    name = function["name"]
    if not _NAME.fullmatch(name) or name in _CHOICES:
        raise BadField(
            f"{at}.name",
            f"'{at}.name' is {short(name)}, which no tool can be called.",
            f"Use letters, digits, '_' and '-'; {', '.join(_CHOICES)} mean something else in 'tool_choice'.",
        )
    return ToolSpec(
        name, function.get("description", ""), function.get("parameters", {}), function.get("strict", False)
    )


_TOOL = record({"type": one_of("function"), "function": record(FUNCTION, ["name"])}, ["type", "function"])
TOOLS = array(
    by_type({"function": _TOOL}).then(lambda at, tool: tool_spec(f"{at}.function", tool["function"])), most=MAX_TOOLS
)

_NAMED = record(
    {"type": one_of("function"), "function": record({"name": text(empty=False)}, ["name"])}, ["type", "function"]
)


def _tool_choice(at: str, value: Any) -> str:
    if isinstance(value, str):
        return str(one_of(*_CHOICES)(at, value))
    return str(_NAMED(at, value)["function"]["name"])


TOOL_CHOICE = Check({"anyOf": [one_of(*_CHOICES).schema, _NAMED.schema]}, _tool_choice)


def check_tools(tools: Sequence[ToolSpec], choice: str) -> None:
    """Raises `BadField` when names repeat, or when the choice cannot be made among these tools."""
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise BadField("tools", f"'tools' names '{name}' twice.")
    if choice == "required" and not tools:
        raise BadField("tool_choice", "'tool_choice' is \"required\", but there are no tools.", "Give 'tools'.")
    if choice not in _CHOICES and choice not in names:
        raise BadField("tool_choice", f"'tool_choice' names '{choice[:64]}', which is not among the tools.")


# answers -------------------------------------------------------------------------------------------------------------


def message_json(message: Message) -> Json:
    body: Json = {"role": message.role, "content": message.text, "refusal": None}
    if message.reasoning:
        body["reasoning_content"] = message.reasoning
    if message.tool_calls:
        body["content"] = message.text or None
        body["tool_calls"] = tool_calls_json(message.tool_calls)
    return body


def tool_calls_json(calls: Sequence[ToolCall]) -> list[Json]:
    return [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]


def call_deltas_json(deltas: Sequence[ToolCallDelta]) -> list[Json]:
    """Pieces of calls as the chunks of a stream hold them: the first of a call names it, the others go on with it."""
    return [
        {"index": one.index, "function": {"arguments": one.arguments}}
        if one.name is None
        else {
            "index": one.index,
            "id": one.id,
            "type": "function",
            "function": {"name": one.name, "arguments": one.arguments},
        }
        for one in deltas
    ]


def at_once(calls: Sequence[ToolCall]) -> list[ToolCallDelta]:
    """Calls of a model that does not stream them, as if each had been written in one piece."""
    return [ToolCallDelta(i, call.arguments, call.id, call.name) for i, call in enumerate(calls)]


def logprob_json(one: TokenLogprob) -> Json:
    return {**_token_json(one), "top_logprobs": [_token_json(other) for other in one.top]}


def _token_json(one: TokenLogprob) -> Json:
    raw = one.token.encode() if one.bytes is None else one.bytes
    return {"token": one.token, "logprob": one.logprob, "bytes": list(raw)}


def usage_json(usage: Usage) -> Json | None:
    """OpenAI's overlapping counts out of our disjoint ones; None when the model reported none."""
    if usage.total is None:
        return None
    body: Json = {
        "prompt_tokens": usage.prompt or 0,
        "completion_tokens": usage.completion or 0,
        "total_tokens": usage.total,
    }
    if usage.cache_read is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cache_read}
    if usage.reasoning is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return body


def extension_json(response: ChatResponse) -> Json:
    """What windlass says beyond OpenAI's fields, under the key `windlass`."""
    return {
        "trace_id": response.trace_id,
        "citations": [asdict(citation) for citation in response.citations],
        "abstained": response.abstained,
        "warnings": list(response.warnings),
        "cost_usd": response.cost_usd,
    }

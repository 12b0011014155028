"""The formats in which people keep examples, told apart by their columns.

| format     | columns                                                         |
|------------|-----------------------------------------------------------------|
| OpenAI     | `messages`: [{role, content, tool_calls...}], perhaps `tools`   |
| ShareGPT   | `conversations`: [{from, value}], perhaps `system`, `tools`     |
| Alpaca     | `instruction`, `input`, `output`, perhaps `system`, `history`   |
| completion | `prompt`, `completion`: texts, or lists of messages             |
| question   | `question`, `answer`                                            |

Learned is what the assistant says: all of it, but of a prompt nothing, which is only read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.build.adapt.data.conversations import Conversation, Turn
from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_call": "function_call",
}  # fmt: skip
_PAIRS = (("prompt", "completion"), ("question", "answer"), ("prompt", "response"))


def conversation_of(row: Row) -> Conversation:
    """A row in any of the formats. Raises `InputError` naming row and column."""
    values = row.values
    tools = tools_of(row)
    if "messages" in values:
        return Conversation(_messages(row, "messages", values["messages"]), row.where, tools)
    if "conversations" in values:
        turns = _sharegpt(row, "conversations", values["conversations"])
        return Conversation([*system_of(row), *turns], row.where, tools)
    if "instruction" in values and "output" in values:
        return Conversation([*system_of(row), *_alpaca(row)], row.where, tools)
    for asked, said in _PAIRS:
        if asked in values and said in values:
            before = [*system_of(row), *_side(row, asked, "user")]
            return Conversation([*before, *_side(row, said, "assistant")], row.where, tools, first=len(before))
    raise InputError(
        f"{row.where}: the columns are {', '.join(map(str, values)) or 'none'}, which is no known format.",
        "Give `messages`, `conversations`, `instruction` and `output`, or `prompt` and `completion`.",
    )


def continuation_of(row: Row) -> tuple[str, str]:
    """What a text begins with and how it goes on, for a base that knows no conversations. Raises `InputError` for a row
    that is no plain pair of the two."""
    for asked, said in _PAIRS:
        if asked in row.values and said in row.values and not {"messages", "conversations"} & row.values.keys():
            return _text(row, asked), _text(row, said)
    raise InputError(
        f"{row.where}: the base has no chat template, and this row is no plain `prompt` with its `completion`.",
        'Choose how a conversation is written (--set model.template=plain, "chatml" or a file), or give such rows.',
    )


def turns_of(row: Row, column: str, role: str) -> list[Turn]:
    """A column that holds what `role` says as a text, or a message or several, in OpenAI's or ShareGPT's spelling.
    Raises `InputError` naming row and column."""
    value = row.values[column]
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    listed = [value] if isinstance(value, Mapping) else value
    shared = isinstance(listed, list) and listed and isinstance(listed[0], Mapping) and "from" in listed[0]
    return (_sharegpt if shared else _messages)(row, column, listed)


def _messages(row: Row, column: str, found: Any) -> list[Turn]:
    if not isinstance(found, list) or not found:
        raise InputError(f"{row.where}: {column} is no list of messages.")
    for place, message in enumerate(found):
        known = isinstance(message, Mapping) and isinstance(message.get("role"), str)
        if not known or not isinstance(message.get("content", ""), str | list | None):
            raise InputError(f"{row.where}: {column}[{place}] is no message with a role and a content.")
    return [
        {**message, "content": message.get("content") or "", **_calls(f"{row.where}: {column}[{place}]", message)}
        for place, message in enumerate(found)
    ]


def _calls(where: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """The tool calls of a message, if any, with their arguments as values: OpenAI has them as JSON text, and templates,
    as the engine's, write values."""
    if not message.get("tool_calls"):
        return {}
    try:
        return {"tool_calls": [_valued(call) for call in message["tool_calls"]]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        told = json.dumps(message["tool_calls"], default=str)[:80]
        raise InputError(f"{where}: tool_calls is no list of function calls: {told}.", "Mend the row.") from error


def _valued(call: Mapping[str, Any]) -> dict[str, Any]:
    said = call["function"]
    arguments = said.get("arguments") or {}
    values = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(values, Mapping):
        raise ValueError("arguments are no object")
    return {**call, "function": {**said, "name": str(said["name"]), "arguments": values}}


def system_of(row: Row) -> list[Turn]:
    """What a column of its own says to begin with, if there is one."""
    text = row.values.get("system")
    return [{"role": "system", "content": str(text)}] if text else []


def _sharegpt(row: Row, column: str, found: Any) -> list[Turn]:
    if not isinstance(found, list) or not found:
        raise InputError(f"{row.where}: {column} is no list of turns.")
    turns: list[Turn] = []
    for place, turn in enumerate(found):
        speaker = _ROLES.get(str(turn.get("from", turn.get("role")))) if isinstance(turn, Mapping) else None
        text = turn.get("value", turn.get("content")) if isinstance(turn, Mapping) else None
        if speaker is None or not isinstance(text, str):
            raise InputError(f"{row.where}: {column}[{place}] has no known `from` and a text as `value`.")
        if speaker == "function_call":
            turns.append({"role": "assistant", "content": "", "tool_calls": [_call(row, f"{column}[{place}]", text)]})
        else:
            turns.append({"role": speaker, "content": text})
    return turns


def _call(row: Row, place: str, text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
        return {"type": "function", "function": {"name": str(call["name"]), "arguments": call.get("arguments", {})}}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{row.where}: {place} is no function call in JSON: {text[:80]!r}.") from error


def _alpaca(row: Row) -> list[Turn]:
    values = row.values
    turns: list[Turn] = []
    for place, pair in enumerate(values.get("history") or []):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"{row.where}: history[{place}] is no pair of what was asked and answered.")
        turns += [{"role": "user", "content": str(pair[0])}, {"role": "assistant", "content": str(pair[1])}]
    parts = [_text(row, "instruction"), _text(row, "input") if values.get("input") else ""]
    asked = "\n\n".join(part for part in parts if part)
    return [*turns, {"role": "user", "content": asked}, {"role": "assistant", "content": _text(row, "output")}]


def _side(row: Row, column: str, role: str) -> list[Turn]:
    value = row.values[column]
    return turns_of(row, column, role) if isinstance(value, list) else [{"role": role, "content": _text(row, column)}]


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if not isinstance(value, str):
        raise InputError(f"{row.where}: {column} is {json.dumps(value, default=str)[:80]}, but must be text.")
    return value


def tools_of(row: Row) -> Sequence[Mapping[str, Any]]:
    """What the assistant could call, as OpenAI spells it."""
    found = row.values.get("tools")
    if isinstance(found, str):
        try:
            found = json.loads(found) if found.strip() else []
        except ValueError as error:
            raise InputError(f"{row.where}: tools is no JSON ({error}).") from error
    if not isinstance(found or [], list):
        raise InputError(f"{row.where}: tools is no list.")
    return [_tool(f"{row.where}: tools[{place}]", tool) for place, tool in enumerate(found or [])]


def _tool(where: str, tool: Any) -> dict[str, Any]:
    """A function in OpenAI's shape with the keys that the serving engine gives to a template, in its order: what is
    trained on reads to the letter as what is asked later, however the row spells it."""
    said = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
        raise InputError(f"{where} is no function with a name: {json.dumps(tool, default=str)[:80]}.", "Mend the row.")
    kept = {
        "name": said["name"],
        "description": said.get("description") or "",
        "parameters": said.get("parameters") or {},
    }
    return {"type": "function", "function": kept}

"""Tool calls of one request: the grammar an answer must obey, and the answer taken apart into content and calls.

    tools = Tools(format, request.tools, request.tool_choice)
    constraint = grammars.grammar(tools.grammar(schema))
    stream = tools.stream()
    shown = stream.push("Let me look. <tool_call>")      # "Let me look."
    end = stream.finish()                                # the rest, the calls, and whether any was malformed

With tools there is always a grammar: whatever is chosen, arguments satisfy the tool's schema. What cannot be enforced
in a schema is refused before anything is written. The reader does not rely on that: cut off by the token limit, or
written without a grammar, a call that is not whole is shown as text and never passed on as a call.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.core.errors import InputError
from windlass.core.values import ToolCall, ToolSpec
from windlass.serve.engine.constraints.json_schema import Schema, prepare
from windlass.serve.engine.constraints.lark import in_lark, quoted
from windlass.serve.engine.dialect.tool_formats import Format, Malformed, Signature


@dataclass(frozen=True, slots=True)
class End:
    """What is known when an answer has ended."""

    text: str = ""
    """Content that was held back until now."""
    calls: Sequence[ToolCall] = ()
    malformed: bool = False
    """Whether something announced as a call was not one; it stands in the content as it was written."""


class Tools:
    def __init__(
        self, format: Format, tools: Sequence[ToolSpec], choice: str = "auto", *, several: bool = True
    ) -> None:
        """`choice`: `auto`, `none`, `required`, or a tool's name. `several`: whether one answer may hold many calls.

        Raises `InputError` or `Unsupported` naming the tool whose parameters cannot be enforced.
        """
        names = [tool.name for tool in tools]
        if choice not in ("auto", "none", "required", *names):
            raise InputError(f"tool_choice is '{choice[:80]}', but the tools are: {', '.join(names)}.")
        self.format = format
        self._choice = choice
        self._several = several and choice in ("auto", "required")
        asked = [(place, tool) for place, tool in enumerate(tools) if choice not in names or tool.name == choice]
        self._signatures = [Signature(tool.name, _parameters(tool, place)) for place, tool in asked]
        self._names = frozenset(tool.name for _, tool in asked)

    def grammar(self, schema: Mapping[str, Any] | None = None) -> str | None:
        """A Lark grammar of the answers allowed; `schema` is what an answer that is no call must obey.

        None where anything is: no calls, no schema.
        """
        if self._choice == "none":
            return None if schema is None else f"start: {in_lark(prepare(schema))}"
        begin = self.format.begin
        rules = self.format.rules(self._signatures, self._several)
        if self._choice != "auto":
            return f"start: {quoted(begin) if begin else ''} calls\n{rules}"
        if schema is not None:
            return f"start: talk | {quoted(begin) if begin else ''} calls\ntalk: {in_lark(prepare(schema))}\n{rules}"
        if begin:
            # The lexer prefers the lazy rule, so the first announcement is always one.
            head = re.escape(begin).replace("/", "\\/")
            return f"start: TALK | head calls\nTALK: /(?s:.*)/\nhead[lazy]: /(?s:.*){head}/\n{rules}"
        return f"start: TALK | calls\nTALK: /(?s:.*)/ & ~/\\s*({self.format.first})(?s:.*)/\n{rules}"

    def stream(self) -> CallStream:
        return CallStream(self.format, frozenset() if self._choice == "none" else self._names)


class CallStream:
    """Takes an answer apart as it is written: `push` returns content that can be shown, `finish` the calls."""

    def __init__(self, format: Format, names: frozenset[str]) -> None:
        """`names`: of the tools that may be called; empty: everything is content."""
        self._format = format
        self._names = names
        self._calls: list[ToolCall] = []
        self._held = ""
        self._plain = not names
        """Whether the rest of the answer is content."""
        self._inside = False
        """Whether what is held stands in a call."""
        self._gap = ""
        """White space before the call: not shown, unless it turns out to be none."""
        self._tried = 0
        """Up to where the end of the call was looked for."""

    def push(self, text: str) -> str:
        """The content that has become certain: never a part of what may yet be a call."""
        if self._plain:
            return text
        self._held += text
        return self._announced() if self._format.begin else self._shaped()

    def finish(self) -> End:
        held, self._held = self._held, ""
        if not self._inside:
            return End("" if self._calls and held.isspace() else held, tuple(self._calls))
        try:
            whole = held[: len(held) - _overlap(held, self._format.end)]  # the end itself may be cut off
            return End("", (*self._calls, *self._read(whole)))
        except Malformed:
            announced = any(held.lstrip().startswith(mark) for mark in self._format.marks)
            malformed = bool(self._format.begin) or announced  # else it may be an answer that only begins like a call
            return End(self._gap + self._format.begin + held, tuple(self._calls), malformed)

    def _announced(self) -> str:
        """Content up to the next announcement, with the calls read on the way."""
        begin, shown = self._format.begin, ""
        while True:
            if not self._inside:
                before, found, rest = self._held.partition(begin)
                if not found:
                    certain = self._held[: len(self._held) - _overlap(self._held, begin)].rstrip()
                    self._held = self._held[len(certain) :]
                    return shown + certain
                shown += before.rstrip()
                self._gap = before[len(before.rstrip()) :]
                self._held, self._inside, self._tried = rest, True, 0
            if not self._closed():
                return shown

    def _closed(self) -> bool:
        """Whether the call is complete; then it is read, and what is held comes after it.

        The text that ends a call may also stand inside a string of its arguments, so an end counts only if what comes
        before it is a call.
        """
        end = self._format.end
        while end and (place := self._held.find(end, self._tried)) >= 0:
            self._tried = place + 1
            try:
                self._calls += self._read(self._held[:place])
            except Malformed:
                continue
            self._held, self._inside = self._held[place + len(end) :], False
            return True
        return False

    def _shaped(self) -> str:
        """Nothing, while the answer may be a call from its first character on; all of it once that is out."""
        text = self._held.lstrip()
        if self._inside or any(mark.startswith(text) for mark in ("", *self._format.marks)):
            return ""
        if re.match(self._format.first, text):
            self._inside = True
            return ""
        shown, self._held, self._plain = self._held, "", True
        return shown

    def _read(self, text: str) -> list[ToolCall]:
        calls = self._format.read(text)
        if unknown := {name for name, _ in calls} - self._names:
            raise Malformed(f"there is no tool {min(unknown)!r}")
        # Nine letters, as Mistral's templates insist on.
        return [ToolCall(uuid.uuid4().hex[:9], name, arguments) for name, arguments in calls]


def _overlap(text: str, mark: str) -> int:
    """Length of the longest beginning of `mark` that the text ends with."""
    longest = min(len(mark) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(mark[:length])), 0)


def _parameters(tool: ToolSpec, place: int) -> Schema:
    where = f"tools[{place}].parameters"
    if not tool.parameters:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    schema = prepare(tool.parameters, where=where)
    if schema.get("type", "object") != "object":
        raise InputError(f"'{where}' must describe an object: the arguments of '{tool.name}' by name.")
    return schema | {"type": "object"}


def tools_json(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools as chat templates read them: OpenAI's shape."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]

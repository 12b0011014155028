"""Tool calls of one request: the grammar an answer must obey, and the answer taken apart into content and calls.

    tools = Tools(request.tools, request.tool_choice)
    constraint = grammars.grammar(grammar(format, tools, schema))
    stream = CallStream(format, tools.callable)
    piece = stream.push("Let me look. <tool_call>")      # piece.text is "Let me look."
    last, end = stream.finish()                          # the rest, the calls, and whether any was malformed

With tools there is always a grammar: whatever is chosen, arguments satisfy the tool's schema. What cannot be enforced
in a schema is refused before anything is written. The reader does not rely on that: a call is told of while it is being
written, but counts only when it is whole. Cut off by the token limit, or written wrongly without a grammar, it is shown
as text behind what was told of it, and is not among the calls of the answer.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.core.errors import InputError
from windlass.core.values import ToolCall, ToolCallDelta, ToolSpec
from windlass.serve.engine.constraints.json_schema import prepare
from windlass.serve.engine.constraints.keywords import Schema
from windlass.serve.engine.constraints.lark import in_lark, quoted
from windlass.serve.engine.dialect.calls import (
    Format,
    Incoming,
    Malformed,
    Opened,
    Reading,
    Signature,
    Whole,
    overlap,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that has become certain."""

    reasoning: str = ""
    text: str = ""
    calls: Sequence[ToolCallDelta] = ()
    """They may still be withdrawn, when a call is not finished: `End.calls` are those that count."""

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.text or self.calls)

    def __add__(self, other: Piece) -> Piece:
        return Piece(self.reasoning + other.reasoning, self.text + other.text, (*self.calls, *other.calls))


@dataclass(frozen=True, slots=True)
class End:
    """What is known when an answer has ended."""

    calls: Sequence[ToolCall] = ()
    malformed: bool = False
    """Whether something announced as a call was not one; it stands in the content as it was written."""


class Calls:
    """The calls of one answer, as a reader tells of them."""

    def __init__(self, names: Container[str]) -> None:
        self.whole: list[ToolCall] = []
        self._names = names
        self._open: list[ToolCall] = []

    def take(self, event: Opened | Whole | str) -> list[ToolCallDelta]:
        """What a stream says of it. Raises `Malformed` for a tool that there is not."""
        if isinstance(event, Whole):
            self.whole += self._open
            self._open = []
            return []
        if isinstance(event, Opened):
            if event.name not in self._names:
                raise Malformed(f"there is no tool {event.name[:80]!r}")
            # Nine letters, as Mistral's templates insist on.
            self._open.append(ToolCall(event.id or uuid.uuid4().hex[:9], event.name, ""))
            return [self._delta(id=self._open[-1].id, name=event.name)]
        self._open[-1] = replace(self._open[-1], arguments=self._open[-1].arguments + event)
        return [self._delta(arguments=event)]

    def _delta(self, **said: str) -> ToolCallDelta:
        return ToolCallDelta(len(self.whole) + len(self._open) - 1, **said)


class Tools:
    """What a request says of tools: which of them an answer may call, and how many calls it may hold."""

    def __init__(self, tools: Sequence[ToolSpec], choice: str = "auto", *, several: bool = True) -> None:
        """`choice`: `auto`, `none`, `required`, or a tool's name. `several`: whether one answer may hold many calls.

        Raises `InputError` or `Unsupported` naming the tool whose parameters cannot be enforced.
        """
        names = [tool.name for tool in tools]
        if choice not in ("auto", "none", "required", *names):
            raise InputError(f"tool_choice is '{choice[:80]}', but the tools are: {', '.join(names)}.")
        self.choice = choice
        self.several = several and choice in ("auto", "required")
        asked = [(place, tool) for place, tool in enumerate(tools) if choice not in names or tool.name == choice]
        self.signatures = [Signature(tool.name, _parameters(tool, place)) for place, tool in asked]

    @property
    def callable(self) -> dict[str, Schema]:
        """The parameters of the tools that may be called, by name."""
        return {} if self.choice == "none" else {tool.name: tool.parameters for tool in self.signatures}


def grammar(format: Format, tools: Tools, schema: Mapping[str, Any] | None = None) -> str | None:
    """A Lark grammar of the answers allowed; `schema` is what an answer that is no call must obey.

    None where anything is: no calls, no schema.
    """
    if tools.choice == "none":
        return None if schema is None else f"start: {in_lark(prepare(schema))}"
    begin = quoted(format.begin) if format.begin else ""
    rules = format.rules(tools.signatures, tools.several)
    if tools.choice != "auto":
        return f"start: {begin} calls\n{rules}"
    if schema is not None:
        return f"start: talk | {begin} calls\ntalk: {in_lark(prepare(schema))}\n{rules}"
    if begin:
        # The lexer prefers the lazy rule, so the first announcement is always one.
        head = re.escape(format.begin).replace("/", "\\/")
        return f"start: TALK | head calls\nTALK: /(?s:.*)/\nhead[lazy]: /(?s:.*){head}/\n{rules}"
    return f"start: TALK | calls\nTALK: /(?s:.*)/ & ~/\\s*({format.first})(?s:.*)/\n{rules}"


class CallStream:
    """Takes an answer apart as it is written: content, and calls from their first letters on."""

    def __init__(self, format: Format, tools: Mapping[str, Schema]) -> None:
        """`tools`: the parameters of those that may be called, by name; empty: everything is content."""
        self._format = format
        self._tools = tools
        self._held = ""
        """Content that may yet become a call."""
        self._plain = not tools
        """Whether the rest of the answer is content."""
        self._gap = ""
        """White space before a call: not shown, unless it turns out to be none."""
        self._reading: Reading[None] | None = None
        self._source = Incoming()
        self._behind = 0
        """Up to where the calls that the source holds are whole."""
        self._calls = Calls(tools)
        self._malformed = False

    def push(self, text: str) -> Piece:
        """What has become certain: never a part of what may yet be a call as content."""
        if self._plain:
            return Piece(text=text)
        shown, made = "", list[ToolCallDelta]()
        self._held += text
        while self._held and not self._plain:
            if self._reading is None:
                shown += self._announced() if self._format.begin else self._shaped()
                if self._reading is None:
                    break
            self._source.push(self._held)
            self._held = ""
            shown += self._follow(made)
        return Piece(text=shown, calls=tuple(made))

    def finish(self) -> tuple[Piece, End]:
        made = list[ToolCallDelta]()
        shown = ""
        if self._reading is not None:
            self._source.closed = True
            shown = self._follow(made)
        rest, self._held = self._held, ""
        shown += "" if self._calls.whole and rest.isspace() else rest
        return Piece(text=shown, calls=tuple(made)), End(tuple(self._calls.whole), self._malformed)

    def _announced(self) -> str:
        """Content up to the next announcement of calls."""
        before, found, rest = self._held.partition(self._format.begin)
        if not found:
            certain = self._held[: len(self._held) - overlap(self._held, self._format.begin)].rstrip()
            self._held = self._held[len(certain) :]
            return certain
        shown = before.rstrip()
        self._gap = before[len(shown) :]
        self._begin(rest)
        return shown

    def _shaped(self) -> str:
        """Nothing, while the answer may be a call from its first character on; all of it once that is out."""
        text = self._held.lstrip()
        if any(mark.startswith(text) for mark in ("", *self._format.marks)):
            return ""
        if re.match(self._format.first, text):
            self._gap = self._held[: len(self._held) - len(text)]
            self._begin(text)
            return ""
        shown, self._held, self._plain = self._held, "", True
        return shown

    def _begin(self, text: str) -> None:
        self._held, self._source, self._behind = text, Incoming(), 0
        self._reading = self._format.read(self._source, self._tools)

    def _follow(self, made: list[ToolCallDelta]) -> str:
        """Goes on reading calls, which come to `made`; the content that shows where there are none."""
        assert self._reading is not None
        try:
            for event in self._reading:
                if event is None:
                    return ""
                made += self._calls.take(event)
                self._behind = self._source.place if isinstance(event, Whole) else self._behind
        except Malformed:
            text = self._source.text[self._behind :]
            announced = bool(self._format.begin) or any(text.startswith(mark) for mark in self._format.marks)
            self._malformed = announced  # else it may be an answer that only begins like a call
            self._reading, self._plain = None, True
            return text if self._behind else self._gap + self._format.begin + text
        self._reading, self._held = None, self._source.rest
        return ""


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

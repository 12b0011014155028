"""Formats that put each argument between tags of its own, texts without quotes: XML in looks, not in its rules.

What the three have in common is one reader and one grammar; `Tags` holds what tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from windlass.core.errors import Unsupported
from windlass.serve.engine.constraints.keywords import Schema
from windlass.serve.engine.constraints.lark import quoted
from windlass.serve.engine.dialect.calls import (
    Format,
    Incoming,
    Malformed,
    Opened,
    Reading,
    Signature,
    Whole,
    silently,
    text_of,
)
from windlass.serve.engine.dialect.json_calls import any_call
from windlass.serve.engine.dialect.named_arguments import check_named, properties_of, reading, writing


@dataclass(frozen=True, slots=True)
class Tags:
    """Line breaks are as models are taught to write them; the reader takes them or leaves them."""

    begin: str
    call: str
    """Before the name of a tool."""
    name: str
    """Behind it."""
    key: str
    """Before the name of a parameter."""
    value: tuple[str, ...]
    """Between that and the value; white space may stand between them."""
    value_end: str
    call_end: str
    end: str
    """What closes what `begin` has opened, where that is not `call_end`."""
    many: bool = False
    """Whether several calls may stand between `begin` and `end`."""
    line: str = ""
    """What stands around a value and is no part of it."""


def _read(tags: Tags, source: Incoming, tools: Mapping[str, Schema]) -> Reading[None]:
    if tags.call:
        yield from source.which(tags.call)
    while True:
        yield from _read_call(tags, source, tools)
        if not tags.many:
            if tags.end:
                yield from source.end(tags.end)
            yield Whole()
            return
        yield Whole()
        if (yield from source.ended(tags.call, tags.end)):
            return


def _read_call(tags: Tags, source: Incoming, tools: Mapping[str, Schema]) -> Reading[None]:
    yield from source.skip()
    name = (yield from source.upto('<>"\n')).strip()
    yield Opened(name)  # whoever follows goes on only if there is such a tool
    if tags.name.strip():
        yield from source.which(tags.name.strip())
    yield "{"
    known: set[str] = set()
    while (yield from source.which(tags.key, tags.call_end)) == tags.key:
        key = yield from silently(source.until(tags.value[0]))
        if key in known:
            raise Malformed("a parameter stands there twice")
        for mark in tags.value[1:]:
            yield from source.which(mark)
        if tags.line and (yield from source.letter()) == tags.line:
            source.place += 1
        yield f"{', ' if known else ''}{text_of(key)}: "
        yield from reading(source, tools[name], key, tags.value_end, before=tags.line)
        known.add(key)
    yield "}"


def _rules(tags: Tags, tools: Sequence[Signature], several: bool) -> str:
    line = '"\\n"' if tags.call else ""
    end = quoted(tags.end) if tags.end else ""
    if tags.many:
        lines = [f"calls: {line} (call {line}){'+' if several else ''} {end}"]
    else:
        more = f" ({quoted(chr(10) + tags.begin)} one)*" if several else ""
        lines = [f"calls: one{more}", f"one: {line} call {line} {end}"]
    return "\n".join([*lines, *_calls(tags, tools)])


def _calls(tags: Tags, tools: Sequence[Signature]) -> list[str]:
    """The rule `call`, from `tags.call` to `tags.call_end`."""
    lines = [any_call(tools)]
    for place, tool in enumerate(tools):
        check_named(tool)
        if wrong := next((name for name in [tool.name, *properties_of(tool)] if set(name) & set('<>"\n')), None):
            raise Unsupported(f"The tool '{tool.name}': this model cannot write the name {wrong[:40]!r}.")
        lines.append(f"call_{place}: {quoted(tags.call + tool.name + tags.name)} part_{place}_0")
        for number, name in enumerate(properties_of(tool)):
            head = quoted(tags.key + name + "\n".join(tags.value) + tags.line)
            needed = name in tool.parameters.get("required", ())
            skipped = "" if needed else f" | part_{place}_{number + 1}"
            value = f"value_{place}_{number}"
            lines.append(f'part_{place}_{number}: {head} {value} "\\n" part_{place}_{number + 1}{skipped}')
            lines += writing(tool, name, tags.line + tags.value_end, value)
        lines.append(f"part_{place}_{len(properties_of(tool))}: {quoted(tags.call_end)}")
    return lines


def _format(name: str, tags: Tags) -> Format:
    marks = (tags.begin, tags.call, tags.key, *tags.value, tags.value_end, tags.call_end, tags.end)
    return Format(name, tags.begin, "", tuple(filter(None, marks)), partial(_rules, tags), partial(_read, tags))


QWEN_XML = _format(
    "qwen_xml",
    Tags(
        "<tool_call>", "<function=", ">\n", "<parameter=", (">",), "</parameter>", "</function>", "</tool_call>",
        line="\n",
    ),
)  # fmt: skip
GLM = _format(
    "glm",
    Tags("<tool_call>", "", "\n", "<arg_key>", ("</arg_key>", "<arg_value>"), "</arg_value>", "</tool_call>", ""),
)
MINIMAX = _format(
    "minimax",
    Tags(
        "<minimax:tool_call>", '<invoke name="', '">\n', '<parameter name="', ('">',), "</parameter>", "</invoke>",
        "</minimax:tool_call>", many=True,
    ),
)  # fmt: skip

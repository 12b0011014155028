"""Formats whose arguments are JSON, passed on as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from windlass.serve.engine.constraints.keywords import Schema
from windlass.serve.engine.constraints.lark import TAUGHT, in_lark, quoted
from windlass.serve.engine.dialect.calls import (
    Format,
    Incoming,
    Malformed,
    Opened,
    Reading,
    Signature,
    Whole,
    silently,
    value_of,
)

Tools = Mapping[str, Schema]


# an object that holds a name and arguments ---------------------------------------------------------------------------


def _call(source: Incoming, *keys: str) -> Reading[None]:
    """A call as an object: its name, and its arguments under one of `keys`, in any order."""
    yield from source.which("{")
    name, held, given = None, "", False
    known: set[str] = set()
    while True:
        key = value_of((yield from silently(source.json())))
        if not isinstance(key, str) or key in known or (key in keys and given):
            raise Malformed("a call is an object, each key of which is a text and stands there once")
        known.add(key)
        yield from source.which(":")
        if key in keys:
            given = True
            if name is not None:
                yield Opened(name)
                yield from source.json(object=True)
            else:
                held = yield from silently(source.json(object=True))
        else:
            value = value_of((yield from silently(source.json())))
            if key == "name":
                if not isinstance(value, str):
                    raise Malformed("the name of a call is a text")
                name = value
        if (yield from source.which(",", "}")) == "}":
            break
    if name is None or not given:
        raise Malformed(f"a call has a name, and an object under {keys[0]!r}")
    if held:
        yield Opened(name)
        yield held


def _read_hermes(source: Incoming, tools: Tools) -> Reading[None]:
    yield from _call(source, "arguments", "parameters")
    yield from source.end("</tool_call>")
    yield Whole()


def _read_llama(source: Incoming, tools: Tools) -> Reading[None]:
    if (yield from source.which("<|python_tag|>", "{")) == "{":
        source.place -= 1
    yield from _call(source, "parameters", "arguments")
    yield from source.last()
    yield Whole()


def _read_mistral(source: Incoming, tools: Tools) -> Reading[None]:
    yield from source.which("[")
    while True:
        yield from _call(source, "arguments")
        if (yield from source.which(",", "]")) == "]":
            break
    yield from source.last()
    yield Whole()


def any_call(tools: Sequence[Signature]) -> str:
    """The rule `call`: one of the rules `call_0`, `call_1`, ..."""
    return "call: " + " | ".join(f"call_{place}" for place in range(len(tools)))


def _objects(tools: Sequence[Signature], key: str) -> str:
    """`call`: a JSON object of a tool's name and its arguments, spaced as models are taught to write it."""
    lines = [any_call(tools)]
    for place, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool.name)}, "{key}": '
        lines.append(f"call_{place}: {quoted(head)} {in_lark(tool.parameters, TAUGHT)} {quoted('}')}")
    return "\n".join(lines)


def _hermes(tools: Sequence[Signature], several: bool) -> str:
    more = r' ("\n<tool_call>" one)*' if several else ""
    return f'calls: one{more}\none: "\\n" call "\\n</tool_call>"\n{_objects(tools, "arguments")}'


def _llama(tools: Sequence[Signature], several: bool) -> str:
    return f'calls: "<|python_tag|>"? call\n{_objects(tools, "parameters")}'


def _mistral(tools: Sequence[Signature], several: bool) -> str:
    more = ' (", " call)*' if several else ""
    return f'calls: " "? "[" call{more} "]"\n{_objects(tools, "arguments")}'


# a name, and then the arguments --------------------------------------------------------------------------------------


def _read_mistral_args(source: Incoming, tools: Tools) -> Reading[None]:
    """Calls one after the other; the marks may stand in an argument's text, so each is read as far as its JSON goes."""
    while True:
        name = (yield from silently(source.until("[ARGS]"))).strip()
        if not name:
            raise Malformed("a call has a name and [ARGS]")
        yield Opened(name)
        yield from source.json(object=True)
        yield from source.end("[TOOL_CALLS]")
        if source.closed and not source.rest:
            break
    yield Whole()


KIMI_CALLS, KIMI_CALLS_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
KIMI_CALL, KIMI_ARGUMENTS, KIMI_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


def _read_kimi(source: Incoming, tools: Tools) -> Reading[None]:
    """The id that the model writes is the name and a number; it must come back with the result, so it is kept."""
    yield from source.which(KIMI_CALL)
    while True:
        id = (yield from silently(source.until(KIMI_ARGUMENTS))).strip()
        yield Opened(id.rpartition(":")[0].removeprefix("functions."), id)
        yield from source.json(object=True)
        yield from source.which(KIMI_END)
        yield Whole()
        if (yield from source.ended(KIMI_CALL, KIMI_CALLS_END)):
            return


DEEPSEEK_CALLS, DEEPSEEK_CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
DEEPSEEK_CALL, DEEPSEEK_SEP, DEEPSEEK_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def _read_deepseek(source: Incoming, tools: Tools) -> Reading[None]:
    yield from source.which(DEEPSEEK_CALL)
    while True:
        name = (yield from silently(source.until(DEEPSEEK_SEP))).strip()
        yield Opened(name)
        yield from source.json(object=True)
        yield from source.which(DEEPSEEK_END)
        yield Whole()
        if (yield from source.ended(DEEPSEEK_CALL, DEEPSEEK_CALLS_END)):
            return


def _read_deepseek_fenced(source: Incoming, tools: Tools) -> Reading[None]:
    yield from source.which(DEEPSEEK_CALL)
    while True:
        yield from source.which("function")
        yield from source.which(DEEPSEEK_SEP)
        name = (yield from silently(source.until("\n"))).strip()
        yield Opened(name)
        yield from source.which("```json")
        yield from source.json(object=True)
        yield from source.which("```")
        yield from source.which(DEEPSEEK_END)
        yield Whole()
        if (yield from source.ended(DEEPSEEK_CALL, DEEPSEEK_CALLS_END)):
            return


def _headed(tools: Sequence[Signature], head: str, tail: str) -> str:
    """`call`: a head that holds the tool's name (`%s`), the arguments, a tail; each a piece of Lark."""
    lines = [any_call(tools)]
    for place, tool in enumerate(tools):
        said = head.replace("%s", json.dumps(tool.name, ensure_ascii=False)[1:-1])
        lines.append(f"call_{place}: {said} {in_lark(tool.parameters, TAUGHT)} {tail}")
    return "\n".join(lines)


def _mistral_args(tools: Sequence[Signature], several: bool) -> str:
    more = ' ("[TOOL_CALLS]" call)*' if several else ""
    head = '"%s[ARGS]"'
    return f"calls: call{more}\n{_headed(tools, head, '')}"


def _kimi(tools: Sequence[Signature], several: bool) -> str:
    head = f'"{KIMI_CALL}functions.%s:" /[0-9]{{1,4}}/ "{KIMI_ARGUMENTS}"'
    return f'calls: call{"+" if several else ""} "{KIMI_CALLS_END}"\n' + _headed(tools, head, f'"{KIMI_END}"')


def _deepseek(tools: Sequence[Signature], several: bool) -> str:
    head = f'"{DEEPSEEK_CALL}%s{DEEPSEEK_SEP}"'
    return f'calls: call{"+" if several else ""} "{DEEPSEEK_CALLS_END}"\n' + _headed(tools, head, f'"{DEEPSEEK_END}"')


def _deepseek_fenced(tools: Sequence[Signature], several: bool) -> str:
    head, tail = f'"{DEEPSEEK_CALL}function{DEEPSEEK_SEP}%s\\n```json\\n"', f'"\\n```{DEEPSEEK_END}"'
    more = ' ("\\n" call)*' if several else ""
    return f'calls: call{more} "{DEEPSEEK_CALLS_END}"\n{_headed(tools, head, tail)}'


HERMES = Format("hermes", "<tool_call>", "", ("<tool_call>", "</tool_call>"), _hermes, _read_hermes)
LLAMA = Format("llama", "", r"\{|<\|python_tag\|>", ("<|python_tag|>",), _llama, _read_llama)
MISTRAL = Format("mistral", "[TOOL_CALLS]", "", ("[TOOL_CALLS]",), _mistral, _read_mistral)
MISTRAL_ARGS = Format("mistral_args", "[TOOL_CALLS]", "", ("[TOOL_CALLS]", "[ARGS]"), _mistral_args, _read_mistral_args)
_KIMI = (KIMI_CALLS, KIMI_CALLS_END, KIMI_CALL, KIMI_ARGUMENTS, KIMI_END)
KIMI = Format("kimi", KIMI_CALLS, "", _KIMI, _kimi, _read_kimi, ends_reasoning=True)
_DEEPSEEK = (DEEPSEEK_CALLS, DEEPSEEK_CALLS_END, DEEPSEEK_CALL, DEEPSEEK_SEP, DEEPSEEK_END)
DEEPSEEK = Format("deepseek", DEEPSEEK_CALLS, "", _DEEPSEEK, _deepseek, _read_deepseek)
DEEPSEEK_FENCED = Format("deepseek_fenced", DEEPSEEK_CALLS, "", _DEEPSEEK, _deepseek_fenced, _read_deepseek_fenced)

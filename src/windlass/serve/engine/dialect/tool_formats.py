"""How models write tool calls: each format with the grammar that writes it and the reader that understands it.

hermes        <tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>   Hermes, Qwen 2.5 and 3
llama         {"name": "f", "parameters": {…}}                            Llama 3.1 on, some behind <|python_tag|>
mistral       [TOOL_CALLS][{"name": "f", "arguments": {…}}, …]            Mistral until 2024
mistral_args  [TOOL_CALLS]f[ARGS]{…}                                      Mistral since 2025
pythonic      [f(a=1), g(b="x")]                                          Llama 3.2 and 4, as Python

Which one a model was trained on shows in its chat template. Readers are strict: what is not a call with a JSON object
of arguments raises `Malformed`, so that no half of a call is ever passed on.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.core.errors import Unsupported
from windlass.serve.engine.constraints.json_schema import Schema
from windlass.serve.engine.constraints.lark import in_lark, quoted

Read = list[tuple[str, str]]
"""Names and arguments of calls; the arguments as JSON text."""


class Malformed(ValueError):
    """A text that should be tool calls, and is not."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A tool as a grammar needs it; `parameters` as `json_schema.prepare` returns them."""

    name: str
    parameters: Schema


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    begin: str
    """The text that announces calls anywhere in an answer; empty: an answer is calls from its beginning, or none."""
    end: str
    """The text that ends one call; empty: the calls go on to the end of the answer."""
    first: str
    """Where there is no `begin`: the characters an answer made of calls begins with, as a regular expression."""
    marks: tuple[str, ...]
    """Texts that are special tokens in some vocabularies, and must be seen."""
    rules: Callable[[Sequence[Signature], bool], str]
    """Lark rules for `calls` (behind `begin`), one call or several."""
    read: Callable[[str], Read]
    """Calls of a text that `begin` and `end` have been taken from. Raises `Malformed`."""


def find_format(template: str) -> Format | None:
    """The format that a chat template teaches its model; None where none is known."""
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return HERMES
    if "[TOOL_CALLS]" in template:
        return MISTRAL_ARGS if "[ARGS]" in template else MISTRAL
    if re.search(r"func_name1\(|\[func1\(", template):
        return PYTHONIC
    if '"parameters"' in template and re.search(r"python_tag|ipython", template):
        return LLAMA
    return None


# grammars ------------------------------------------------------------------------------------------------------------


def _any_call(tools: Sequence[Signature]) -> str:
    return "call: " + " | ".join(f"call_{place}" for place in range(len(tools)))


def _objects(tools: Sequence[Signature], key: str) -> str:
    """`call`: a JSON object of a tool's name and its arguments, spaced as models are taught to write it."""
    lines = [_any_call(tools)]
    for place, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool.name)}, "{key}": '
        lines.append(f"call_{place}: {quoted(head)} {in_lark(tool.parameters)} {quoted('}')}")
    return "\n".join(lines)


def _hermes(tools: Sequence[Signature], several: bool) -> str:
    more = r' ("\n<tool_call>" one)*' if several else ""
    return f'calls: one{more}\none: "\\n" call "\\n</tool_call>"\n{_objects(tools, "arguments")}'


def _llama(tools: Sequence[Signature], several: bool) -> str:
    return f'calls: "<|python_tag|>"? call\n{_objects(tools, "parameters")}'


def _mistral(tools: Sequence[Signature], several: bool) -> str:
    more = ' (", " call)*' if several else ""
    return f'calls: " "? "[" call{more} "]"\n{_objects(tools, "arguments")}'


def _mistral_args(tools: Sequence[Signature], several: bool) -> str:
    more = ' ("[TOOL_CALLS]" call)*' if several else ""
    lines = [f"calls: call{more}", _any_call(tools)]
    for place, tool in enumerate(tools):
        lines.append(f"call_{place}: {quoted(f'{tool.name}[ARGS]')} {in_lark(tool.parameters)}")
    return "\n".join(lines)


def _pythonic(tools: Sequence[Signature], several: bool) -> str:
    more = ' (", " call)*' if several else ""
    lines = [f'calls: "[" call{more} "]"', _any_call(tools)]
    for place, tool in enumerate(tools):
        _refuse_unnamed(tool)
        lines.append(f'call_{place}: {quoted(f"{tool.name}(")} first_{place}_0 ")"')
        lines += _keywords(tool.parameters, str(place))
    return "\n".join(lines)


def _keywords(schema: Schema, tool: str) -> list[str]:
    """Arguments `name=value` in the schema's order, optional ones left out at will."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    shared = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    lines = []
    for place, (name, part) in enumerate(properties.items()):
        value = in_lark((part if isinstance(part, dict) else {}) | shared)
        after = f"rest_{tool}_{place + 1}"
        said = f"{quoted(f'{name}=')} {value} {after}"
        needed = name in schema.get("required", ())
        lines.append(f"first_{tool}_{place}: {said}" + ("" if needed else f" | first_{tool}_{place + 1}"))
        lines.append(f'rest_{tool}_{place}: ", " {said}' + ("" if needed else f" | {after}"))
    lines.append(f'first_{tool}_{len(properties)}: ""')
    lines.append(f'rest_{tool}_{len(properties)}: ""')
    return lines


def _refuse_unnamed(tool: Signature) -> None:
    known = {"type", "properties", "required", "additionalProperties", "$defs"}
    parts = tool.parameters.get("properties", {})
    missing = set(tool.parameters.get("required", ())) - set(parts)
    if set(tool.parameters) - known or missing or not all(map(str.isidentifier, [tool.name, *parts])):
        raise Unsupported(
            f"The tool '{tool.name}' cannot be written as a Python call, as this model writes them.",
            "Use identifiers as names, and an object of named properties as parameters.",
        )


# readers -------------------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _value(text: str, place: int) -> tuple[Any, int]:
    """The JSON value that begins at `place`, and where what follows it begins, white space skipped."""
    try:
        value, end = _DECODER.raw_decode(text, place)
        json.dumps(value, ensure_ascii=False).encode()  # a half of a character may be escaped, but not passed on
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    return value, _skip(text, end)


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _expect(text: str, place: int, marks: str) -> int:
    """Behind one of `marks` and the white space after it."""
    if text[place : place + 1] not in tuple(marks):
        raise Malformed(f"expected {' or '.join(marks)} at character {place}")
    return _skip(text, place + 1)


def _call(text: str, place: int, keys: Sequence[str]) -> tuple[tuple[str, str], int]:
    """A call from the object at `place`: its name, and the arguments under one of `keys` as they are written."""
    written: dict[str, str] = {}
    name: Any = None
    place = _expect(text, place, "{")
    while True:
        key, place = _value(text, place)
        if not isinstance(key, str) or key in written:
            raise Malformed("a call is an object, each key of which is a text and stands there once")
        start = _expect(text, place, ":")
        value, place = _value(text, start)
        written[key] = text[start:place].rstrip() if isinstance(value, dict) else ""
        name = value if key == "name" else name
        if text[place : place + 1] == "}":
            break
        place = _expect(text, place, ",")
    given = [written[key] for key in keys if key in written]
    if not isinstance(name, str) or len(given) != 1 or not given[0]:
        raise Malformed(f"a call has a name, and an object under {keys[0]!r}")
    return (name, given[0]), _skip(text, place + 1)


def _one_call(text: str, keys: Sequence[str]) -> Read:
    call, end = _call(text, _skip(text, 0), keys)
    if end != len(text):
        raise Malformed("text behind a call")
    return [call]


def _read_hermes(text: str) -> Read:
    return _one_call(text, ("arguments", "parameters"))


def _read_llama(text: str) -> Read:
    return _one_call(text.strip().removeprefix("<|python_tag|>"), ("parameters", "arguments"))


def _read_mistral(text: str) -> Read:
    place = _expect(text, _skip(text, 0), "[")
    calls: Read = []
    while True:
        call, place = _call(text, place, ("arguments",))
        calls.append(call)
        if text[place : place + 1] == "]":
            break
        place = _expect(text, place, ",")
    if _skip(text, place + 1) != len(text):
        raise Malformed("text behind the calls")
    return calls


def _read_mistral_args(text: str) -> Read:
    """Calls one after the other; the marks may stand in an argument's text, so each is read as far as its JSON goes."""
    calls: Read = []
    place = 0
    while True:
        start = text.find("[ARGS]", place)
        name = text[place:start].strip()
        if start < 0 or not name:
            raise Malformed("a call has a name and [ARGS]")
        start = _skip(text, start + len("[ARGS]"))
        value, place = _value(text, start)
        if not isinstance(value, dict):
            raise Malformed("the arguments are not an object")
        calls.append((name, text[start:place].rstrip()))
        if place == len(text):
            return calls
        if not text.startswith("[TOOL_CALLS]", place):
            raise Malformed("text behind a call")
        place += len("[TOOL_CALLS]")


def _dumped(arguments: dict[str, Any]) -> str:
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    return text


_NAMES = {"true": True, "false": False, "null": None}


def _read_pythonic(text: str) -> Read:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Malformed(str(error)) from None
    if not isinstance(tree, ast.List) or not tree.elts:
        raise Malformed("the calls are not a list")
    calls: Read = []
    for call in tree.elts:
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise Malformed("a call has a name and named arguments")
        if not all(keyword.arg for keyword in call.keywords):
            raise Malformed("a call has a name and named arguments")
        calls.append((call.func.id, _dumped({str(k.arg): _literal(k.value) for k in call.keywords})))
    return calls


def _literal(node: ast.expr) -> Any:
    """A literal of Python or of JSON; nothing is computed."""
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if value is not True:
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values) if all(
            isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys
        ):
            return {key.value: _literal(value) for key, value in zip(keys, values) if isinstance(key, ast.Constant)}
    raise Malformed("an argument is not a literal")


HERMES = Format("hermes", "<tool_call>", "</tool_call>", "", ("<tool_call>", "</tool_call>"), _hermes, _read_hermes)
LLAMA = Format("llama", "", "", r"\{|<\|python_tag\|>", ("<|python_tag|>",), _llama, _read_llama)
MISTRAL = Format("mistral", "[TOOL_CALLS]", "", "", ("[TOOL_CALLS]",), _mistral, _read_mistral)
MISTRAL_ARGS = Format(
    "mistral_args", "[TOOL_CALLS]", "", "", ("[TOOL_CALLS]", "[ARGS]"), _mistral_args, _read_mistral_args
)
PYTHONIC = Format("pythonic", "", "", r"\[", (), _pythonic, _read_pythonic)
FORMATS = (HERMES, LLAMA, MISTRAL, MISTRAL_ARGS, PYTHONIC)

"""Calls written as Python: `[f(a=1), g(b="x")]`, as Llama 3.2 and 4 do. They are read as literals and never run."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.core.errors import Unsupported
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
    text_of,
)
from windlass.serve.engine.dialect.json_calls import any_call
from windlass.serve.engine.dialect.named_arguments import check_named, properties_of

_NAMES = {"true": True, "false": False, "null": None}


def _read(source: Incoming, tools: Mapping[str, Schema]) -> Reading[None]:
    """An argument becomes known when its value is complete."""
    yield from source.which("[")
    while True:
        yield from source.skip()
        name = (yield from source.upto("(,)[]{}\"'")).strip()
        yield from source.which("(")
        if not name.isidentifier():
            raise Malformed("a call has a name and named arguments")
        yield Opened(name)
        yield "{"
        yield from _arguments(source)
        yield "}"
        if (yield from source.which(",", "]")) == "]":
            break
    yield from source.last()
    yield Whole()


def _arguments(source: Incoming) -> Reading[None]:
    known: set[str] = set()
    yield from source.skip()
    while (yield from source.letter()) != ")":
        key = (yield from source.upto("=,()[]{}\"'")).strip()
        yield from source.which("=")
        if not key.isidentifier() or key in known:
            raise Malformed("arguments have names, and each stands there once")
        value = text_of(_value((yield from _expression(source))))
        yield f"{', ' if known else ''}{text_of(key)}: {value}"
        known.add(key)
        if (yield from source.which(",", ")")) == ")":
            return
        yield from source.skip()
    source.place += 1


def _expression(source: Incoming) -> Reading[str]:
    """The text up to the comma or bracket that ends an argument."""
    start, depth, quote, escaped = source.place, 0, "", False
    while True:
        letter = yield from source.letter()
        if quote:
            closes = letter == quote and not escaped
            escaped = letter == "\\" and not escaped
            quote = "" if closes else quote
        elif depth == 0 and letter in ",)":
            return source.text[start : source.place]
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        source.place += 1


def _value(text: str) -> Any:
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Malformed(str(error)) from None


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


def _rules(tools: Sequence[Signature], several: bool) -> str:
    more = ' (", " call)*' if several else ""
    lines = [f'calls: "[" call{more} "]"', any_call(tools)]
    for place, tool in enumerate(tools):
        check_named(tool)
        if not all(map(str.isidentifier, [tool.name, *properties_of(tool)])):
            raise Unsupported(
                f"The tool '{tool.name}' cannot be written as a Python call, as this model writes them.",
                "Use identifiers as names.",
            )
        lines.append(f'call_{place}: {quoted(f"{tool.name}(")} first_{place}_0 ")"')
        lines += _keywords(tool, str(place))
    return "\n".join(lines)


def _keywords(tool: Signature, number: str) -> list[str]:
    """Arguments `name=value` in the schema's order, optional ones left out at will."""
    properties = properties_of(tool)
    shared = {"$defs": tool.parameters["$defs"]} if "$defs" in tool.parameters else {}
    lines = []
    for place, (name, part) in enumerate(properties.items()):
        value = in_lark((part if isinstance(part, dict) else {}) | shared, TAUGHT)
        after = f"rest_{number}_{place + 1}"
        said = f"{quoted(f'{name}=')} {value} {after}"
        needed = name in tool.parameters.get("required", ())
        lines.append(f"first_{number}_{place}: {said}" + ("" if needed else f" | first_{number}_{place + 1}"))
        lines.append(f'rest_{number}_{place}: ", " {said}' + ("" if needed else f" | {after}"))
    lines.append(f'first_{number}_{len(properties)}: ""')
    lines.append(f'rest_{number}_{len(properties)}: ""')
    return lines


PYTHONIC = Format("pythonic", "", r"\[", (), _rules, _read)

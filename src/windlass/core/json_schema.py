"""Whether a value is valid under a JSON Schema: the keywords that say something about data, checked strictly.

A keyword that is not known here is refused beforehand, never passed over: a measure that does not check what it was
told to check says nothing, and a reward of that kind is learned from all the same.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sized
from typing import Any

from windlass.core.errors import InputError

_NOTES = {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"}
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1  # 1.0 is one
    ),
}
_NUMBERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}
_LENGTHS: Mapping[str, tuple[type[Sized], Callable[[int, Any], bool]]] = {
    "minLength": (str, operator.ge),
    "maxLength": (str, operator.le),
    "minItems": (list, operator.ge),
    "maxItems": (list, operator.le),
    "minProperties": (dict, operator.ge),
    "maxProperties": (dict, operator.le),
}
_SEVERAL: Mapping[str, Callable[[list[bool]], bool]] = {
    "allOf": all,
    "anyOf": any,
    "oneOf": lambda found: sum(found) == 1,
}
_KNOWN = {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "not", *_NUMBERS, *_LENGTHS,
    *_SEVERAL, *_NOTES,
}  # fmt: skip


def check_schema(schema: Any, where: str) -> None:
    """Raises `InputError` naming the place of what is no schema, or of a keyword that is not checked here."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise InputError(f"{where} is {json.dumps(schema)[:80]}, but must be a JSON Schema.", "Give an object.")
    for key, value in schema.items():
        if key not in _KNOWN:
            raise InputError(
                f"{where} has the keyword '{key}', which is not checked here.",
                f"Known are {', '.join(sorted(_KNOWN))}.",
            )
        inside = f"{where}.{key}"
        if key == "type":
            types = value if isinstance(value, list) else [value]
            wrong = [one for one in types if one not in _TYPES] if types else [value]
            if wrong:
                raise InputError(f"{inside} is {wrong[0]!r}, which is no type of JSON.")
        elif key in ("not", "items", "additionalProperties"):
            check_schema(value, inside)
        elif key == "properties":
            for name, one in _table(value, inside).items():
                check_schema(one, f"{inside}.{name}")
        elif key in _SEVERAL:
            for place, one in enumerate(_list(value, inside)):
                check_schema(one, f"{inside}[{place}]")
        elif key in ("enum", "required"):
            _list(value, inside)
        elif (key in _NUMBERS or key in _LENGTHS) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{inside} is {json.dumps(value)[:80]}, but must be a number.")


def valid(value: Any, schema: Any) -> bool:
    """Whether a value, as `json` reads it, is valid under a schema that `check_schema` accepts."""
    if isinstance(schema, bool):
        return schema
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_TYPES[one](value) for one in types):
            return False
    if "enum" in schema and not any(same(value, one) for one in schema["enum"]):
        return False
    if "const" in schema and not same(value, schema["const"]):
        return False
    if "not" in schema and valid(value, schema["not"]):
        return False
    for key, decides in _SEVERAL.items():
        if key in schema and not decides([valid(value, one) for one in schema[key]]):
            return False
    if _TYPES["number"](value) and not all(
        holds(value, schema[key]) for key, holds in _NUMBERS.items() if key in schema
    ):
        return False
    for key, (kind, fits) in _LENGTHS.items():
        if key in schema and isinstance(value, kind) and not fits(len(value), schema[key]):
            return False
    if isinstance(value, list) and "items" in schema:
        return all(valid(one, schema["items"]) for one in value)
    return _valid_object(value, schema) if isinstance(value, dict) else True


def _valid_object(value: dict[str, Any], schema: Mapping[str, Any]) -> bool:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(name in value for name in schema.get("required", ())) and all(
        valid(one, properties.get(name, others)) for name, one in value.items()
    )


def same(one: Any, other: Any) -> bool:
    """JSON's equality: 1 is 1.0, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is no object.")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} is no list with something in it.")
    return value

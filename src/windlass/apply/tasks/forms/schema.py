"""A Python type as a JSON schema, and JSON as a value of that type: pydantic's work, imported when first needed.

Pydantic models, dataclasses, TypedDicts, `Literal`, enums, unions, lists and plain types are all understood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from windlass.core.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")
_WHOLE = "the whole: "
_MOST = 20
"""So many faults of one answer are told."""

MARK = "windlass.mark"
"""Where an annotation leaves itself in the schema of its type (`metadata`), to be found in `Shape.marks`."""
AS_WRITTEN = {"as_written": True}
"""The context of serializers that are to write a value as a model has to, not as it is kept."""


class Unfit(Exception):
    """A value that is not of the type. The lines say what is wrong, and where."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)

    @property
    def of_one(self) -> str:
        """What is wrong with a value that is named already."""
        return "; ".join(problem.removeprefix(_WHOLE) for problem in self.problems)


class Shape(Generic[T]):
    """A type with its schema. Raises `InputError` for a type that JSON cannot hold."""

    def __init__(self, kind: Any, *, where: str = "the answer") -> None:
        from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
        from pydantic_core import SchemaError

        self.kind = kind
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(kind)
            self.schema: Mapping[str, Any] = self._adapter.json_schema()
            self._has_sets = '"uniqueItems": true' in json.dumps(self.schema)
        except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError, SchemaError) as error:
            raise InputError(
                f"The type of {where}, {kind!r}, has no JSON schema: {str(error).splitlines()[0].rstrip('.')}.",
                "Use a pydantic model, a dataclass, a TypedDict, Literal, an enum, or plain types.",
            ) from error

    def value(self, plain: Any, context: Mapping[str, Any] | None = None) -> T:
        """The value of plain JSON. Raises `Unfit`. `context` reaches the type's validators."""
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError, to_json

        try:
            # JSON's rules: a date is a text there, and a tuple a list.
            return self._adapter.validate_json(to_json(plain), context=dict(context or {}))
        except ValidationError as error:
            raise Unfit(_lines(error)) from error
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise Unfit(["the whole: holds half a character (a \\ud800 to \\udfff that stands alone)"]) from error

    def given(self, value: Any) -> Any:
        """What somebody gave in Python, as plain JSON: a tuple is as good as a list there, and a dictionary as good as
        an object of its fields. Raises `Unfit` for what is not of the type."""
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError

        try:
            self._adapter.dump_python(value, mode="json", by_alias=True, warnings="error")
        except PydanticSerializationError:
            try:
                value = self._adapter.validate_python(value)
                self._adapter.dump_python(value, mode="json")
            except ValidationError as error:
                raise Unfit(_lines(error)) from error
            except PydanticSerializationError as error:
                raise Unfit([f"the whole: {str(error).removeprefix('Error serializing to JSON: ')}"]) from error
        return self.plain(value)

    def plain(self, value: T, *, as_written: bool = False) -> Any:
        """The value as plain JSON, with the names that the schema knows; `as_written`: as a model has to write it."""
        plain = self._adapter.dump_python(value, mode="json", by_alias=True, context=AS_WRITTEN if as_written else None)
        return _ordered(plain, self.schema, self.schema.get("$defs", {})) if self._has_sets else plain

    @cached_property
    def marks(self) -> Sequence[Any]:
        """The annotations of the type that left themselves in it."""
        return list(_marks(self._adapter.core_schema))


def _marks(schema: Any) -> Iterator[Any]:
    if isinstance(schema, Mapping):
        if isinstance(metadata := schema.get("metadata"), Mapping) and MARK in metadata:
            yield metadata[MARK]
        schema = schema.values()
    elif not isinstance(schema, list | tuple):
        return
    for part in schema:
        yield from _marks(part)


def _ordered(plain: Any, schema: Any, kinds: Mapping[str, Any]) -> Any:
    """`plain` with the arrays sorted that its schema says are sets: Python's own order differs from process to process,
    and a prompt that holds such a value would be new to the provider's cache each time."""
    if not isinstance(schema, Mapping) or not isinstance(plain, list | dict):
        return plain
    if "$ref" in schema:
        return _ordered(plain, kinds.get(schema["$ref"].rpartition("/")[2]), kinds)
    arrays = [option for option in schema.get("anyOf", ()) if option.get("type") == "array"]
    for option in schema.get("anyOf", ()):
        if option not in arrays or len(arrays) == 1:  # of a list or a set, nobody knows which one it was
            plain = _ordered(plain, option, kinds)
    if isinstance(plain, dict):
        named, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {key: _ordered(item, named.get(key, others), kinds) for key, item in plain.items()}
    items = [_ordered(item, schema.get("items"), kinds) for item in plain]
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if schema.get("uniqueItems") else items


def _lines(error: ValidationError) -> list[str]:
    """What is wrong, as far as one can mend it at once: a list of a thousand wrong items says so a thousand times, and
    every line is paid for when the model is asked again."""
    lines = [_line(detail) for detail in error.errors(include_url=False, include_context=False)]
    return lines if len(lines) <= _MOST else [*lines[:_MOST], f"and {len(lines) - _MOST} more like these"]


def _line(detail: Mapping[str, Any]) -> str:
    """`items.0.price: Input should be a valid number (got "abc")`"""
    place = ".".join(map(str, detail["loc"])) or "the whole"
    got = detail.get("input")
    shown = "" if detail["type"] == "missing" else f" (got {str(got)[:80]!r})"
    return f"{place}: {detail['msg']}{shown}"

"""A JSON schema as a request brings it, checked keyword by keyword and rewritten for the grammar engine.

The rule is: what a schema says is either enforced or refused by name. The engine ignores keywords that it does not know
(a typing error such as `minLenght` among them), so this file knows them all. It also repairs what the engine would let
through or refuse without need:

- `oneOf` is enforced as `anyOf` where its branches are proven to exclude each other (`exclusion`): pydantic's tagged
  unions.
- whole numbers beyond 2**53 would be rounded, so they are refused; `minProperties` could be met by writing one key
  twice, so it is refused where keys are free.
- annotations are taken out, among them `x-guidance`, with which a schema could switch the checks off.

Keywords: JSON Schema, draft 2020-12, with `items` as a list and `definitions` of the drafts before.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from windlass.core.errors import InputError, Unsupported
from windlass.serve.engine.constraints.exclusion import Exclusion
from windlass.serve.engine.constraints.keyword_values import bound, count, literal, object_, spelt, text
from windlass.serve.engine.constraints.keywords import ANNOTATIONS, COUNTS, NUMBERS, REFUSED, TYPES, Schema
from windlass.serve.engine.constraints.patterns import FORMATS, ecma_pattern

MAX_BYTES = 256 << 10
MAX_PARTS = 5000
"""Sub-schemas of one schema, as far as they are reached."""
MAX_DEPTH = 64


def prepare(schema: Any, *, where: str = "schema") -> Schema:
    """The schema that the grammar engine gets. `where` is what errors call it.

    Raises `InputError` for a schema that is wrong or too large, `Unsupported` for a keyword that cannot be enforced;
    both say where in the schema.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise InputError(f"'{where}' must be a JSON schema: an object.")
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"'{where}' is not JSON ({error}).") from None
    if size > MAX_BYTES:
        raise InputError(f"'{where}' has {size} bytes, but at most {MAX_BYTES} are read.", "Make it smaller.")
    return _Walk(schema, where).result()


class _Walk:
    def __init__(self, root: Mapping[str, Any], where: str) -> None:
        self._root = root
        self._where = where
        self._parts = 0
        self._exclusion = Exclusion(lambda pointer: self._resolve(pointer, "$ref"))
        self._names: dict[str, str] = {}
        """Pointer of a definition -> its name in the result."""
        self._waiting: list[str] = []
        """Pointers whose definition is not yet read: a list and no recursion, as chains of them may be long."""

    def result(self) -> Schema:
        root = self._part(self._root, self._where, 0)
        assert isinstance(root, dict), "only true and false are not objects"
        found: Schema = {}
        while self._waiting:
            pointer = self._waiting.pop()
            at = f"{self._where}.{pointer}"
            found[self._names[pointer]] = self._part(self._resolve(pointer, at), at, 0)
        return root | {"$defs": found} if found else root

    # one schema ------------------------------------------------------------------------------------------------------

    def _part(self, schema: Any, at: str, depth: int) -> Schema | bool:
        if isinstance(schema, bool):
            return {} if schema else False
        if not isinstance(schema, Mapping):
            raise InputError(f"'{at}' must be a JSON schema: an object, true or false.")
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InputError(f"'{self._where}' has more than {MAX_PARTS} parts.", "Make it smaller.")
        if depth > MAX_DEPTH:
            raise InputError(f"'{at[:200]}' is nested deeper than {MAX_DEPTH} levels.", "Use $ref and $defs.")
        out: Schema = {}
        also: list[Schema | bool] = []
        for name, value in _of_today(schema, at).items():
            if self._is_annotation(name, schema):
                continue
            read = self._keyword(name, value, f"{at}.{name}", depth + 1)
            also += read.pop("allOf", ())  # several keywords may become parts that must hold besides
            out |= read
        self._check_free_keys(schema, at)
        return out | {"allOf": also} if also else out

    def _is_annotation(self, name: str, schema: Mapping[str, Any]) -> bool:
        if name == "discriminator":  # OpenAPI's hint for readers; the branches say the same
            return "oneOf" in schema or "anyOf" in schema
        return name in ANNOTATIONS or name.startswith("x-") or (name == "$id" and schema is self._root)

    def _keyword(self, name: str, value: Any, at: str, depth: int) -> Schema:
        """What one keyword becomes."""
        if name in COUNTS:
            return {name: count(value, at)}
        if name in NUMBERS:
            return bound(name, value, at)
        if name in _READERS:
            return _READERS[name](self, value, at, depth)
        if name in REFUSED:
            raise Unsupported(f"'{at}': the keyword '{name}' cannot be enforced.", REFUSED[name])
        near = difflib.get_close_matches(name, SUPPORTED, n=1)
        raise Unsupported(
            f"'{at}': '{name[:80]}' is not a keyword that can be enforced.",
            f"Did you mean '{near[0]}'?" if near else "Leave it out.",
        )

    def _check_free_keys(self, schema: Mapping[str, Any], at: str) -> None:
        least = schema.get("minProperties", 0)
        free = schema.get("additionalProperties", True) is not False or schema.get("patternProperties")
        if free and least > max(1, len(set(schema.get("required", ())))):
            raise Unsupported(
                f"'{at}.minProperties': {least} different keys cannot be enforced where keys are free.",
                "Name the properties, and list in 'required' those that must be there.",
            )

    # keywords: (value, where, depth) -> what the grammar engine gets -------------------------------------------------

    def _type(self, value: Any, at: str, depth: int) -> Schema:
        named = value if isinstance(value, list) else [value]
        if not named or not all(isinstance(kind, str) and kind in TYPES for kind in named):
            raise InputError(f"'{at}' must be one or more of: {', '.join(TYPES)}.")
        return {"type": value}

    def _const(self, value: Any, at: str, depth: int) -> Schema:
        literal(value, at)
        return {"const": value}

    def _enum(self, value: Any, at: str, depth: int) -> Schema:
        if not isinstance(value, list) or not value:
            raise InputError(f"'{at}' must be a list of values.")
        literal(value, at)
        return {"enum": value}

    def _pattern(self, value: Any, at: str, depth: int) -> Schema:
        return {"pattern": ecma_pattern(text(value, at))}

    def _format(self, value: Any, at: str, depth: int) -> Schema:
        if text(value, at) not in FORMATS:
            raise Unsupported(
                f"'{at}': the format '{value[:80]}' cannot be enforced.", f"Known are: {', '.join(FORMATS)}."
            )
        rule = FORMATS[value]
        return {"format": value} if rule is None else {"allOf": [{"pattern": rule}]}

    def _items(self, value: Any, at: str, depth: int) -> Schema:
        return {"items": self._part(value, at, depth)}

    def _prefix_items(self, value: Any, at: str, depth: int) -> Schema:
        return {"prefixItems": self._branches(value, at, depth)}

    def _properties(self, value: Any, at: str, depth: int) -> Schema:
        for name in object_(value, at):
            spelt(name, at)
        return {"properties": {name: self._part(part, f"{at}.{name}", depth) for name, part in value.items()}}

    def _pattern_properties(self, value: Any, at: str, depth: int) -> Schema:
        parts = {
            ecma_pattern(name): self._part(part, f"{at}.{name}", depth) for name, part in object_(value, at).items()
        }
        return {"patternProperties": parts}

    def _additional(self, value: Any, at: str, depth: int) -> Schema:
        return {"additionalProperties": self._part(value, at, depth)}

    def _required(self, value: Any, at: str, depth: int) -> Schema:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise InputError(f"'{at}' must be a list of names.")
        for name in value:
            spelt(name, at)
        return {"required": value}

    def _all_of(self, value: Any, at: str, depth: int) -> Schema:
        return {"allOf": self._branches(value, at, depth)}

    def _any_of(self, value: Any, at: str, depth: int) -> Schema:
        return {"anyOf": self._branches(value, at, depth)}

    def _one_of(self, value: Any, at: str, depth: int) -> Schema:
        branches = self._branches(value, at, depth)
        for place, branch in enumerate(value):
            for other, rival in enumerate(value[:place]):
                if not self._exclusion.holds(branch, rival):
                    raise Unsupported(
                        f"'{at}': branches {other} and {place} may both hold; that only one does cannot be enforced.",
                        "Use anyOf, or give each branch a required property with a const of its own.",
                    )
        return {"allOf": [{"anyOf": branches}]}

    def _branches(self, value: Any, at: str, depth: int) -> list[Schema | bool]:
        if not isinstance(value, list) or not value:
            raise InputError(f"'{at}' must be a list of schemas.")
        return [self._part(part, f"{at}[{place}]", depth) for place, part in enumerate(value)]

    # references ------------------------------------------------------------------------------------------------------

    def _ref(self, value: Any, at: str, depth: int) -> Schema:
        self._resolve(text(value, at), at)
        if value not in self._names:
            self._names[value] = f"d{len(self._names)}"
            self._waiting.append(value)
        return {"$ref": f"#/$defs/{self._names[value]}"}

    def _resolve(self, pointer: str, at: str) -> Any:
        if pointer != "#" and not pointer.startswith("#/"):
            raise Unsupported(f"'{at}': {pointer[:80]!r} lies outside of the schema.", "Refer by #/$defs/NAME.")
        place: Any = self._root
        for step in pointer[2:].split("/") if len(pointer) > 1 else ():
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
                place = place[int(key)]
            elif isinstance(place, Mapping) and key in place:
                place = place[key]
            else:
                raise InputError(f"'{at}': there is no {pointer[:80]!r} in the schema.")
        return place


_READERS: dict[str, Callable[[_Walk, Any, str, int], Schema]] = {
    "type": _Walk._type,
    "const": _Walk._const,
    "enum": _Walk._enum,
    "pattern": _Walk._pattern,
    "format": _Walk._format,
    "items": _Walk._items,
    "prefixItems": _Walk._prefix_items,
    "properties": _Walk._properties,
    "patternProperties": _Walk._pattern_properties,
    "additionalProperties": _Walk._additional,
    "required": _Walk._required,
    "allOf": _Walk._all_of,
    "anyOf": _Walk._any_of,
    "oneOf": _Walk._one_of,
    "$ref": _Walk._ref,
}
SUPPORTED = (*_READERS, *sorted(COUNTS), *sorted(NUMBERS))


def _of_today(schema: Mapping[str, Any], at: str) -> Mapping[str, Any]:
    """A schema with `items` as a list, as drafts before 2020-12 write it, in today's words."""
    if not isinstance(schema.get("items"), list):
        return schema
    if "prefixItems" in schema:
        raise InputError(f"'{at}.items' is a list beside prefixItems.", "Keep one of them.")
    newer = {name: value for name, value in schema.items() if name not in ("items", "additionalItems")}
    rest = {"items": schema["additionalItems"]} if "additionalItems" in schema else {}
    return newer | {"prefixItems": schema["items"]} | rest

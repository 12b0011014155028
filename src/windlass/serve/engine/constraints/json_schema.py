"""A JSON schema as a request brings it, checked keyword by keyword and rewritten for the grammar engine.

The rule is: what a schema says is either enforced or refused by name. The engine ignores keywords that it does not know
(a typing error such as `minLenght` among them), so this file knows them all. It also repairs what the engine would let
through or refuse without need:

- `oneOf` is enforced as `anyOf` where its branches exclude each other, which is proven here (types, constant tags,
  required properties), through references too: pydantic's tagged unions.
- whole numbers beyond 2**53 would be rounded, so they are refused; `minProperties` could be met by writing one key
  twice, so it is refused where keys are free.
- annotations are taken out, among them `x-guidance`, with which a schema could switch the checks off.

Keywords: JSON Schema, draft 2020-12, with `items` as a list and `definitions` of the drafts before.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from windlass.core.errors import InputError, Unsupported
from windlass.serve.engine.constraints.patterns import FORMATS, ecma_pattern

MAX_BYTES = 256 << 10
MAX_PARTS = 5000
"""Sub-schemas of one schema, as far as they are reached."""
MAX_DEPTH = 64
MAX_PROOFS = 20_000
"""Steps spent on proving that the branches of oneOf exclude each other."""
EXACT = 1 << 53

_TOLD = "title description default examples example deprecated readOnly writeOnly"
_FILED = "$schema $comment $defs definitions contentMediaType contentEncoding contentSchema"
ANNOTATIONS = frozenset(f"{_TOLD} {_FILED}".split())
"""What says nothing about which values are valid."""
COUNTS = frozenset(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"])
NUMBERS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
REFUSED = {
    "not": "Say what is allowed instead.",
    "if": "Use anyOf with one branch for each case.",
    "then": "Use anyOf with one branch for each case.",
    "else": "Use anyOf with one branch for each case.",
    "dependentRequired": "Use anyOf with one branch for each case.",
    "dependentSchemas": "Use anyOf with one branch for each case.",
    "dependencies": "Use anyOf with one branch for each case.",
    "uniqueItems": "Leave it out, and check the answer for items that appear twice.",
    "contains": "Leave it out, or describe the items by position with prefixItems.",
    "minContains": "Leave it out.",
    "maxContains": "Leave it out.",
    "propertyNames": "Use patternProperties with additionalProperties: false.",
    "additionalItems": "Leave it out: it means something only beside items as a list.",
    "unevaluatedProperties": "Use additionalProperties: false in a schema that lists all properties.",
    "unevaluatedItems": "Use items: false.",
    "nullable": 'Use "type": ["string", "null"].',
    "$id": "Leave it out, and refer by #/$defs/NAME.",
    "$anchor": "Refer by #/$defs/NAME.",
    "$dynamicRef": "Refer by #/$defs/NAME.",
    "$dynamicAnchor": "Refer by #/$defs/NAME.",
    "$recursiveRef": "Refer by #/$defs/NAME.",
    "$recursiveAnchor": "Refer by #/$defs/NAME.",
    "$vocabulary": "Leave it out.",
}
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
Schema = dict[str, Any]


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
        self._proofs = 0
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
            return {name: _count(value, at)}
        if name in NUMBERS:
            return _bound(name, value, at)
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
        _literal(value, at)
        return {"const": value}

    def _enum(self, value: Any, at: str, depth: int) -> Schema:
        if not isinstance(value, list) or not value:
            raise InputError(f"'{at}' must be a list of values.")
        _literal(value, at)
        return {"enum": value}

    def _pattern(self, value: Any, at: str, depth: int) -> Schema:
        return {"pattern": ecma_pattern(_text(value, at))}

    def _format(self, value: Any, at: str, depth: int) -> Schema:
        if _text(value, at) not in FORMATS:
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
        for name in _object(value, at):
            _spelt(name, at)
        return {"properties": {name: self._part(part, f"{at}.{name}", depth) for name, part in value.items()}}

    def _pattern_properties(self, value: Any, at: str, depth: int) -> Schema:
        parts = {
            ecma_pattern(name): self._part(part, f"{at}.{name}", depth) for name, part in _object(value, at).items()
        }
        return {"patternProperties": parts}

    def _additional(self, value: Any, at: str, depth: int) -> Schema:
        return {"additionalProperties": self._part(value, at, depth)}

    def _required(self, value: Any, at: str, depth: int) -> Schema:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise InputError(f"'{at}' must be a list of names.")
        for name in value:
            _spelt(name, at)
        return {"required": value}

    def _all_of(self, value: Any, at: str, depth: int) -> Schema:
        return {"allOf": self._branches(value, at, depth)}

    def _any_of(self, value: Any, at: str, depth: int) -> Schema:
        return {"anyOf": self._branches(value, at, depth)}

    def _one_of(self, value: Any, at: str, depth: int) -> Schema:
        branches = self._branches(value, at, depth)
        for place, branch in enumerate(value):
            for other, rival in enumerate(value[:place]):
                if not self._exclude(branch, rival, 0):
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
        self._resolve(_text(value, at), at)
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

    # do two branches exclude each other? -----------------------------------------------------------------------------

    def _exclude(self, one: Any, two: Any, depth: int) -> bool:
        """Whether no value can satisfy both; False where that is not proven."""
        self._proofs += 1
        if depth > 16 or self._proofs > MAX_PROOFS:
            return False
        one, two = self._followed(one), self._followed(two)
        if one is False or two is False:
            return True
        if one is True or two is True:
            return False
        for a, b in ((one, two), (two, one)):
            for name in ("anyOf", "oneOf"):
                if name in a and all(self._exclude(branch, b, depth + 1) for branch in a[name]):
                    return True
            if any(self._exclude(branch, b, depth + 1) for branch in a.get("allOf", ())):
                return True
        values, others = _values(one), _values(two)
        if values is not None and others is not None and not values & others:
            return True
        kinds, rivals = _kinds(one), _kinds(two)
        if not kinds & rivals:
            return True
        return kinds & rivals == {"object"} and (
            self._properties_exclude(one, two, depth) or self._properties_exclude(two, one, depth)
        )

    def _properties_exclude(self, one: Schema, two: Schema, depth: int) -> bool:
        """Whether a property that `one` requires cannot be what `two` says of it."""
        for name in one.get("required", ()):
            mine, other = one.get("properties", {}).get(name, True), two.get("properties", {}).get(name)
            if other is not None:
                if self._exclude(mine, other, depth + 1):
                    return True
            elif two.get("additionalProperties") is False and not two.get("patternProperties"):
                return True
        return False

    def _followed(self, schema: Any) -> Any:
        """The schema behind references that stand alone."""
        for _ in range(16):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                return schema
            rest = {name: value for name, value in schema.items() if name != "$ref" and name not in ANNOTATIONS}
            target = self._resolve(schema["$ref"], "$ref")
            if rest:
                return {**rest, "allOf": [*rest.get("allOf", ()), target]}
            schema = target
        return True


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


def _values(schema: Schema) -> set[str] | None:
    """The values that a schema lists, as canonical JSON; None where it lists none. 1 and 1.0 are the same value."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if listed is None:
        return None
    return {json.dumps(float(v) if type(v) is int else v, sort_keys=True) for v in listed}


def _kinds(schema: Schema) -> set[str]:
    """The types a schema allows; `integer` counts as `number`."""
    named = schema.get("type", list(TYPES))
    kinds = {"number" if kind == "integer" else kind for kind in (named if isinstance(named, list) else [named])}
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if listed is not None:
        kinds &= {_kind(value) for value in listed}
    return kinds


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _literal(value: Any, at: str) -> None:
    """Refuses values that the engine cannot spell exactly."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _spelt(name, at)
            _literal(inner, f"{at}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _literal(inner, at)
    elif isinstance(value, str):
        _spelt(value, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, at)


def _spelt(text: str, at: str) -> None:
    """Control characters have no spelling in the strings that are written here, but for those with a short escape."""
    if any(ord(letter) < 0x20 and letter not in "\n\r\t\b\f" for letter in text):
        raise Unsupported(f"'{at}' holds a control character.", "Leave it out.")


def _number(value: Any, at: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"'{at}' must be a number.")
    if abs(value) > EXACT:
        raise Unsupported(f"'{at}' is beyond 2**53, where numbers would be rounded.", "Use a string with a pattern.")
    return value


def _bound(name: str, value: Any, at: str) -> Schema:
    """A keyword about numbers.

    The engine lets a whole number through that is excluded, where the other bound is less than 1 away from it (0 by
    `exclusiveMinimum: 0, maximum: 0.5`). A bound right behind it, which is included, it keeps.
    """
    if abs(_number(value, at)) == EXACT:
        raise Unsupported(f"'{at}' is 2**53, where numbers would be rounded.", "Use a smaller number.")
    if not name.startswith("exclusive") or value != int(value):
        return {name: value}
    step = max(1e-9, math.ulp(value))
    # Beside, not instead: so that the bound of whole numbers stays what it is.
    return {
        name: value,
        "allOf": [{"minimum": value + step} if name == "exclusiveMinimum" else {"maximum": value - step}],
    }


def _count(value: Any, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"'{at}' must be a whole number from 0 on.")
    return value


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"'{at}' must be a text.")
    return value


def _object(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"'{at}' must be an object.")
    return value

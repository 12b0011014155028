"""Whether two schemas exclude each other, so that no value satisfies both: what lets `oneOf` be enforced as `anyOf`.

It is proven by types, by constant tags, and by required properties, through references and unions too; whatever is not
proven is taken to be false.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from windlass.serve.engine.constraints.keywords import ANNOTATIONS, TYPES, Schema

MAX_PROOFS = 20_000
"""Steps spent on one schema, all its branches together."""
_DEEPEST = 16


class Exclusion:
    def __init__(self, resolve: Callable[[str], Any]) -> None:
        """`resolve`: the schema behind a reference."""
        self._resolve = resolve
        self._proofs = 0

    def holds(self, one: Any, two: Any, depth: int = 0) -> bool:
        """Whether no value can satisfy both; False where that is not proven."""
        self._proofs += 1
        if depth > _DEEPEST or self._proofs > MAX_PROOFS:
            return False
        one, two = self._followed(one), self._followed(two)
        if one is False or two is False:
            return True
        if one is True or two is True:
            return False
        for a, b in ((one, two), (two, one)):
            for name in ("anyOf", "oneOf"):
                if name in a and all(self.holds(branch, b, depth + 1) for branch in a[name]):
                    return True
            if any(self.holds(branch, b, depth + 1) for branch in a.get("allOf", ())):
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
                if self.holds(mine, other, depth + 1):
                    return True
            elif two.get("additionalProperties") is False and not two.get("patternProperties"):
                return True
        return False

    def _followed(self, schema: Any) -> Any:
        """The schema behind references that stand alone."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                return schema
            rest = {name: value for name, value in schema.items() if name != "$ref" and name not in ANNOTATIONS}
            target = self._resolve(schema["$ref"])
            if rest:
                return {**rest, "allOf": [*rest.get("allOf", ()), target]}
            schema = target
        return True


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

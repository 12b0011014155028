"""A random value that obeys a JSON schema: all keywords that types of Python and strict modes of providers give."""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from windlass.core.errors import Unsupported
from windlass.testing.patterns import matching

_DEEP = 5
"""Levels below which only what must be is drawn: definitions may hold themselves."""
_TRIES = 200
_LETTERS = "aeinorst AEZ09éßλ中🙂_-'\"\\"
_READ_OVER = frozenset(
    {
        "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$defs", "definitions",
        "$schema", "$id", "$comment", "discriminator", "contentMediaType", "contentEncoding", "contentSchema",
    }
)  # fmt: skip
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset(
        {
            "properties", "required", "additionalProperties", "minProperties", "maxProperties", "propertyNames",
            "patternProperties",
        }
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "boolean": frozenset(),
    "null": frozenset(),
}  # fmt: skip


class Drawing:
    """Draws values of one schema. Raises `Unsupported` for a keyword it does not know, and for what no value obeys as
    far as it can find."""

    def __init__(self, schema: Mapping[str, Any], chance: random.Random) -> None:
        self._root = schema
        self._chance = chance

    def value(self) -> Any:
        return self._draw(self._root, 0)

    def word(self) -> str:
        return "".join(self._chance.choices(_LETTERS, k=self._chance.randint(1, 8)))

    def _draw(self, schema: Any, depth: int) -> Any:
        if schema is True:
            schema = {}
        if schema is False:
            raise Unsupported("No value obeys the schema `false`.")
        rest = {key: one for key, one in schema.items() if key not in _READ_OVER}
        if "$ref" in rest:
            return self._draw(self._found(rest["$ref"]), depth)
        if "const" in rest:
            return rest["const"]
        if "enum" in rest:
            return self._chance.choice(rest["enum"])
        for union in ("anyOf", "oneOf"):
            if union in rest:
                return self._draw(self._branch(rest[union], depth), depth)
        if len(rest.get("allOf", ())) == 1:
            return self._draw({**rest["allOf"][0], **{k: v for k, v in rest.items() if k != "allOf"}}, depth)
        kinds = rest.pop("type", None) or _kinds(rest)
        kind = self._chance.choice([kinds] if isinstance(kinds, str) else list(kinds))
        known = _KEYWORDS.get("number" if kind == "integer" else kind)
        odd = sorted(rest.keys() - frozenset().union(*_KEYWORDS.values()))
        if known is None or odd:
            raise Unsupported(f"The random model cannot obey '{odd[0] if odd else kind}' of a schema.")
        return self._of(kind, rest, depth)

    def _of(self, kind: str, rest: Mapping[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._object(rest, depth)
            case "array":
                return self._array(rest, depth)
            case "string":
                return self._string(rest)
            case "boolean":
                return self._chance.random() < 0.5
            case "null":
                return None
            case "integer":
                return int(self._number(rest, whole=True))
        return self._number(rest, whole=False)

    # choices ----------------------------------------------------------------------------------------------------------

    def _branch(self, branches: list[Any], depth: int) -> Any:
        if depth < _DEEP:
            return self._chance.choice(branches)
        return min(branches, key=lambda branch: self._height(branch, frozenset()))

    def _height(self, schema: Any, within: frozenset[str]) -> float:
        """How many levels the smallest value has; infinite where a definition cannot do without itself."""
        if not isinstance(schema, Mapping):
            return 0
        if "$ref" in schema:
            name = schema["$ref"]
            return math.inf if name in within else self._height(self._found(name), within | {name})
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return min(self._height(branch, within) for branch in schema[union])
        below: list[Any] = []
        if "properties" in schema:
            below += [schema["properties"].get(name, True) for name in schema.get("required", ())]
        below += schema.get("prefixItems", ())
        if schema.get("minItems", 0) > len(schema.get("prefixItems", ())):
            below.append(schema.get("items", True))
        if schema.get("minProperties", 0) and "additionalProperties" in schema:
            below.append(schema["additionalProperties"])
        return 1 + max((self._height(one, within) for one in below), default=0)

    def _found(self, reference: str) -> Any:
        if reference == "#":
            return self._root
        found: Any = self._root
        for step in reference.removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        return found

    def _count(self, least: int, most: int | None, depth: int) -> int:
        if depth >= _DEEP:
            return least
        return self._chance.randint(least, least + 3 if most is None else min(most, least + 3))

    # kinds ------------------------------------------------------------------------------------------------------------

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        known, required = schema.get("properties", {}), schema.get("required", ())
        made = {
            name: self._draw(one, depth + 1)
            for name, one in known.items()
            if name in required or (depth < _DEEP and self._chance.random() < 0.5)
        }
        others = schema.get("additionalProperties", not known)
        names = schema.get("propertyNames", {})
        if patterns := schema.get("patternProperties"):
            pattern, others = next(iter(patterns.items()))
            names = {"pattern": pattern}
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        wanted = self._count(least, most, depth) if others is not False else 0
        for _ in range(_TRIES):
            if len(made) >= wanted:
                break
            name = self._draw({"type": "string", **names}, depth + 1)
            if name not in made and name not in known:
                made[name] = self._draw(others, depth + 1)
        for name in [name for name in made if name not in required]:
            if most is not None and len(made) > most:
                del made[name]
        if missing := [name for name in required if name not in made]:
            made |= {name: self._draw(others, depth + 1) for name in missing}
        if not least <= len(made) <= (len(made) if most is None else most):
            raise Unsupported(f"The random model finds no object of {least} to {most} properties.")
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        places = schema.get("prefixItems", ())
        made = [self._draw(place, depth + 1) for place in places]
        least = schema.get("minItems", 0)
        item = schema.get("items", not places)
        wanted = self._count(max(least, len(made)), schema.get("maxItems"), depth) if item is not False else len(made)
        unique, seen = schema.get("uniqueItems", False), {_same(one) for one in made}
        for _ in range(_TRIES):
            if len(made) >= wanted:
                break
            one = self._draw(item, depth + 1)
            if not unique or _same(one) not in seen:
                seen.add(_same(one))
                made.append(one)
        if len(made) < least:
            raise Unsupported(f"The random model finds no {least} different items for a list.")
        return made

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        pattern, form = schema.get("pattern"), schema.get("format", "")
        for _ in range(_TRIES):
            if pattern is not None:
                text = matching(pattern, self._chance)
            elif form in _FORMATS:
                text = _FORMATS[form](self._chance)
            else:
                length = self._chance.randint(least, least + 12 if most is None else min(most, least + 12))
                text = "".join(self._chance.choices(_LETTERS, k=length))
            if least <= len(text) <= (len(text) if most is None else most):
                return text
        raise Unsupported(f"The random model finds no text of {least} to {most} characters for {pattern or form!r}.")

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        lows, highs = [n for n in (low, above) if n is not None], [n for n in (high, below) if n is not None]
        most = min(highs) if highs else (max(lows) if lows else 0) + 1000
        least = max(lows) if lows else min(0, most) - 1000
        step = schema.get("multipleOf") or (1 if whole else None)
        for _ in range(_TRIES):
            made: float
            if step is not None:
                number = self._chance.randint(math.ceil(least / step), max(math.ceil(least / step), int(most // step)))
                made = number * step
            else:
                edge = self._chance.random()
                made = least if edge < 0.05 else most if edge < 0.1 else self._chance.uniform(least, most)
            if least <= made <= most and made != above and made != below and (not whole or made == int(made)):
                return made
        raise Unsupported(f"The random model finds no number for {dict(schema)}.")


def _kinds(rest: Mapping[str, Any]) -> list[str]:
    """What a schema without a type is about, by its keywords."""
    kinds = [kind for kind, known in _KEYWORDS.items() if known & rest.keys()]
    return kinds or ["string", "integer", "boolean", "null"]


def _same(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _moment(chance: random.Random) -> datetime.datetime:
    return datetime.datetime(1, 1, 2) + datetime.timedelta(seconds=chance.randrange(9998 * 365 * 86_400))


def _name(chance: random.Random) -> str:
    return "".join(chance.choices("abcdefgh", k=chance.randint(1, 9)))


_FORMATS: Mapping[str, Callable[[random.Random], str]] = {
    "date": lambda chance: _moment(chance).date().isoformat(),
    "time": lambda chance: _moment(chance).time().isoformat() + chance.choice(["Z", "+02:00"]),
    "date-time": lambda chance: _moment(chance).isoformat() + chance.choice(["Z", "-05:30"]),
    "duration": lambda chance: f"P{chance.randint(0, 400)}DT{chance.randint(0, 23)}H{chance.randint(0, 59)}M",
    "email": lambda chance: f"{_name(chance)}@{_name(chance)}.example.com",
    "hostname": lambda chance: f"{_name(chance)}.example.com",
    "ipv4": lambda chance: str(ipaddress.IPv4Address(chance.getrandbits(32))),
    "ipv6": lambda chance: str(ipaddress.IPv6Address(chance.getrandbits(128))),
    "uuid": lambda chance: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
    "uri": lambda chance: f"https://{_name(chance)}.example.com/{_name(chance)}",
}

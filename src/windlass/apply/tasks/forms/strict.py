"""A JSON schema as a strict provider takes it, and the way back to what the schema meant.

Strict modes want an object at the root, every property required, nothing beyond them, and know only some keywords
(OpenAI's guide to structured outputs; others follow it). So a value travels in another form than it has: an optional
property as null, a dictionary as pairs, anything at all as JSON text. A keyword that cannot be sent is told in the
description instead; whether the answer obeys it is checked afterwards by the type itself, so nothing is given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.apply.tasks.forms.codec import (
    Anything,
    Codec,
    Items,
    Named,
    OneOf,
    Pairs,
    Plain,
    Properties,
    comes_back,
    joined,
    noted,
    object_form,
)
from windlass.core.errors import Unsupported

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_SENT = frozenset(
    {"type", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
_TOLD: Mapping[str, str] = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "uniqueItems": "no item twice",
    "minProperties": "at least {} entries",
    "maxProperties": "at most {} entries",
    "format": "format {}",
    "contentMediaType": "content of type {}",
    "contentEncoding": "encoded as {}",
}
_SILENT = frozenset(
    {"title", "default", "examples", "deprecated", "description", "discriminator", "readOnly", "writeOnly"}
)
ROOT = "value"


class Strict:
    """The whole of a schema for strict modes. `name`: what messages call it. Raises `Unsupported` naming the keyword
    that has no strict form, and where it stands."""

    def __init__(self, schema: Mapping[str, Any], name: str = "the schema") -> None:
        self._definitions: dict[str, Codec] = {}
        definitions = schema.get("$defs", {})
        for kind, definition in definitions.items():
            self._definitions[kind] = self._codec(definition, kind)
        self.root = self._codec({key: value for key, value in schema.items() if key != "$defs"}, name)
        self.bare = isinstance(self.root, Properties)
        wire = self.root.wire() if self.bare else object_form({ROOT: self.root.wire()})
        if definitions:
            wire["$defs"] = {name: codec.wire() for name, codec in self._definitions.items()}
        self.schema: Mapping[str, Any] = wire
        self._comes_back = comes_back(self.root)

    def encode(self, plain: Any) -> Any:
        """A plain value as the wire has it."""
        value = self.root.encode(plain)
        return value if self.bare else {ROOT: value}

    def decode(self, sent: Any) -> Any:
        """The plain value of what came back."""
        if not self.bare:
            return self.root.decode(sent[ROOT]) if isinstance(sent, Mapping) and sent.keys() == {ROOT} else sent
        return sent if self._comes_back else self.root.decode(sent)

    def _codec(self, schema: Any, where: str) -> Codec:
        if schema is True or not (rest := {k: v for k, v in schema.items() if k not in _SILENT}):
            return Anything("" if schema is True else schema.get("description", ""))
        note = _told(schema)
        if "$ref" in rest:
            return Named(str(rest["$ref"]).rpartition("/")[2], self._definitions.__getitem__)
        if "const" in rest:
            return Plain(noted({"type": _kind(rest["const"]), "enum": [rest["const"]]}, note))
        for union in ("anyOf", "oneOf"):
            if union in rest:
                self._only(rest, {union, *_TOLD}, where)
                return OneOf([self._codec(one, f"{where}.{union}") for one in rest[union]], note)
        if len(rest.get("allOf", ())) == 1:
            return self._codec({**rest["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}}, where)
        kind = rest.get("type")
        if kind == "array":
            return self._list(rest, note, where)
        if kind == "object":
            return self._mapping(rest, note, where)
        self._only(rest, {*_SENT, *_TOLD}, where)
        sent = {key: value for key, value in rest.items() if key in _SENT}
        if "(?" in sent.get("pattern", ""):  # the automata behind strict modes know no looking around
            note = joined(note, f"matching {sent.pop('pattern')}")
        if rest.get("format") in _FORMATS:
            sent["format"] = rest["format"]
        if "enum" in sent and "type" not in sent:
            sent["type"] = sorted({_kind(option) for option in sent["enum"]})
        return Plain(noted(sent, note))

    def _list(self, schema: Mapping[str, Any], note: str, where: str) -> Codec:
        self._only(schema, {"type", "items", "prefixItems", "minItems", "maxItems", *_TOLD}, where)
        places = [self._codec(one, f"{where}.prefixItems") for one in schema.get("prefixItems", ())]
        if places and schema.get("items", False) is not False:
            raise Unsupported(
                f"Strict structured output cannot say a tuple with an open end ({where}).",
                "Use a tuple of a certain length, a list, or a class.",
            )
        bounds = {key: schema[key] for key in ("minItems", "maxItems") if key in schema}
        return Items(self._codec(schema.get("items", True), f"{where}.items"), places, bounds, note)

    def _mapping(self, schema: Mapping[str, Any], note: str, where: str) -> Codec:
        allowed = {"type", "properties", "required", "additionalProperties", "propertyNames", "patternProperties"}
        self._only(schema, allowed | _TOLD.keys(), where)
        others = schema.get("additionalProperties", "properties" not in schema)
        if "properties" not in schema:
            names = schema.get("propertyNames")
            if len(patterns := schema.get("patternProperties", {})) == 1:
                ((pattern, others),) = patterns.items()
                names = {"type": "string", "pattern": pattern}
            key = None if names is None else self._codec({"type": "string", **names}, f"{where}.propertyNames")
            bounds = {
                new: schema[old] for old, new in (("minProperties", "minItems"), ("maxProperties", "maxItems"))
                if old in schema
            }  # fmt: skip
            value = self._codec(others, f"{where}.additionalProperties")
            return Pairs(key or Plain({"type": "string"}), value, bounds, note)
        if others:
            raise Unsupported(
                f"Strict structured output cannot say properties beyond the known ones ({where}).",
                'Forbid extra fields, hold them in a dictionary of their own, or ask by mode="prompt".',
            )
        known = {name: self._codec(one, f"{where}.{name}") for name, one in schema["properties"].items()}
        return Properties(known, frozenset(known) - frozenset(schema.get("required", ())), note)

    @staticmethod
    def _only(schema: Mapping[str, Any], known: set[str], where: str) -> None:
        odd = sorted(set(schema) - known - _SILENT)
        if odd:
            raise Unsupported(
                f"Strict structured output cannot say '{odd[0]}' ({where}).",
                'Simplify the type, or ask by mode="prompt".',
            )


def _told(schema: Mapping[str, Any]) -> str:
    """The description, with what strict modes do not know said in words."""
    words = [
        text.format(schema[key])
        for key, text in _TOLD.items()
        if key in schema and schema[key] is not False and not (key == "format" and schema[key] in _FORMATS)
    ]
    return joined(schema.get("description", ""), ", ".join(words))


def _kind(value: Any) -> str:
    kinds = (("null", type(None)), ("boolean", bool), ("integer", int), ("number", float), ("string", str))
    for name, python in kinds:
        if isinstance(value, python):
            return name
    raise Unsupported(f"Strict structured output knows no constant {value!r}.", "Use texts, numbers or truth values.")

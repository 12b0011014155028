"""A JSON schema as a strict provider takes it, and the way back to what the schema meant.

Strict modes want an object at the root, every property required, nothing beyond them, and know only some keywords
(OpenAI's guide to structured outputs; others follow it). So a value travels in another form than it has: an optional
property as null, a dictionary as pairs, anything at all as JSON text. A keyword that cannot be sent is told in the
description instead; whether the answer obeys it is checked afterwards by the type itself, so nothing is given up.
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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


class Codec(ABC):
    """One place of a schema: its form on the wire, and the way there and back."""

    @abstractmethod
    def wire(self) -> dict[str, Any]: ...

    @abstractmethod
    def encode(self, value: Any) -> Any: ...

    @abstractmethod
    def decode(self, value: Any) -> Any:
        """Undoes `encode`. What is not of the wire's form comes back as it is: the type will say what is wrong."""
        ...

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Whether a plain value looks like one of this place: enough to tell the branches of a union apart."""
        ...

    @abstractmethod
    def read(self, value: Any) -> bool:
        """The same for a value in the wire's form."""
        ...


@dataclass(slots=True)
class Plain(Codec):
    """What is sent as it is: texts, numbers, truth values, null, constants."""

    schema: Mapping[str, Any]

    def wire(self) -> dict[str, Any]:
        return dict(self.schema)

    def encode(self, value: Any) -> Any:
        return value

    def decode(self, value: Any) -> Any:
        return value

    def fits(self, value: Any) -> bool:
        if "enum" in self.schema:
            return any(value == option and type(value) is type(option) for option in self.schema["enum"])
        kinds = self.schema.get("type")
        return any(_is(kind, value) for kind in ([kinds] if isinstance(kinds, str) else kinds or ()))

    read = fits


@dataclass(slots=True)
class Anything(Codec):
    """A place without a schema: JSON text."""

    note: str = ""

    def wire(self) -> dict[str, Any]:
        return {"type": "string", "description": _joined(self.note, "any JSON value, as JSON text")}

    def encode(self, value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False)

    def decode(self, value: Any) -> Any:
        try:
            return json.loads(value)
        except (ValueError, TypeError, RecursionError):
            return value

    def fits(self, value: Any) -> bool:
        return True

    def read(self, value: Any) -> bool:
        return isinstance(value, str)


@dataclass(slots=True)
class Items(Codec):
    """A list; or, with `places`, a list with something of its own at each place."""

    item: Codec
    places: Sequence[Codec] = ()
    bounds: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def wire(self) -> dict[str, Any]:
        if self.places:
            # Strict modes know no tuples: an object with a property for each place.
            names = [f"item_{n}" for n in range(len(self.places))]
            return _object({name: place.wire() for name, place in zip(names, self.places)}, self.note)
        return _noted({"type": "array", "items": self.item.wire(), **self.bounds}, self.note)

    def encode(self, value: Any) -> Any:
        if self.places:
            return {f"item_{n}": place.encode(one) for n, (place, one) in enumerate(zip(self.places, value))}
        return [self.item.encode(one) for one in value]

    def decode(self, value: Any) -> Any:
        if self.places and isinstance(value, Mapping):
            return [place.decode(value.get(f"item_{n}")) for n, place in enumerate(self.places)]
        return [self.item.decode(one) for one in value] if isinstance(value, list) and not self.places else value

    def fits(self, value: Any) -> bool:
        if not isinstance(value, list):
            return False
        if self.places:
            return len(value) == len(self.places) and all(p.fits(one) for p, one in zip(self.places, value))
        return all(self.item.fits(one) for one in value)

    def read(self, value: Any) -> bool:
        if self.places:
            return isinstance(value, Mapping) and all(
                f"item_{n}" in value and place.read(value[f"item_{n}"]) for n, place in enumerate(self.places)
            )
        return isinstance(value, list) and all(self.item.read(one) for one in value)


@dataclass(slots=True)
class Properties(Codec):
    """An object with known properties. One that may be absent is null on the wire."""

    known: Mapping[str, Codec]
    optional: frozenset[str]
    """Those that may be left out."""
    note: str = ""

    @property
    def absent(self) -> Sequence[str]:
        """Those that may be left out and may not be null: null stands for their absence."""
        return [name for name in self.known if name in self.optional and not self.known[name].fits(None)]

    def wire(self) -> dict[str, Any]:
        forms = {name: codec.wire() for name, codec in self.known.items()}
        for name in self.absent:
            forms[name] = {"anyOf": [forms[name], {"type": "null"}]}
        return _object(forms, self.note)

    def encode(self, value: Any) -> Any:
        absent = self.absent
        return {
            name: None if name not in value and name in absent else codec.encode(value.get(name))
            for name, codec in self.known.items()
        }

    def decode(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        absent = self.absent
        return {
            name: self.known[name].decode(one) if name in self.known else one
            for name, one in value.items()
            if not (one is None and name in absent)
        }

    def fits(self, value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and value.keys() <= self.known.keys()
            and all(
                self.known[name].fits(value[name]) if name in value else name in self.optional for name in self.known
            )
        )

    def read(self, value: Any) -> bool:
        absent = self.absent
        return (
            isinstance(value, Mapping)
            and value.keys() == self.known.keys()
            and all(
                codec.read(value[name]) or (value[name] is None and name in absent)
                for name, codec in self.known.items()
            )
        )


@dataclass(slots=True)
class Pairs(Codec):
    """A dictionary: a list of its entries."""

    key: Codec
    value: Codec
    bounds: Mapping[str, int]
    note: str = ""

    def wire(self) -> dict[str, Any]:
        entry = _object({"key": self.key.wire(), "value": self.value.wire()})
        return _noted({"type": "array", "items": entry, **self.bounds}, _joined(self.note, "no key twice"))

    def encode(self, value: Any) -> Any:
        return [{"key": self.key.encode(key), "value": self.value.encode(one)} for key, one in value.items()]

    def decode(self, value: Any) -> Any:
        if not self._pairs(value) or len({str(entry["key"]) for entry in value}) < len(value):
            return value
        return {self.key.decode(entry["key"]): self.value.decode(entry["value"]) for entry in value}

    def fits(self, value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            self.key.fits(key) and self.value.fits(one) for key, one in value.items()
        )

    def read(self, value: Any) -> bool:
        return self._pairs(value) and all(
            self.key.read(entry["key"]) and self.value.read(entry["value"]) for entry in value
        )

    @staticmethod
    def _pairs(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(entry, Mapping) and entry.keys() == {"key", "value"} for entry in value
        )


@dataclass(slots=True)
class OneOf(Codec):
    """A union: the first branch that a value fits.

    Where two branches could look the same on the wire and mean different things (an empty list, an empty dictionary),
    each travels in an object that says which it is.
    """

    branches: Sequence[Codec]
    note: str = ""

    def wire(self) -> dict[str, Any]:
        forms = [branch.wire() for branch in self.branches]
        if self.marked():
            forms = [_object({f"choice_{n}": form}) for n, form in enumerate(forms)]
        return _noted({"anyOf": forms}, self.note)

    def encode(self, value: Any) -> Any:
        for n, branch in enumerate(self.branches):
            if branch.fits(value):
                encoded = branch.encode(value)
                return {f"choice_{n}": encoded} if self.marked() else encoded
        return value

    def decode(self, value: Any) -> Any:
        for n, branch in enumerate(self.branches):
            if not self.marked():
                if branch.read(value):
                    return branch.decode(value)
            elif isinstance(value, Mapping) and value.keys() == {f"choice_{n}"}:
                return branch.decode(value[f"choice_{n}"])
        return value

    def fits(self, value: Any) -> bool:
        return any(branch.fits(value) for branch in self.branches)

    def read(self, value: Any) -> bool:
        if not self.marked():
            return any(branch.read(value) for branch in self.branches)
        return isinstance(value, Mapping) and any(
            value.keys() == {f"choice_{n}"} and branch.read(value[f"choice_{n}"])
            for n, branch in enumerate(self.branches)
        )

    def marked(self) -> bool:
        """Whether the wire says which branch it is."""
        return any(
            _looks(a) & _looks(b) and not (_as_it_is(a) and _as_it_is(b))
            for a, b in itertools.combinations(self.branches, 2)
        )


def _looks(codec: Codec) -> set[str]:
    """What a place may look like on the wire."""
    match codec:
        case Plain(schema):
            kinds = schema.get("type", ())
            return {kinds} if isinstance(kinds, str) else set(kinds)
        case Anything():
            return {"string"}
        case Items(places=places) if places:
            return {",".join(f"item_{n}" for n in range(len(places)))}
        case Properties(known):
            return {",".join(sorted(known))}
        case OneOf(branches):
            marks = [{f"choice_{n}"} for n in range(len(branches))] if codec.marked() else map(_looks, branches)
            return set[str]().union(*marks)
        case Named(name, found):
            return _looks(found(name))
    return {"array"}


def _as_it_is(codec: Codec) -> bool:
    """Whether a value is its own form on the wire."""
    match codec:
        case Plain():
            return True
        case Items(item, places):
            return not places and _as_it_is(item)
        case OneOf(branches):
            return not codec.marked() and all(map(_as_it_is, branches))
    return False


def _comes_back(codec: Codec, within: frozenset[str] = frozenset()) -> bool:
    """Whether what is decoded is always what was sent. `within`: definitions that are being looked at."""
    match codec:
        case Plain():
            return True
        case Items(item, places):
            return not places and _comes_back(item, within)
        case Properties(known):
            return not codec.absent and all(_comes_back(one, within) for one in known.values())
        case OneOf(branches):
            return not codec.marked() and all(_comes_back(one, within) for one in branches)
        case Named(name, found):
            return name in within or _comes_back(found(name), within | {name})
    return False


@dataclass(slots=True)
class Named(Codec):
    """A definition by its name, which may hold itself."""

    name: str
    found: Callable[[str], Codec]

    def wire(self) -> dict[str, Any]:
        return {"$ref": f"#/$defs/{self.name}"}

    def encode(self, value: Any) -> Any:
        return self.found(self.name).encode(value)

    def decode(self, value: Any) -> Any:
        return self.found(self.name).decode(value)

    def fits(self, value: Any) -> bool:
        return self.found(self.name).fits(value)

    def read(self, value: Any) -> bool:
        return self.found(self.name).read(value)


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
        wire = self.root.wire() if self.bare else _object({ROOT: self.root.wire()})
        if definitions:
            wire["$defs"] = {name: codec.wire() for name, codec in self._definitions.items()}
        self.schema: Mapping[str, Any] = wire
        self._comes_back = _comes_back(self.root)

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
            return Plain(_noted({"type": _kind(rest["const"]), "enum": [rest["const"]]}, note))
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
            note = _joined(note, f"matching {sent.pop('pattern')}")
        if rest.get("format") in _FORMATS:
            sent["format"] = rest["format"]
        if "enum" in sent and "type" not in sent:
            sent["type"] = sorted({_kind(option) for option in sent["enum"]})
        return Plain(_noted(sent, note))

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


def _object(properties: Mapping[str, Any], note: str = "") -> dict[str, Any]:
    form = {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False
    }  # fmt: skip
    return _noted(form, note)


def _noted(form: dict[str, Any], note: str) -> dict[str, Any]:
    return {**form, "description": note} if note else form


def _told(schema: Mapping[str, Any]) -> str:
    """The description, with what strict modes do not know said in words."""
    words = [
        text.format(schema[key])
        for key, text in _TOLD.items()
        if key in schema and schema[key] is not False and not (key == "format" and schema[key] in _FORMATS)
    ]
    return _joined(schema.get("description", ""), ", ".join(words))


def _joined(note: str, more: str) -> str:
    return f"{note} ({more})" if note and more else note or more


def _kind(value: Any) -> str:
    kinds = (("null", type(None)), ("boolean", bool), ("integer", int), ("number", float), ("string", str))
    for name, python in kinds:
        if isinstance(value, python):
            return name
    raise Unsupported(f"Strict structured output knows no constant {value!r}.", "Use texts, numbers or truth values.")


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "number":
        return isinstance(value, int | float)
    types = {"null": type(None), "integer": int, "string": str, "array": list, "object": Mapping}
    return kind in types and isinstance(value, types[kind])

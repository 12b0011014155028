"""The places of a JSON schema that strict modes take: how each looks on the wire, and the way there and back.

A value travels in another form than it has: an optional property as null, a dictionary as pairs, anything at all as
JSON text. Which place a schema asks for is said in `strict.py`.
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
        return {"type": "string", "description": joined(self.note, "any JSON value, as JSON text")}

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
            return object_form({name: place.wire() for name, place in zip(names, self.places)}, self.note)
        return noted({"type": "array", "items": self.item.wire(), **self.bounds}, self.note)

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
        return object_form(forms, self.note)

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
        entry = object_form({"key": self.key.wire(), "value": self.value.wire()})
        return noted({"type": "array", "items": entry, **self.bounds}, joined(self.note, "no key twice"))

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
            forms = [object_form({f"choice_{n}": form}) for n, form in enumerate(forms)]
        return noted({"anyOf": forms}, self.note)

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


def comes_back(codec: Codec, within: frozenset[str] = frozenset()) -> bool:
    """Whether what is decoded is always what was sent. `within`: definitions that are being looked at."""
    match codec:
        case Plain():
            return True
        case Items(item, places):
            return not places and comes_back(item, within)
        case Properties(known):
            return not codec.absent and all(comes_back(one, within) for one in known.values())
        case OneOf(branches):
            return not codec.marked() and all(comes_back(one, within) for one in branches)
        case Named(name, found):
            return name in within or comes_back(found(name), within | {name})
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


def object_form(properties: Mapping[str, Any], note: str = "") -> dict[str, Any]:
    form = {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False
    }  # fmt: skip
    return noted(form, note)


def noted(form: dict[str, Any], note: str) -> dict[str, Any]:
    return {**form, "description": note} if note else form


def joined(note: str, more: str) -> str:
    return f"{note} ({more})" if note and more else note or more


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "number":
        return isinstance(value, int | float)
    types = {"null": type(None), "integer": int, "string": str, "array": list, "object": Mapping}
    return kind in types and isinstance(value, types[kind])

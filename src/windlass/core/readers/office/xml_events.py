"""XML read as a stream of events, in memory that does not grow with the file; a document type is refused.

Whoever declares no entities cannot blow them up ("billion laughs") nor fetch a file with them (XXE), and none of the
formats that are read with this declares a document type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Literal
from xml.parsers import expat

from windlass.core.readers.unpacking import Bomb

Event = tuple[Literal["start"], str, Mapping[str, str]] | tuple[Literal["end", "text"], str, None]
"""The beginning of an element with its attributes, its end, a piece of its text. Names come without their namespaces,
save the attributes of relationships (`r:id`): those have namesakes."""

_BLOCK = 1 << 16
_DEEPEST = 500
"""Elements in each other. Word nests some twenty; memory grows with every one."""


class DamagedXml(ValueError):
    """Not well-formed, or of a kind that is refused."""


def events(stream: IO[bytes]) -> Iterator[Event]:
    """The events of a document in UTF-8 or UTF-16. Raises `DamagedXml`; what came before stands."""
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    found: list[Event] = []
    local: dict[str, str] = {}
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise Bomb(f"elements nested more than {_DEEPEST} deep")
        if name not in local:
            local[name] = name.rpartition("}")[2]
        found.append(("start", local[name], _plain(attributes)))

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        found.append(("end", local[name], None))

    def refuse(*_: object) -> None:
        raise DamagedXml("it declares a document type, which may hide an attack")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: found.append(("text", text, None))
    parser.StartDoctypeDeclHandler = refuse
    while True:
        block = stream.read(_BLOCK)
        try:
            parser.Parse(block, not block)
        except expat.ExpatError as error:
            raise DamagedXml(f"broken XML: {error}") from error
        yield from found
        found.clear()
        if not block:
            return


def _plain(attributes: dict[str, str]) -> dict[str, str]:
    if "}" not in "".join(attributes):  # most have none, and there are as many elements as cells
        return attributes
    plain = {}
    for name, value in attributes.items():
        space, _, local = name.rpartition("}")
        plain[f"r:{local}" if space.endswith("/relationships") else local] = value
    return plain

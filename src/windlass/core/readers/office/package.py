"""A file of Office Open XML (ECMA-376) as its readers see it: a zip archive of parts that name each other.

Read with the standard library: a part is a stream of XML events, so a large sheet or document needs no tree. An
archive that holds far more than text could, more parts than people make, or a document type is refused.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

from windlass.core.documents import Document
from windlass.core.readers.blocks import Blocks
from windlass.core.readers.office.xml_events import events
from windlass.core.readers.text import canonical
from windlass.core.readers.unpacking import ALWAYS, EXPANSION, Bomb, Limited

_MOST_PARTS = 50_000
_MOST_BYTES = 2_000_000_000
"""Of all parts that are read, unpacked."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What a part says of another one."""

    kind: str
    """The last word of its type: `slide`, `styles`, `hyperlink`."""
    target: str
    """A part's name in the archive, or an address outside."""
    outside: bool


class Package:
    """The parts of one file. All that is read of it counts towards one limit."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        parts = archive.infolist()
        if len(parts) > _MOST_PARTS:
            raise Bomb(f"more than {_MOST_PARTS:,} parts")
        packed = sum(part.compress_size for part in parts if part.filename.endswith((".xml", ".rels")))  # no pictures
        self.limit = min(max(ALWAYS, EXPANSION * packed), _MOST_BYTES)
        self._archive = archive
        self._names = {name.lower(): name for name in archive.namelist()}
        self._left = self.limit

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._names

    def count(self, inside: str) -> int:
        """Parts whose names hold this."""
        return sum(inside in name for name in self._names)

    @contextmanager
    def opened(self, part: str) -> Iterator[IO[bytes]]:
        name = self._names.get(part.lower())
        if name is None:
            raise zipfile.BadZipFile(f"it has no {part}")
        with self._archive.open(name) as packed:
            stream = Limited(packed, self._left, f"unpacks to more than {self.limit / 1e6:,.0f} MB")
            try:
                with io.BufferedReader(stream, 1 << 16) as buffered:
                    yield buffered
            finally:
                self._left -= stream.given

    def relations(self, part: str = "") -> dict[str, Relation]:
        """What a part (none: the file as a whole) refers to, by the ids that its text uses."""
        folder, _, name = part.rpartition("/")
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        if path not in self:
            return {}
        found = {}
        with self.opened(path) as stream:
            for kind, tag, said in events(stream):
                if kind == "start" and tag == "Relationship" and said is not None:
                    outside = said.get("TargetMode") == "External"
                    target = said.get("Target", "")
                    if not outside:
                        target = posixpath.normpath(posixpath.join("/", folder, unquote(target))).lstrip("/")
                    found[said.get("Id", "")] = Relation(said.get("Type", "").rpartition("/")[2], target, outside)
        return found

    def related(self, part: str, kind: str) -> str | None:
        """The part that another refers to as its `styles`, `notesSlide` and so on."""
        targets = (r.target for r in self.relations(part).values() if r.kind == kind and not r.outside)
        return next((target for target in targets if target in self), None)

    def properties(self) -> dict[str, str]:
        """`title`, `creator`, `created`, `modified` and so on, as far as the author gave them."""
        part = self.related("", "core-properties")
        if part is None:
            return {}
        found: dict[str, str] = {}
        name = ""
        with self.opened(part) as stream:
            for kind, value, _ in events(stream):
                if kind == "start":
                    name = value
                elif kind == "text" and name:
                    found[name] = found.get(name, "") + value
                else:
                    name = ""
        return {key: text for key, value in found.items() if (text := canonical(value).strip())}


def document_of(
    blocks: Blocks, name: str, package: Package, *, title: str = "", about: dict[str, Any] | None = None
) -> Document:
    """One document; its author and dates are those that the file itself says."""
    said = package.properties()
    known = {"creator": "author", "created": "created", "modified": "modified", "keywords": "keywords"}
    metadata: dict[str, Any] = {"kind": "page", "module": "", "cluster": name}
    metadata |= {key: said[field] for field, key in known.items() if field in said} | (about or {})
    title = title or said.get("title", "") or name.rpartition("/")[2].rpartition(".")[0] or name
    return Document(name, name, title, blocks.text, "text", tuple(blocks.sections), metadata)

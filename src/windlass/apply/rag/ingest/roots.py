"""What is ingested: folders, single files and lists of addresses, each a root that owns the documents below its name.

A document's id is the place of its source: the path from the workspace's folder (`docs/pump.md`, `docs/prices.csv:7`),
or an absolute path where that lies elsewhere. So a file has the same id whether it was reached as part of a folder or
by itself, and what belongs to a root is told by the id alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windlass.apply.rag.ingest.access import AccessRules
from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.readers import FileSource

URLS = "urls:"
"""Ids of what came by a list of addresses begin so, then the list's own place."""


@dataclass(frozen=True, slots=True)
class Root:
    source: FileSource
    name: str
    """The place of the folder, of the file, or of the list of addresses after `URLS`; `.`: the workspace's folder."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Metadata that each of its documents gets."""
    access: AccessRules = field(default_factory=AccessRules)
    file: bool = False
    """Whether it is a single file, whose place is its name."""

    def __post_init__(self) -> None:
        for key in self.labels:
            if key in _RESERVED or not key.strip():
                hint = "Who may find a document is said by --access." if key == "access" else "Name it otherwise."
                raise InputError(f"Documents of {self.name} cannot be labelled '{key}': windlass uses that name.", hint)

    @property
    def listed(self) -> bool:
        """Whether it is a list of addresses."""
        return self.name.startswith(URLS)

    @property
    def above(self) -> str:
        """What stands before the names of its files, to make the ids of their documents."""
        if self.listed:
            return f"{self.name}#"
        if self.file:
            return self.name[: self.name.rfind("/") + 1]
        return "" if self.name == "." else f"{self.name.rstrip('/')}/"

    def place(self, name: str) -> str:
        """Where a person looks for the file of that name: its path, or the address itself."""
        return name if self.listed else self.above + name

    def owns(self, document: str) -> bool:
        """Whether the document with this id came from here."""
        return holds(self.name, document)

    def placed(self, document: Document) -> Document:
        """A document of the source, with its id and labels in the index."""
        metadata = {**document.metadata, **self.labels}
        if "cluster" in metadata:
            metadata["cluster"] = self.above + metadata["cluster"]
        return replace(document, id=self.above + document.id, source=self.place(document.source), metadata=metadata)


_RESERVED = ("access", "document", "source", "kind", "cluster", "module", "row", "pages", "slides", "url")


def place_name(path: Path, home: Path) -> str:
    """A path as seen from `home`; absolute where it lies elsewhere; `.` for `home` itself."""
    whole, home = Path(os.path.abspath(path)), Path(os.path.abspath(home))
    name = whole.relative_to(home).as_posix() if whole.is_relative_to(home) else whole.as_posix()
    return os.fsencode(name).decode("utf-8", "backslashreplace")  # names on disk are bytes


def holds(root: str, place: str) -> bool:
    """Whether a place is that of the root or of a part of it: a file of a folder, a row or a member of a file."""
    if root == ".":
        return not place.startswith(("/", URLS))
    root = root.rstrip("/")
    return place.startswith(root) and place[len(root) : len(root) + 1] in ("", "/", ":", "#")

"""Reading single documents of a corpus without loading it: an index of byte offsets per corpus, kept in memory.

Artifacts never change, so an index stays true for as long as the process lives.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Section
from windlass.core.errors import InputError, NotFound
from windlass.core.workspace import Workspace

KEPT = 4
"""Corpora whose index stays in memory."""
MAX_STEPS = 500
"""Artifacts looked at on the way from a variant to its corpus."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one document stands in `documents.jsonl`."""

    id: str
    title: str
    source: str
    characters: int
    offset: int
    """Of its line, in bytes."""
    length: int


class Corpora:
    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._lock = Lock()
        self._indexes: OrderedDict[str, dict[str, Entry]] = OrderedDict()
        self._behind: dict[str, str | None] = {}

    def entries(self, corpus: Artifact) -> dict[str, Entry]:
        """Document id -> entry, in the order of the corpus."""
        with self._lock:
            index = self._indexes.get(corpus.digest)
            if index is None:
                index = self._indexes[corpus.digest] = _scan(_file(corpus))
                while len(self._indexes) > KEPT:
                    self._indexes.popitem(last=False)
            self._indexes.move_to_end(corpus.digest)
            return index

    def document(self, corpus: Artifact, identifier: str) -> Document:
        """Raises `NotFound` when the corpus has no such document."""
        entry = self.entries(corpus).get(identifier)
        if entry is None:
            raise NotFound(
                f"{corpus.ref} holds no document '{identifier}'.", "The answer may quote another version of the corpus."
            )
        with _file(corpus).open("rb") as file:
            file.seek(entry.offset)
            row = json.loads(file.read(entry.length))
        sections = tuple(Section(**section) for section in row.pop("sections", ()))
        return Document(**row, sections=sections)

    def behind(self, digest: str | None) -> str | None:
        """Digest of the nearest corpus that the artifact was made from; the newest corpus when none is known."""
        if digest is not None:
            if digest not in self._behind:
                self._behind[digest] = self._nearest(digest)
            if self._behind[digest] is not None:
                return self._behind[digest]
        newest = self._ws.store.artifacts(kind="corpus", limit=1)
        return newest[0].digest if newest else None

    def _nearest(self, digest: str) -> str | None:
        seen, front = {digest}, [digest]
        while front and len(seen) < MAX_STEPS:
            record = self._ws.store.artifact(front.pop(0))
            if record is None:
                continue
            if record.kind == "corpus":
                return record.digest
            fresh = [parent for _, parent in record.parents if parent not in seen]
            seen.update(fresh)
            front.extend(fresh)
        return None


def _file(corpus: Artifact) -> Path:
    path = corpus.path / "documents.jsonl"
    if not path.is_file():
        raise InputError(f"{corpus.ref} holds no documents: it is a {corpus.kind}.", "Documents live in a corpus.")
    return path


def _scan(path: Path) -> dict[str, Entry]:
    index: dict[str, Entry] = {}
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                entry = Entry(row["id"], row["title"], row["source"], len(row["text"]), offset, len(line))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}, line {number}: not a document ({error}).", "Make the corpus again."
                ) from error
            index[entry.id] = entry
            offset += len(line)
    return index

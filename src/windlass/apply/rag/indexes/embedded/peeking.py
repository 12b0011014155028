"""A look into an index without its embedder: which version it is, and what some of its documents say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from windlass.apply.rag.indexes.embedded.layout import (
    FILE,
    is_live,
    open_frozen,
    open_live,
    read_meta,
    read_state,
    sqlite_errors,
    version_digest,
)
from windlass.apply.rag.indexes.embedded.writing import whole
from windlass.core.documents import Document

_DOCUMENT = "SELECT id, source, title, format, metadata, between_passages FROM documents WHERE document = ?"


def peek(folder: Path, names: Iterable[str]) -> tuple[str, dict[str, Document]]:
    """The digest of the version that the index in a folder is now, and those of the documents that it holds, with their
    whole texts. Raises `NotFound` where there is no index, and `WorkspaceCorrupt` for a damaged one."""
    opened = open_live(folder) if is_live(folder) else open_frozen(folder)
    with sqlite_errors(folder / FILE), contextlib.closing(opened) as db:
        db.execute("BEGIN")  # one version, whoever writes
        digest = version_digest(read_meta(db, folder), read_state(db, folder))
        found = {}
        for name in dict.fromkeys(names):
            row = db.execute(_DOCUMENT, (name,)).fetchone()
            if row is not None:
                number, source, title, form, metadata, rest = row
                cut = db.execute('SELECT start, "end", text FROM passages WHERE document = ?', (number,))
                found[name] = Document(name, source, title, whole(cut, rest), form, (), json.loads(metadata))
    return digest, found

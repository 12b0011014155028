"""Another embedder for an index that is in use: its vectors are made beside those that serve, and change places at the
end, in one transaction.

Until then the index is searched and written to as before, by its old embedder. What is put meanwhile is embedded anew
like the rest; what is removed is left out. Each batch is kept, so that whoever runs it again goes on where it ended.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from windlass.apply.rag.indexes.embedded.layout import (
    IndexMeta,
    open_live,
    read_meta,
    sqlite_errors,
    write_meta,
)
from windlass.apply.rag.indexes.embedded.vector_file import Vectors, append
from windlass.apply.rag.indexes.embedded.writing import held_entries, new_generation, sweep, switch, writing
from windlass.core.documents import Document, Entry, Passage
from windlass.core.errors import InputError
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder, Embeddings

_PASSAGES = 256
"""Embedded at once: what is lost when it is stopped."""


class Embedding(Protocol):
    """A `chunking.chunker.Chunker`: what makes vectors of passages, and may look at the document around them."""

    @property
    def embedder(self) -> Embedder: ...

    def embed(self, cut: Sequence[tuple[Document, Sequence[Passage]]]) -> Embeddings: ...


@dataclass(frozen=True, slots=True)
class Reembedded:
    documents: int
    """That this run embedded; those of an earlier run that was stopped are not among them."""
    passages: int
    truncated: int
    """Passages that were longer than the embedder reads, and were cut."""


def reembed(folder: Path, chunker: Embedding, progress: Progress | None = None) -> Reembedded:
    """Gives the living index in `folder` vectors of the chunker's embedder. Nothing is done when it has them already.

    To be run by one process; a second one would do the same work again, to no harm. Raises `InputError` for an adapted
    index, and when the index is on its way to yet another embedder that `abandon` has not called off.
    """
    documents = passages = truncated = 0
    with contextlib.closing(open_live(folder)) as db:
        while True:
            with writing(db, folder):
                meta = read_meta(db, folder)
                if meta.embedder == chunker.embedder.digest:
                    return Reembedded(documents, passages, truncated)
                made = _begun(db, folder, meta, chunker.embedder)
                batch, last = _batch(db, meta, made["after"])
                if not batch:
                    _finish(db, folder, meta, made)
                    continue
            embedded = chunker.embed([(entry.document, entry.passages) for entry in batch])
            with writing(db, folder):
                _keep(db, folder, made | {"after": last}, batch, embedded.vectors)
            documents += len(batch)
            passages += len(embedded.vectors)
            truncated += embedded.truncated
            if progress is not None:
                progress.update(passages)


def under_way(folder: Path) -> str | None:
    """The name of the embedder that an index is being embedded anew with."""
    with sqlite_errors(folder), contextlib.closing(open_live(folder)) as db:
        made = _pending(db)
        return None if made is None else str(made["name"])


def abandon(folder: Path) -> bool:
    """Calls off what was begun and not finished; returns whether there was anything."""
    with contextlib.closing(open_live(folder)) as db, writing(db, folder):
        there = _pending(db) is not None
        db.execute("DELETE FROM meta WHERE key = 'pending'")
        db.execute("DELETE FROM pending")
        sweep(db, folder)
    return there


def _pending(db: sqlite3.Connection) -> dict[str, Any] | None:
    found = db.execute("SELECT value FROM meta WHERE key = 'pending'").fetchone()
    return None if found is None else dict(json.loads(found[0]))


def _begun(db: sqlite3.Connection, folder: Path, meta: IndexMeta, embedder: Embedder) -> dict[str, Any]:
    """Which vectors are being made, and how far their file goes. Begins them when there are none."""
    made = _pending(db)
    if made is None:
        if meta.adapter is not None:
            raise InputError(f"The index {folder} is adapted: its vectors come from another index.")
        made = {"embedder": embedder.digest, "name": embedder.name, "dimension": embedder.dimension}
        made |= {"rows": 0, "after": 0, "generation": new_generation(db, folder)}
        _write(db, made)
        sweep(db, folder)
    if made["embedder"] != embedder.digest:
        raise InputError(
            f"The index {folder} is being embedded anew with {made['name']} ({made['embedder'][:12]}).",
            "Let that finish, or call it off: `embedded.reembedding.abandon`.",
        )
    return made


def _write(db: sqlite3.Connection, made: dict[str, Any]) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES ('pending', ?)", (json.dumps(made),))


def _batch(db: sqlite3.Connection, meta: IndexMeta, after: int) -> tuple[list[Entry], int]:
    """The documents after the one with that id, and the id of the last of them. Those that come have greater ids."""
    batch: list[Entry] = []
    passages = 0
    for entry in held_entries(db, np.zeros((0, meta.dimension), np.float32), f"id > {after}"):
        batch.append(entry)
        passages += len(entry.passages)
        if max(passages, len(batch)) >= _PASSAGES:
            break
    (last,) = db.execute(
        "SELECT max(id) FROM (SELECT id FROM documents WHERE id > ? ORDER BY id LIMIT ?)", (after, len(batch))
    ).fetchone()
    return batch, int(last or after)


def _keep(db: sqlite3.Connection, folder: Path, made: dict[str, Any], batch: Sequence[Entry], vectors: Vectors) -> None:
    """Keeps new vectors of the documents that are still what they were."""
    now = _pending(db)
    if now is None or now["generation"] != made["generation"]:
        raise InputError(f"Embedding the index {folder} anew was called off, or finished elsewhere.", "Run it again.")
    if (
        vectors.shape != (sum(len(entry.passages) for entry in batch), made["dimension"])
        or not np.isfinite(vectors).all()
    ):
        raise InputError(
            f"The embedder '{made['name']}' gave vectors of shape {vectors.shape}, or values that are not finite."
        )
    at, row, blocks = 0, int(now["rows"]), []
    for entry in batch:
        mine, at = vectors[at : at + len(entry.passages)], at + len(entry.passages)
        found = db.execute(
            "SELECT id FROM documents WHERE document = ? AND digest = ? AND id NOT IN (SELECT document FROM pending)",
            (entry.document.id, entry.digest),
        ).fetchone()
        if found is not None:
            db.execute("INSERT INTO pending VALUES (?, ?)", (found[0], row))
            blocks.append(mine)
            row += len(mine)
    append(folder, made["generation"], int(now["rows"]), blocks, read_meta(db, folder).quantised)
    _write(db, made | {"rows": row})


def _finish(db: sqlite3.Connection, folder: Path, meta: IndexMeta, made: dict[str, Any]) -> None:
    """Lets the new vectors serve: every document has some."""
    rows = db.execute("SELECT row, document FROM pending").fetchall()
    db.execute("DELETE FROM meta WHERE key = 'pending'")
    db.execute("DELETE FROM pending")
    append(folder, made["generation"], made["rows"], [], meta.quantised)  # there is a file, though nothing be in it
    switch(db, folder, rows, made["rows"], made["generation"])
    write_meta(db, replace(meta, embedder=made["embedder"], embedder_name=made["name"], dimension=made["dimension"]))

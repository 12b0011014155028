"""The file `index.db`: passages, their FTS5 index and their vectors in one SQLite database that never changes.

It is written once, in one transaction, into the draft of an artifact, and opened read-only ever after. Vectors are
stored as blobs of many float32 rows each, so that opening reads them at the disk's speed.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.chunking import Passage, context_of
from windlass.apply.rag.lexical import TOKENIZER
from windlass.core.documents import Document
from windlass.core.errors import DiskFull, InputError, NotFound, WorkspaceCorrupt

FORMAT = 1
FILE = "index.db"
_BLOCK_ROWS = 4096

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, document TEXT NOT NULL UNIQUE, title TEXT NOT NULL, source TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents, heading TEXT NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE TABLE vectors (first INTEGER PRIMARY KEY, rows INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE arrays (name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(context, text, content='', tokenize='{TOKENIZER}');
CREATE VIRTUAL TABLE instances USING fts5vocab(words, instance);
"""


@dataclass(frozen=True, slots=True)
class IndexMeta:
    """What an index was made of. Kept inside the file, so that a copied file still knows it."""

    embedder: str
    """Digest of the embedder whose vectors these are."""
    embedder_name: str
    dimension: int
    passages: int
    documents: int
    context: int
    """Characters of `title > heading` above each passage, see `chunking.embedding_text`."""
    adapter: str | None = None
    """Digest of the adapter that was applied to the embedder's vectors."""
    corpus: str | None = None
    exam: str | None = None
    format: int = FORMAT


def write_index(
    path: Path,
    documents: Iterable[tuple[Document, Sequence[Passage]]],
    vectors: NDArray[np.float32],
    meta: IndexMeta,
) -> None:
    """Writes a whole index. Row i of `vectors` belongs to the i-th passage, in the order given."""
    with sqlite_errors(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")  # a draft is whole or thrown away
        db.execute("PRAGMA synchronous = OFF")  # `Artifacts` syncs the file before it takes its place
        db.executescript(_SCHEMA)
        db.execute("BEGIN")
        row = 0
        for number, (document, passages) in enumerate(documents, start=1):
            title = passages[0].title if passages else document.title
            metadata = json.dumps(document.metadata, ensure_ascii=False, sort_keys=True)
            db.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?)", (number, document.id, title, document.source, metadata)
            )
            for passage in passages:
                row += 1
                db.execute(
                    "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)",
                    (row, number, passage.heading, passage.start, passage.end, _storable(passage.text)),
                )
                db.execute(
                    "INSERT INTO words (rowid, context, text) VALUES (?, ?, ?)",
                    (row, _storable(context_of(passage, meta.context)), _storable(passage.text)),
                )
        if row != len(vectors) or row != meta.passages:
            raise ValueError(f"{row} passages, {len(vectors)} vectors, {meta.passages} announced")
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
        lengths = np.zeros(row, np.int32)
        for at, count in db.execute("SELECT doc, count(*) FROM instances GROUP BY doc"):
            lengths[at - 1] = count
        db.execute("INSERT INTO arrays VALUES ('lengths', ?)", (lengths.astype("<i4").tobytes(),))
        _write_vectors(db, vectors)
        _write_meta(db, meta)
        db.execute("COMMIT")


def replace_vectors(path: Path, vectors: NDArray[np.float32], meta: IndexMeta) -> None:
    """Gives a copy of an index other vectors and the `meta` that says so."""
    with sqlite_errors(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute("DELETE FROM vectors")
        db.execute("DELETE FROM meta")
        _write_vectors(db, vectors)
        _write_meta(db, meta)
        db.execute("COMMIT")


def _write_vectors(db: sqlite3.Connection, vectors: NDArray[np.float32]) -> None:
    for first in range(0, len(vectors), _BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[first : first + _BLOCK_ROWS], "<f4")
        db.execute("INSERT INTO vectors VALUES (?, ?, ?)", (first, len(block), block.tobytes()))


def _write_meta(db: sqlite3.Connection, meta: IndexMeta) -> None:
    values = {name: getattr(meta, name) for name in meta.__slots__}
    db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()])


def _storable(text: str) -> str:
    """SQLite stores UTF-8: lone surrogates, which no valid text has, become question marks of the same length."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


class IndexFile:
    """An index file opened for reading. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise NotFound(f"There is no index at {path}.", "`windlass index build CORPUS` makes one.")
        self._lock = threading.Lock()
        with sqlite_errors(path):
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            self.meta = self._read_meta()
            self.lengths = np.frombuffer(self._one("SELECT data FROM arrays WHERE name = 'lengths'"), "<i4")
            self.vectors = self._read_vectors()
        except BaseException:
            self._db.close()
            raise

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, sqlite_errors(self.path):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str) -> bytes:
        rows = self.query(sql)
        if not rows:
            raise self._corrupt("a part is missing")
        return bytes(rows[0][0])

    def _read_meta(self) -> IndexMeta:
        found: Mapping[str, Any] = {key: json.loads(value) for key, value in self.query("SELECT key, value FROM meta")}
        if found.get("format") != FORMAT:
            raise InputError(
                f"{self.path} has index format {found.get('format')}, this windlass reads format {FORMAT}.",
                "Build the index again from its corpus.",
            )
        pages, size = (self.query(f"PRAGMA {name}")[0][0] for name in ("page_count", "page_size"))
        if self.path.stat().st_size < pages * size:
            raise self._corrupt("it is cut short")
        return IndexMeta(**found)

    def _read_vectors(self) -> NDArray[np.float32]:
        shape = (self.meta.passages, self.meta.dimension)
        vectors = np.empty(shape, np.float32)
        done = 0
        for first, rows, data in self._blocks():
            if first != done or len(data) != rows * shape[1] * 4 or done + rows > shape[0]:
                raise self._corrupt("its vectors are not whole")
            vectors[first : first + rows] = np.frombuffer(data, "<f4").reshape(rows, shape[1])
            done += rows
        if done != shape[0] or len(self.lengths) != shape[0]:
            raise self._corrupt("its vectors are not whole")
        vectors.flags.writeable = False
        return vectors

    def _blocks(self) -> Iterator[tuple[int, int, bytes]]:
        with self._lock, sqlite_errors(self.path):
            yield from self._db.execute("SELECT first, rows, data FROM vectors ORDER BY first")

    def _corrupt(self, why: str) -> WorkspaceCorrupt:
        return WorkspaceCorrupt(
            f"The index file {self.path} is damaged: {why}.", "Restore it or build the index again from its corpus."
        )

    def close(self) -> None:
        with self._lock:
            self._db.close()


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            raise DiskFull(
                f"No space left on the disk that holds {path}.",
                "Free some space and run the same command again; what was finished before is kept.",
            ) from error
        raise WorkspaceCorrupt(
            f"The index file {path} is damaged or no index ({error}).",
            "Restore it or build the index again from its corpus.",
        ) from error

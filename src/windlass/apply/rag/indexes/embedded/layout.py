"""How an index lies on the disk: a folder with `index.db` and `vectors-GENERATION.f32`. Live or frozen, it is the same.

The vectors file is only appended to, in rows of float32, and synced before the SQLite commit that speaks of the rows.
So whatever happens to a writer, the database names whole documents only; rows that it does not name are overwritten by
the next one. A document's passages have ids that follow each other and are never given again, and vectors in
rows that follow each other; both are written down once for each document, so that opening an index reads little.

A frozen index, the artifact of kind `index`, is one that nobody writes to any more: it is opened read-only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from windlass.apply.rag.indexes.embedded.quantised import Quantised, check_kind
from windlass.core.errors import DiskFull, InputError, NotFound, WorkspaceBusy, WorkspaceCorrupt, WorkspaceError
from windlass.core.files import sha256_json

FORMAT = 2
FILE = "index.db"
BUSY = 30.0
"""Seconds that a writer waits for another one."""

_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE state (
        version INTEGER NOT NULL, generation INTEGER NOT NULL, rows INTEGER NOT NULL,
        last_document INTEGER NOT NULL, last_passage INTEGER NOT NULL,
        documents INTEGER NOT NULL, passages INTEGER NOT NULL, oldest INTEGER NOT NULL, digest TEXT NOT NULL
    )""",
    # What is read when an index is opened stands first: SQLite need not follow a long row to its end.
    """CREATE TABLE documents (
        id INTEGER PRIMARY KEY, first INTEGER NOT NULL, passages INTEGER NOT NULL, row INTEGER NOT NULL,
        tokens BLOB NOT NULL, access TEXT, document TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, source TEXT NOT NULL,
        metadata TEXT NOT NULL, title TEXT NOT NULL, format TEXT NOT NULL, between_passages TEXT NOT NULL
    )""",
    "CREATE INDEX sources ON documents (source)",
    """CREATE TABLE passages (
        id INTEGER PRIMARY KEY, document INTEGER NOT NULL, title TEXT, heading TEXT NOT NULL,
        start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, context TEXT
    )""",
    "CREATE TABLE removed (version INTEGER NOT NULL, document INTEGER NOT NULL)",
    "CREATE TABLE pending (document INTEGER PRIMARY KEY, row INTEGER NOT NULL)",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY, level INTEGER NOT NULL, passages INTEGER NOT NULL)",
    """CREATE TABLE postings (
        segment INTEGER NOT NULL, term TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (segment, term)
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class IndexMeta:
    """What an index was made of. Kept inside the file, so that a copied folder still knows it."""

    embedder: str
    """Digest of the embedder whose vectors these are."""
    embedder_name: str
    dimension: int
    passages: int = 0
    documents: int = 0
    context: int = 120
    """Characters of `title > heading` above each passage, see `chunking.embedding_text`."""
    adapter: str | None = None
    """Digest of the adapter that was applied to the embedder's vectors."""
    corpus: str | None = None
    exam: str | None = None
    quantised: Quantised = ""
    """How candidates are found, see `embedded.quantised`; without it every vector is looked at."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        check_kind(self.quantised)


_COUNTED = ("passages", "documents")
"""Parts of `IndexMeta` that are counts of `State`, and not kept twice."""


@dataclass(frozen=True, slots=True)
class State:
    """Where the last commit left the index."""

    version: int = 0
    """Counts the commits."""
    generation: int = 1
    """Of the vectors file."""
    rows: int = 0
    """Of the vectors file, those of documents that are gone included."""
    last_document: int = 0
    last_passage: int = 0
    documents: int = 0
    passages: int = 0
    oldest: int = 0
    """Readers that know an older version than this must read everything anew: what was removed is forgotten."""
    digest: str = "0" * 64
    """Of the documents: the sum of their digests, so that it follows each of them and not their order."""

    def digested(self, document: str, digest: str, sign: int = 1) -> str:
        """The `digest` with a document more, or with `sign` -1 without it."""
        one = int.from_bytes(hashlib.sha256(f"{document}\0{digest}".encode()).digest())
        return f"{(int(self.digest, 16) + sign * one) % (1 << 256):064x}"


def version_digest(meta: IndexMeta, state: State) -> str:
    """Of an index that is no artifact: of its documents' digests and of who made the vectors."""
    return sha256_json([state.digest, meta.embedder, meta.adapter, meta.dimension, meta.context])


def create(db: sqlite3.Connection, meta: IndexMeta) -> None:
    """The empty index, inside the transaction of the caller."""
    for statement in _SCHEMA:
        db.execute(statement)
    write_meta(db, meta)
    db.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(State()))


def write_meta(db: sqlite3.Connection, meta: IndexMeta) -> None:
    kept = [field.name for field in fields(meta) if field.name not in _COUNTED]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(getattr(meta, key))) for key in kept])


def read_meta(db: sqlite3.Connection, folder: Path) -> IndexMeta:
    """Raises `InputError` for an index of another format, `WorkspaceCorrupt` for what is none."""
    known: dict[str, Any] = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
    if known.get("format") != FORMAT:
        raise InputError(
            f"{folder / FILE} has index format {known.get('format')}, this windlass reads format {FORMAT}.",
            "Build the index again from its corpus, or ingest its documents into a new one.",
        )
    state = read_state(db, folder)
    known.pop("pending", None)
    return IndexMeta(**known, passages=state.passages, documents=state.documents)


def write_state(db: sqlite3.Connection, state: State) -> None:
    db.execute(
        "UPDATE state SET version = ?, generation = ?, rows = ?, last_document = ?, last_passage = ?, documents = ?,"
        " passages = ?, oldest = ?, digest = ?",
        astuple(state),
    )


def read_state(db: sqlite3.Connection, folder: Path) -> State:
    row = db.execute("SELECT * FROM state").fetchone()
    if row is None:
        raise damaged(folder, "a part is missing")
    return State(*row)


def open_frozen(folder: Path) -> sqlite3.Connection:
    """Read-only, for a file that nobody writes to."""
    path = _there(folder)
    with sqlite_errors(path):
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            pages, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            if path.stat().st_size < pages * size:
                raise damaged(folder, "it is cut short")
        except BaseException:
            db.close()
            raise
    return db


def open_live(folder: Path) -> sqlite3.Connection:
    """For reading and writing beside other processes. What is committed is on the disk."""
    path = _there(folder)
    with sqlite_errors(path):
        db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
    return db


def is_live(folder: Path) -> bool:
    """Whether the file may have its last commits beside it: SQLite says so in bytes 18 and 19 of the header."""
    with _there(folder).open("rb") as file:
        return file.read(20)[18:20] == b"\x02\x02"


def describe(folder: Path) -> IndexMeta:
    """What the index in a folder was made of, live or frozen."""
    live = is_live(folder)
    with sqlite_errors(folder / FILE), contextlib.closing(open_live(folder) if live else open_frozen(folder)) as db:
        return read_meta(db, folder)


def _there(folder: Path) -> Path:
    path = folder / FILE
    if not path.is_file():
        raise NotFound(
            f"There is no index at {path}.", "`windlass index build CORPUS` or `windlass ingest PATH` makes one."
        )
    return path


def damaged(folder: Path, why: str) -> WorkspaceCorrupt:
    return WorkspaceCorrupt(
        f"The index {folder / FILE} is damaged: {why}.",
        "Restore its folder, or make the index again from its documents.",
    )


def storable(text: str) -> str:
    """SQLite stores UTF-8: lone surrogates, which no valid text has, become question marks of the same length."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary == sqlite3.SQLITE_FULL or "full" in str(error):
            raise DiskFull(
                f"No space left on the disk that holds {path}.",
                "Free some space and run the same command again; what was finished before is kept.",
            ) from error
        if primary == sqlite3.SQLITE_IOERR:  # also of a reader, whose index of the log finds no room on a full disk
            raise WorkspaceError(
                f"The disk does not let the index {path} be used ({error}).",
                "See whether it is full, or failing. The index itself may well be whole.",
            ) from error
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise WorkspaceBusy(
                f"Another process has been writing to {path} for more than {BUSY:g} s.",
                "Wait until it has finished, or stop it, and try again.",
            ) from error
        if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            raise WorkspaceError(
                f"The index {path} cannot be used: {error}.", "Check that the file and its folder may be written."
            ) from error
        raise WorkspaceCorrupt(
            f"The index file {path} is damaged or no index ({error}).",
            "Restore its folder, or make the index again from its documents.",
        ) from error

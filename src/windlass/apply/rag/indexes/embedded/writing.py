"""Writing an index: one transaction at a time, documents whole.

SQLite's own write lock lets one writer in; the others wait. Inside of it the vectors are appended and synced, then the
database says that they are there.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from windlass.apply.rag.chunking import context_of
from windlass.apply.rag.indexes.embedded import postings
from windlass.apply.rag.indexes.embedded.cells import remove_cells
from windlass.apply.rag.indexes.embedded.layout import (
    BUSY,
    FILE,
    IndexMeta,
    State,
    create,
    read_meta,
    read_state,
    sqlite_errors,
    storable,
    write_state,
)
from windlass.apply.rag.indexes.embedded.vector_file import Vectors, append, mapped, remove_others
from windlass.apply.rag.indexes.terms import Tokenizer
from windlass.core.documents import Document, Entry, Passage
from windlass.core.errors import InputError
from windlass.core.sqlite import patiently

_DEAD = 0.3
"""Share of rows without a passage above which the vectors are written anew."""
_FEW = 4096
"""So few dead rows are not worth it."""
_BLOCK = 16_384
"""Passages of one segment of a frozen index."""


@contextlib.contextmanager
def writing(db: sqlite3.Connection, folder: Path) -> Iterator[None]:
    """A transaction of the only writer: committed and on the disk when the block ends, undone when it raises."""
    with sqlite_errors(folder / FILE):
        db.execute("PRAGMA busy_timeout = 250")
        patiently(db, "BEGIN IMMEDIATE", BUSY)
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                    db.execute("ROLLBACK")
            raise


def make_live(folder: Path, meta: IndexMeta) -> None:
    """Makes the empty index in a folder where there is none yet, also where another process died at it."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    with sqlite_errors(path), contextlib.closing(sqlite3.connect(path, timeout=0.25, isolation_level=None)) as db:
        if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return
        patiently(db, "PRAGMA journal_mode = WAL", BUSY)
        with writing(db, folder):
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:  # else another one was faster
                create(db, meta)


def write_frozen(folder: Path, meta: IndexMeta, entries: Iterable[Entry]) -> IndexMeta:
    """Writes a whole index into an empty folder that is a draft: synced, or thrown away, by who made it. The same
    entries give the same bytes. Returns `meta` with the counts."""
    with sqlite_errors(folder / FILE), contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        create(db, meta)
        tokenizer = Tokenizer()
        for batch in _batches(entries):
            put(db, folder, meta, batch, tokenizer, synced=False)
        write_state(db, replace(read_state(db, folder), version=1))
        db.execute("COMMIT")
        return read_meta(db, folder)


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry.passages)
        if size >= _BLOCK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# inside a transaction -----------------------------------------------------------------------------------------------


def put(
    db: sqlite3.Connection,
    folder: Path,
    meta: IndexMeta,
    entries: Sequence[Entry],
    tokenizer: Tokenizer,
    *,
    synced: bool = True,
) -> None:
    """Adds documents, in place of those of the same ids."""
    check(entries, meta)
    remove(db, folder, [entry.document.id for entry in entries])
    state = read_state(db, folder)
    made = _Rows(state)
    for entry in entries:
        made.add(entry, meta)
    vectors = (entry.vectors for entry in entries)
    at = append(folder, state.generation, state.rows, vectors, meta.quantised, synced=synced)
    db.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", made.passages)
    tokens = postings.add(db, made.words, tokenizer).astype("<i4")
    first = 0
    for row, entry in zip(made.documents, entries, strict=True):
        row[4] = tokens[first : first + len(entry.passages)].tobytes()
        first += len(entry.passages)
    db.executemany(f"INSERT INTO documents VALUES ({', '.join('?' * 13)})", made.documents)
    write_state(
        db,
        replace(
            state,
            version=state.version + 1,
            rows=at,
            last_document=made.document,
            last_passage=made.passage,
            documents=state.documents + len(entries),
            passages=state.passages + len(made.passages),
            digest=made.state.digest,
        ),
    )
    postings.merge(db)


def remove(db: sqlite3.Connection, folder: Path, names: Iterable[str]) -> int:
    """Removes documents; returns how many there were."""
    state = read_state(db, folder)
    documents = passages = 0
    for name in dict.fromkeys(names):
        found = db.execute(
            "SELECT id, first, passages, digest FROM documents WHERE document = ?", (storable(name),)
        ).fetchone()
        if found is None:
            continue
        number, first, count, digest = found
        state = replace(state, digest=state.digested(storable(name), digest, -1))
        span = (first, first + count)
        db.execute("DELETE FROM passages WHERE id >= ? AND id < ?", span)
        db.execute("DELETE FROM documents WHERE id = ?", (number,))
        db.execute("DELETE FROM pending WHERE document = ?", (number,))
        db.execute("INSERT INTO removed VALUES (?, ?)", (state.version + 1, number))
        documents, passages = documents + 1, passages + count
    if documents:
        made = replace(
            state,
            version=state.version + 1,
            documents=state.documents - documents,
            passages=state.passages - passages,
        )
        write_state(db, made)
    return documents


def tidy(db: sqlite3.Connection, folder: Path, meta: IndexMeta) -> None:
    """Gives the vectors a file without dead rows when there are many of them, and forgets what was removed when that
    is more to read than what is there."""
    state = read_state(db, folder)
    if state.rows - state.passages > max(_FEW, _DEAD * state.rows):
        compact(db, folder, meta)
    elif db.execute("SELECT count(*) FROM removed").fetchone()[0] > max(_FEW, state.documents):
        db.execute("DELETE FROM removed")
        write_state(db, replace(state, oldest=state.version))


def compact(db: sqlite3.Connection, folder: Path, meta: IndexMeta) -> None:
    """A vectors file that holds the rows of all passages, in their order, and nothing else."""
    state = read_state(db, folder)
    old = mapped(folder, state.generation, state.rows, meta.dimension)
    held = db.execute("SELECT id, row, passages FROM documents ORDER BY id").fetchall()
    generation = new_generation(db, folder)
    remove_others(folder, state.generation, pending(db))  # else its rows could be those of a killed writer
    after = append(folder, generation, 0, (old[row : row + count] for _, row, count in held), meta.quantised)
    at, moved = 0, []
    for number, _, count in held:
        moved.append((at, number))
        at += count
    if at != after:
        raise ValueError(f"{after} rows were written for {at} passages")
    switch(db, folder, moved, after)
    postings.rewrite(db)


def new_generation(db: sqlite3.Connection, folder: Path) -> int:
    """A number that no file that counts has: neither the vectors in use nor those that are being made."""
    return 1 + max(read_state(db, folder).generation, pending(db) or 0)


def pending(db: sqlite3.Connection) -> int | None:
    """The generation of vectors that are being made, see `reembedding`."""
    found = db.execute("SELECT value FROM meta WHERE key = 'pending'").fetchone()
    return None if found is None else int(json.loads(found[0])["generation"])


def switch(
    db: sqlite3.Connection, folder: Path, rows: Iterable[tuple[int, int]], after: int, generation: int | None = None
) -> None:
    """Lets documents have their vectors in another file. `rows`: row and document id; `after`: the file's rows."""
    state = read_state(db, folder)
    db.executemany("UPDATE documents SET row = ? WHERE id = ?", rows)
    db.execute("DELETE FROM removed")
    version = state.version + 1
    generation = new_generation(db, folder) if generation is None else generation
    write_state(db, replace(state, version=version, generation=generation, rows=after, oldest=version))


def sweep(db: sqlite3.Connection, folder: Path) -> None:
    """Removes vectors files that the last commit does not name, and cells of others; in a transaction, so that none is
    being written."""
    generation = read_state(db, folder).generation
    remove_others(folder, generation, pending(db))
    remove_cells(folder, generation)


# what is written ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Rows:
    """Rows of the tables for entries that are added after a state."""

    state: State
    documents: list[list[object]] = field(default_factory=list)
    passages: list[tuple[object, ...]] = field(default_factory=list)
    words: list[tuple[int, str, str]] = field(default_factory=list)
    document: int = 0
    passage: int = 0
    row: int = 0

    def __post_init__(self) -> None:
        self.document, self.passage, self.row = self.state.last_document, self.state.last_passage, self.state.rows

    def add(self, entry: Entry, meta: IndexMeta) -> None:
        document, passages = entry.document, entry.passages
        title = storable(passages[0].title if passages else document.title)
        metadata = json.dumps(document.metadata, ensure_ascii=False, sort_keys=True)
        access = json.dumps(sorted(document.access)) if document.access else None
        self.document += 1
        self.state = replace(self.state, digest=self.state.digested(storable(document.id), storable(entry.digest)))
        about = (document.id, entry.digest, document.source, metadata, title, document.format, between(entry))
        self.documents.append(
            [self.document, self.passage + 1, len(passages), self.row, b"", access, *map(storable, about)]
        )
        for passage in passages:
            self.passage += 1
            own, heading, text, context = map(storable, (passage.title, passage.heading, passage.text, passage.context))
            named = None if own == title else own
            span = (passage.start, passage.end)
            self.passages.append((self.passage, self.document, named, heading, *span, text, context or None))
            self.words.append((self.passage, above_of(own, heading, context, meta), text))
        self.row += len(passages)


def check(entries: Sequence[Entry], meta: IndexMeta) -> None:
    """Raises `InputError` for an entry that is not what an index holds."""
    seen: set[str] = set()
    for entry in entries:
        document = entry.document
        if document.id in seen:
            raise InputError(f"Document '{document.id}' is to be put twice at once.", "Put its newest version.")
        seen.add(document.id)
        if entry.embedder not in ("", meta.embedder):
            raise InputError(
                f"Document '{document.id}' comes with vectors of the embedder {entry.embedder[:12]}, but the index has "
                f"those of {meta.embedder_name} ({meta.embedder[:12]}).",
                "The index may have been embedded anew meanwhile: open it with its embedder, and embed again.",
            )
        wanted = (len(entry.passages), meta.dimension)
        if entry.vectors.shape != wanted or not np.isfinite(entry.vectors).all():
            raise InputError(
                f"Document '{document.id}' comes with vectors of shape {entry.vectors.shape} or values that are not "
                f"finite; the index needs {wanted[0]} rows of {wanted[1]}.",
                f"Embed its passages with {meta.embedder_name}.",
            )
        for passage in entry.passages:
            if passage.document != document.id or passage.text != document.text[passage.start : passage.end]:
                raise InputError(
                    f"A passage of '{passage.document}', characters {passage.start}-{passage.end}, does not stand "
                    f"there in document '{document.id}'.",
                    "Cut the document again.",
                )


def between(entry: Entry) -> str:
    """The characters of a document that are in no passage, in order: `whole` puts both together again."""
    parts, at = [], 0
    for start, end in sorted((passage.start, passage.end) for passage in entry.passages):
        parts.append(entry.document.text[at : max(start, at)])
        at = max(at, end)
    return "".join([*parts, entry.document.text[at:]])


def whole(passages: Iterable[tuple[int, int, str]], between_passages: str) -> str:
    """The text of a document, from `start`, `end` and text of its passages and what stands between them."""
    parts, at, used = [], 0, 0
    for start, end, text in sorted(passages):
        if start > at:
            parts.append(between_passages[used : used + start - at])
            used, at = used + start - at, start
        if end > at:
            parts.append(text[at - start :])
            at = end
    return "".join([*parts, between_passages[used:]])


def above_of(title: str, heading: str, context: str, meta: IndexMeta) -> str:
    """What is searched with a passage besides its text."""
    return context_of(Passage("", title, heading, 0, 0, "", context), meta.context)


def held_entries(db: sqlite3.Connection, vectors: Vectors, which: str = "TRUE") -> Iterator[Entry]:
    """What an index holds, as it was put, in the order of the ids; without the documents' sections. `which`: a
    condition in SQL. `vectors`: all rows of the file, or none."""
    documents = db.execute(
        "SELECT first, passages, row, document, digest, source, metadata, title, format, between_passages"
        f" FROM documents WHERE {which} ORDER BY id"
    )
    for first, count, row, name, digest, source, metadata, title, form, rest in documents:
        found = db.execute(
            "SELECT title, heading, start, \"end\", text, ifnull(context, '') FROM passages WHERE id >= ? AND id < ?"
            " ORDER BY id",
            (first, first + count),
        ).fetchall()
        text = whole(((start, end, said) for _, _, start, end, said, _ in found), rest)
        yield Entry(
            Document(name, source, title, text, form, (), json.loads(metadata)),
            digest,
            [Passage(name, title if own is None else own, *cut) for own, *cut in found],
            vectors[row : row + count],
        )

"""The living index: the embedded one, written to while it is searched, in a folder of its own.

Every search reads one version from beginning to end: a read transaction of SQLite, and the arrays that belong to it.
When a commit came, of this process or of another, the next search notices and reads what has changed.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded import writing
from windlass.apply.rag.indexes.embedded.cells import LEAST, Made, remove_cells, write_cells
from windlass.apply.rag.indexes.embedded.layout import IndexMeta, read_meta, read_state, write_meta, write_state
from windlass.apply.rag.indexes.embedded.quantised import Quantised
from windlass.apply.rag.indexes.embedded.reading import Connection, Connections, Reading
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.search import HybridIndex, check_embedder
from windlass.apply.rag.indexes.terms import Tokenizer
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Entry
from windlass.core.errors import InputError, WorkspaceCorrupt
from windlass.core.files import disk_errors, exclusive, write_json
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder, Hit
from windlass.core.values import Citation
from windlass.core.workspace import Workspace

T = TypeVar("T")
CELLS_LOCK = "cells.lock"
_ASKED, _PIECE = 400, 60
"""Questions by which cells are measured, and their characters."""


def open_live(
    folder: Path,
    embedder: Embedder,
    settings: SearchSettings | None = None,
    *,
    context: int = 120,
    quantised: Quantised = "",
    old: Embedder | None = None,
) -> EmbeddedIndex:
    """Opens the index in a folder, and makes it when there is none.

    For a new one: `context`, characters of title and headings that are searched above each passage; `quantised`, how
    candidates are found where the vectors are too many to be looked at (`embedded.quantised`). `old`: the
    embedder that the index has until it was embedded anew (`embedded.reembedding`); it is searched with either. Raises
    `InputError` when the index holds vectors of another one.
    """
    with disk_errors(folder):
        parts = (embedder.digest, embedder.name, embedder.dimension)
        writing.make_live(folder, IndexMeta(*parts, context=context, quantised=quantised))
    return EmbeddedIndex(folder, [embedder] if old is None else [embedder, old], settings or SearchSettings())


class EmbeddedIndex:
    """Implements `windlass.core.protocols.LiveIndex`. Safe to share between threads; any number of processes may have
    the same folder open, one of them writes at a time."""

    def __init__(self, folder: Path, embedders: Sequence[Embedder], settings: SearchSettings) -> None:
        self.folder = folder
        self.settings = settings
        self._embedders = {embedder.digest: embedder for embedder in embedders}
        self._connections = Connections(folder)
        self._tokenizer = Tokenizer()
        self._refreshing = threading.Lock()
        self._newest: HybridIndex | None = None
        """Of the last version that was read. Its connection belongs to whoever read it: only copies are searched."""
        try:
            with self.reading():
                pass
        except BaseException:
            self.close()
            raise

    @property
    def embedder(self) -> Embedder:
        with self.reading() as index:
            return index.embedder

    @property
    def meta(self) -> IndexMeta:
        with self.reading() as index:
            return index.meta

    @property
    def digest(self) -> str:
        with self.reading() as index:
            return index.digest

    def __len__(self) -> int:
        with self.reading() as index:
            return len(index)

    def with_settings(self, settings: SearchSettings) -> EmbeddedIndex:
        """The same open index, ranked another way."""
        other = copy(self)
        other.settings, other._refreshing = settings, threading.Lock()
        other._newest = None if self._newest is None else self._newest.with_settings(settings)
        return other

    def close(self) -> None:
        self._connections.close()
        self._newest = None  # and with it the map of the vectors

    # reading --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[HybridIndex]:
        """The index as it is now, and as it stays while the block runs, whoever writes. To be left soon: what is
        removed meanwhile stays on the disk until then."""
        with self._read() as (_, index):
            yield index

    @contextlib.contextmanager
    def _read(self) -> Iterator[tuple[Connection, HybridIndex]]:
        with self._connections.lent() as connection:
            try:
                index = self._begun(connection)
                yield connection, index.bound(connection.query)
            finally:
                if connection.db.in_transaction:
                    connection.query("ROLLBACK")

    def _begun(self, connection: Connection) -> HybridIndex:
        """Begins a transaction; returns the index of the version that it sees."""
        tried = -1
        while True:
            connection.query("BEGIN")
            version = int(connection.query("SELECT version FROM state")[0][0])
            known = self._newest
            if known is None or version > known.at.contents.state.version:
                try:
                    return self._refreshed(connection, version)
                except WorkspaceCorrupt:
                    # A writer may have given the vectors another file since the transaction began: once more, then.
                    if tried == version:
                        raise
                    tried = version
            elif version == known.at.contents.state.version:
                return known
            connection.query("ROLLBACK")  # another thread has seen a later version: so will the next transaction

    def _refreshed(self, connection: Connection, version: int) -> HybridIndex:
        with self._refreshing:
            before = self._newest
            seen = -1 if before is None else before.at.contents.state.version
            if before is not None and seen == version:
                return before
            made = self._made(connection, None if seen > version else before)
            if seen < version:
                self._newest = made
            return made

    def _made(self, connection: Connection, before: HybridIndex | None) -> HybridIndex:
        """The index of the version that the connection sees, from the one before."""
        reading = Reading.of(connection, self.folder, None if before is None else before.at)
        embedder = self._embedders.get(reading.meta.embedder) or next(iter(self._embedders.values()))
        check_embedder(reading, embedder, None)
        if before is None:
            return HybridIndex(reading, embedder, self.settings)
        lexical = before.lexical.advanced(connection.query, reading.contents)
        return HybridIndex(reading, embedder, self.settings, lexical=lexical)

    # searching ------------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        vectors = None if vector is None else vector[None]
        return self.search_many([query], k, where, access=access, vectors=vectors)[0]

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        """As `search` for each query, all in the same version. `vectors` are the queries' own, when they are known."""
        # Questions are embedded before the transaction begins, as that may take long; and again, when the index turns
        # out to have another embedder by then.
        by, vectors = self._embedded(queries) if vectors is None else (None, vectors)
        with self.reading() as index:
            known = vectors if by in (None, index.embedder.digest) else None
            return index.search_many(queries, k, where, access=access, vectors=known)

    def _embedded(self, queries: Sequence[str]) -> tuple[str | None, NDArray[np.float32] | None]:
        if (index := self._newest) is None:
            return None, None
        return index.embedder.digest, index.embed(queries).vectors

    def coverage(self, query: str, passages: Sequence[int]) -> float:
        """As `HybridIndex.coverage`."""
        with self.reading() as index:
            return index.coverage(query, passages)

    # documents ------------------------------------------------------------------------------------------------------

    def held(self) -> Mapping[str, str]:
        with self._connections.lent() as connection:
            return dict(connection.query("SELECT document, digest FROM documents ORDER BY id"))

    @property
    def characters(self) -> int:
        """Of all passages together."""
        with self.reading() as index:
            return index.characters

    def passages(self, where: Mapping[str, Any] | None = None, access: Collection[str] = ()) -> list[Citation]:
        """As `HybridIndex.passages`."""
        with self.reading() as index:
            return index.passages(where, access)

    def citations(self, passages: Sequence[int]) -> list[Citation]:
        """The passages with these ids as quotations, in the order asked for. Raises `NotFound`."""
        with self.reading() as index:
            return index.citations(passages)

    def passages_around(self, passage: int, before: int = 1, after: int = 1) -> list[Citation]:
        with self.reading() as index:
            return index.passages_around(passage, before, after)

    def document_of(self, passage: int) -> Document:
        with self.reading() as index:
            return index.document_of(passage)

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]:
        with self.reading() as index:
            return index.vectors_of(passages)

    def metadata_of(self, documents: Sequence[str]) -> list[Mapping[str, Any]]:
        """The metadata of documents, in the order asked for. Raises `NotFound`."""
        with self.reading() as index:
            return index.metadata_of(documents)

    def facets(self, access: Collection[str] = ()) -> Mapping[str, Sequence[Any]]:
        """As `HybridIndex.facets`."""
        with self.reading() as index:
            return index.facets(access)

    # writing --------------------------------------------------------------------------------------------------------

    def put(self, entries: Iterable[Entry]) -> None:
        made = list(entries)  # before the lock: they may take long to make
        if not made:
            return
        if len(self._embedders) > 1 and not all(entry.embedder for entry in made):
            raise InputError(
                "This index is on its way to another embedder: entries must say whose vectors they have.",
                "Set `Entry.embedder`.",
            )
        self._write(lambda db, meta: self._put(db, meta, made))

    def _put(self, db: sqlite3.Connection, meta: IndexMeta, entries: Sequence[Entry]) -> None:
        if meta.embedder not in self._embedders:
            raise InputError(
                f"The index {self.folder} has been embedded anew with {meta.embedder_name} ({meta.embedder[:12]}).",
                "Open it with that embedder.",
            )
        writing.put(db, self.folder, meta, entries, self._tokenizer)

    def delete(self, documents: Iterable[str]) -> int:
        names = list(documents)
        return self._write(lambda db, meta: writing.remove(db, self.folder, names))

    def compact(self) -> None:
        """Writes the vectors anew without rows that no passage has any more, and gives free pages back. The vectors
        are compacted now and then anyway; this is for the disk's sake."""
        self._write(lambda db, meta: writing.compact(db, self.folder, meta))
        self._write(lambda db, meta: None)  # which sweeps up the file before
        with self._connections.lent() as connection:
            connection.query("VACUUM")
            connection.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def requantise(self, kind: Quantised) -> None:
        """Gives the vectors quantised ones of another kind beside them (`embedded.quantised`), or none with "". Raises
        `InputError` while the index is being embedded anew."""

        def change(db: sqlite3.Connection, meta: IndexMeta) -> bool:
            if meta.quantised == kind:
                return False
            if writing.pending(db) is not None:
                raise InputError(f"The index {self.folder} is being embedded anew.", "Let that finish first.")
            changed = replace(meta, quantised=kind)
            writing.compact(db, self.folder, changed)
            write_meta(db, changed)
            return True

        if self._write(change):
            self._write(lambda db, meta: None)  # which sweeps up the files before

    def make_cells(self, *, recall: float = 0.98, least: int = LEAST, progress: Progress | None = None) -> Made:
        """Makes the cache by which a search looks at a few of very many vectors (`embedded.cells`), in place of the one
        that there is. It is searched and written to meanwhile.

        `recall`: how many of the ten nearest are to be found. It is measured with some words of some passages, embedded
        as questions are: those lie apart from passages, and have to be looked for further. What is put later is looked
        at whole, until cells are made again. Raises `InputError` for an index of fewer than `least` passages, which is
        not worth it, and when its vectors were written anew meanwhile; `WorkspaceBusy` while another process makes
        them.
        """
        with exclusive(self.folder / CELLS_LOCK, "making the cells of this index"), disk_errors(self.folder):
            with self.reading() as index:
                at, embedder, pieces = index.at, index.embedder, _pieces(index)
            rows = np.arange(at.contents.state.rows) if at.contents.rows is None else np.sort(at.contents.rows)
            if len(rows) < max(least, 1):
                raise InputError(
                    f"The index {self.folder} holds {len(rows):,} passages: all of them are looked at in milliseconds.",
                    f"Cells are for {max(least, 1):,} and more.",
                )
            for left in self.folder.glob(".cells-*.tmp"):  # by one who was killed: nobody else is at it now
                left.unlink(missing_ok=True)
            generation, queries = at.contents.state.generation, embedder.embed(pieces, "query").vectors
            made = write_cells(self.folder, generation, at.vectors, rows, queries, recall=recall, progress=progress)
        if not self._write(lambda db, meta: self._noticed(db, generation)):
            raise InputError(f"The vectors of {self.folder} were written anew meanwhile.", "Make the cells again.")
        return made

    @property
    def cells(self) -> Made | None:
        """What is known of that cache; None without one that can be used."""
        with self.reading() as index:
            return None if index.at.cells is None else index.at.cells.made

    def drop_cells(self) -> bool:
        """Removes that cache: all vectors are looked at again. Returns whether there was one."""

        def drop(db: sqlite3.Connection, meta: IndexMeta) -> bool:
            there = remove_cells(self.folder)
            self._noticed(db, read_state(db, self.folder).generation)
            return there

        return self._write(drop)

    def _noticed(self, db: sqlite3.Connection, generation: int) -> bool:
        """Lets all who have the index open look at its files again, if its vectors are still those."""
        state = read_state(db, self.folder)
        write_state(db, replace(state, version=state.version + 1))
        return state.generation == generation

    def _write(self, work: Callable[[sqlite3.Connection, IndexMeta], T]) -> T:
        with self._connections.lent() as connection, writing.writing(connection.db, self.folder):
            meta = read_meta(connection.db, self.folder)
            writing.sweep(connection.db, self.folder)
            done = work(connection.db, meta)
            writing.tidy(connection.db, self.folder, meta)
        return done

    def snapshot(self, ws: Workspace, name: str) -> Artifact:
        """Freezes what it holds now as an artifact of the kind `index`, without what was removed."""
        with self._read() as (connection, index), ws.artifacts.build("index", name) as draft:
            entries = writing.held_entries(connection.db, index.at.vectors)
            meta = writing.write_frozen(draft.path, index.meta, entries)
            write_json(draft.path / "index.json", asdict(meta))
            draft.card.update(documents=meta.documents, passages=meta.passages)
        return draft.done


def _pieces(index: HybridIndex) -> list[str]:
    """Some words each of some passages, that stand for questions."""
    draw = np.random.default_rng(0)
    chosen = draw.choice(index.at.contents.ids, min(_ASKED, len(index)), replace=False)
    texts = [citation.quote for citation in index.citations([int(passage) for passage in chosen])]
    starts = [int(draw.integers(0, max(1, len(text) - _PIECE))) for text in texts]
    return [text[start : start + _PIECE].strip() or text for text, start in zip(texts, starts, strict=True)]

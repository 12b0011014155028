"""An index as a search sees it: one version, through one connection."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.cells import Cells, made_of, mapped_cells
from windlass.apply.rag.indexes.embedded.columns import Columns, Filters
from windlass.apply.rag.indexes.embedded.contents import Contents, read
from windlass.apply.rag.indexes.embedded.layout import FILE, IndexMeta, open_live, read_meta, sqlite_errors
from windlass.apply.rag.indexes.embedded.lexical import Query
from windlass.apply.rag.indexes.embedded.vector_file import Vectors, mapped, mapped_quantised
from windlass.apply.rag.indexes.embedded.writing import whole
from windlass.core.documents import Document
from windlass.core.errors import NotFound
from windlass.core.values import Citation

_MANY = 500
"""Values in one statement."""


class Connection:
    """A connection that threads may share, one statement after the other."""

    def __init__(self, db: sqlite3.Connection, folder: Path) -> None:
        self.db = db
        self._path = folder / FILE
        self._lock = threading.Lock()

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, sqlite_errors(self._path):
            return self.db.execute(sql, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self.db.close()


class Connections:
    """Connections to a live index, lent for one piece of work each. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._process = os.getpid()
        self._closed = False

    @contextlib.contextmanager
    def lent(self) -> Iterator[Connection]:
        with self._lock:
            if self._process != os.getpid():  # connections must not cross a fork
                self._idle, self._process = [], os.getpid()
            connection = self._idle.pop() if self._idle else None
        connection = connection or Connection(open_live(self._folder), self._folder)
        try:
            yield connection
        finally:
            with self._lock:
                keep = not self._closed and not connection.db.in_transaction
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def close(self) -> None:
        """Closes those that are not lent now; the others when they come back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()


@dataclass(frozen=True)
class Reading:
    folder: Path
    meta: IndexMeta
    contents: Contents
    vectors: Vectors
    """All rows of the vectors file, mapped: those without a passage too."""
    quantised: NDArray[np.uint8] | None
    """The same rows, quantised, of an index that has them."""
    cells: Cells | None
    """Of the vectors, if they were made for them (`windlass index ann`)."""
    filters: Filters
    columns: Columns
    query: Query

    @classmethod
    def of(cls, connection: Connection, folder: Path, before: Reading | None = None) -> Reading:
        """The version that the connection sees. Inside a transaction when others may write."""
        with sqlite_errors(folder / FILE):
            meta = read_meta(connection.db, folder)
            contents = read(connection.db, folder, None if before is None else before.contents)
        state = contents.state
        place = (state.generation, state.rows, meta.dimension)
        if (
            before is not None
            and before.contents.state.generation == state.generation
            and len(before.vectors) == state.rows
        ):
            vectors, quantised = before.vectors, before.quantised
        else:
            vectors = mapped(folder, *place)
            quantised = mapped_quantised(folder, *place, meta.quantised) if meta.quantised else None
        cells = None if before is None else before.cells
        if made_of(folder, state.generation) != (cells and cells.made):
            cells = mapped_cells(folder, state.generation)
        if cells is not None and cells.made.rows > state.rows:
            cells = None  # made of a later version than this one
        columns = Columns() if before is None else before.columns
        filters = Filters(contents, columns)
        return cls(folder, meta, contents, vectors, quantised, cells, filters, columns, connection.query)

    def bound(self, query: Query) -> Reading:
        """The same version through another connection."""
        return replace(self, query=query)

    # passages and documents -----------------------------------------------------------------------------------------

    def citations(self, passages: Sequence[int]) -> list[Citation]:
        """The passages with these ids as quotations, in the order asked for. Raises `NotFound`."""
        found: dict[int, Citation] = {}
        for at in range(0, len(passages), _MANY):
            some = tuple(passages[at : at + _MANY])
            rows = self.query(
                'SELECT p.id, d.document, ifnull(p.title, d.title), p.heading, p.start, p."end", p.text, d.source'
                f" FROM passages p JOIN documents d ON d.id = p.document WHERE p.id IN ({_marks(some)})",
                some,
            )
            found.update((row[0], Citation(*row[1:])) for row in rows)
        try:
            return [found[passage] for passage in passages]
        except KeyError as error:
            raise _gone(error.args[0]) from None

    def around(self, passage: int, before: int, after: int) -> list[Citation]:
        first, count, _ = self._owner(passage)
        return self.citations(range(max(first, passage - before), min(first + count, passage + after + 1)))

    def document(self, passage: int) -> Document:
        first, count, number = self._owner(passage)
        ((name, source, metadata, title, form, rest),) = self.query(
            "SELECT document, source, metadata, title, format, between_passages FROM documents WHERE id = ?", (number,)
        )
        cut = self.query('SELECT start, "end", text FROM passages WHERE id >= ? AND id < ?', (first, first + count))
        text = whole(((start, end, said) for start, end, said in cut), rest)
        return Document(name, source, title, text, form, (), json.loads(metadata))

    def _owner(self, passage: int) -> tuple[int, int, int]:
        rows = self.query(
            "SELECT d.first, d.passages, d.id FROM passages p JOIN documents d ON d.id = p.document WHERE p.id = ?",
            (passage,),
        )
        if not rows:
            raise _gone(passage)
        first, count, number = rows[0]
        return first, count, number

    def vectors_of(self, passages: Sequence[int]) -> Vectors:
        wanted = np.asarray(passages, np.int64)
        at, kept = self.contents.places(np.sort(wanted))
        if not kept.all():
            raise _gone(int(np.sort(wanted)[~kept][0]))
        at = at[np.argsort(np.argsort(wanted, kind="stable"), kind="stable")]
        return self.vectors[at if self.contents.rows is None else self.contents.rows[at]]

    def metadata(self, documents: Sequence[str]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        names = list(dict.fromkeys(documents))
        for at in range(0, len(names), _MANY):
            some = tuple(names[at : at + _MANY])
            rows = self.query(f"SELECT document, metadata FROM documents WHERE document IN ({_marks(some)})", some)
            found.update((name, json.loads(metadata)) for name, metadata in rows)
        for name in names:
            if name not in found:
                raise NotFound(f"There is no document '{name}' in the index.", "It may have been removed meanwhile.")
        return [found[name] for name in documents]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _gone(passage: int) -> NotFound:
    return NotFound(f"There is no passage {passage} in the index.", "It may have been removed meanwhile: search again.")

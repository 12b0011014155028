"""`PostgresIndex`: a `LiveIndex` whose passages lie in a PostgreSQL database. It ranks as the embedded index does."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.asked import asked
from windlass.apply.rag.indexes.embedded.layout import IndexMeta
from windlass.apply.rag.indexes.fusion import Ranked, SearchSettings, alone
from windlass.apply.rag.indexes.postgres import searching, writing
from windlass.apply.rag.indexes.postgres.connection import Connection, Database
from windlass.apply.rag.indexes.postgres.filtering import Allowed, allowed_by, condition_of, labels_of
from windlass.apply.rag.indexes.postgres.schema import opened, schema_of
from windlass.apply.rag.indexes.postgres.searching import State
from windlass.apply.rag.indexes.terms import FUNCTION_WORDS, Tokenizer, idf_of
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Entry
from windlass.core.errors import InputError, NotFound, Unsupported
from windlass.core.files import sha256_json
from windlass.core.protocols import Embedder, Hit
from windlass.core.values import Citation
from windlass.core.workspace import Workspace

_GRAPH_DIMENSION = 2000
"""pgvector's HNSW takes no longer vectors; they are searched one by one."""


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How an index in PostgreSQL works, besides how it ranks."""

    exact_below: int = 20_000
    """Up to so many passages, of the index or of those that a filter leaves, are searched one by one. Above it a graph
    (HNSW) is made of the vectors, which finds nearly all of the nearest."""
    ef_search: int = 200
    """How many of the nearest the graph looks for: more finds more of them, slower."""
    connections: int = 8
    """At most, from this process; more threads wait for one another."""
    timeout_s: float = 10.0
    """For connecting."""

    def __post_init__(self) -> None:
        if self.exact_below < 1 or not 1 <= self.ef_search <= 1000 or self.connections < 1 or self.timeout_s <= 0:
            raise InputError(
                "Settings of an index in PostgreSQL need exact_below >= 1, ef_search of 1 to 1000, connections >= 1 "
                "and timeout_s > 0."
            )


class PostgresIndex:
    """Implements `windlass.core.protocols.LiveIndex`. Safe to share between threads.

    `dsn` names the database, `name` the index in it: there may be many. `context` is, for an index that is made now,
    how many characters of `title > heading` are searched with a passage. Raises `InputError` for what is wrong with
    the address, the database or the embedder, `WorkspaceError` when the server does not answer.
    """

    def __init__(
        self,
        dsn: str,
        embedder: Embedder,
        *,
        name: str = "docs",
        search: SearchSettings | None = None,
        settings: PostgresSettings | None = None,
        context: int = 120,
    ) -> None:
        self.embedder, self.name = embedder, name
        self.settings = search or SearchSettings()
        self._how = how = settings or PostgresSettings()
        self._tokenizer = Tokenizer()
        self._function_words = frozenset(self._tokenizer.terms([FUNCTION_WORDS])[0])
        self._digest: tuple[int, str] | None = None
        self._database = Database(
            dsn, schema_of(name), ef_search=how.ef_search, connections=how.connections, timeout=how.timeout_s
        )
        try:
            self.meta: IndexMeta = opened(self._database, name, embedder, context)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    @property
    def where(self) -> str:
        """The database, without its password."""
        return self._database.shown

    @property
    def digest(self) -> str:
        async def ask(db: Connection) -> tuple[int, str]:
            writes = await db.fetchval("SELECT writes FROM meta")
            if self._digest is not None and self._digest[0] == writes:
                return self._digest
            held = await db.fetch('SELECT document, digest FROM documents ORDER BY document COLLATE "C"')
            return writes, sha256_json([self.meta.embedder, self.meta.context, [list(row) for row in held]])

        self._digest = self._database.read(ask)
        return self._digest[1]

    def __len__(self) -> int:
        return int(self._value("SELECT passages FROM meta"))

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
        query = asked(query, k)
        if vector is None:
            vector = self.embedder.embed([query], "query").vectors[0]
        if vector.shape != (self.meta.dimension,):
            raise InputError(
                f"A query's vector of shape {vector.shape} in an index of dimension {self.meta.dimension}."
            )
        stems = writing.words_in([query], self._tokenizer)[0] if self.settings.dense < 1 else []

        async def ask(db: Connection) -> list[Hit]:
            state = await searching.state_of(db, stems)
            allowed = await self._allowed(db, state, where, access, self._how.exact_below)
            if allowed.passages == 0:
                return []
            ranked = await searching.best_of(db, vector, state, allowed, k, self.settings)
            return _hits(ranked, await _citations(db, ranked.rows.tolist()))

        if self.settings.dense == 1.0:
            nearest = partial(searching.nearest_of, vector=vector, condition=condition_of(where or {}, access), k=k)
            if len(rows := self._database.run(nearest, keeps_plans=True)) == k:
                return _nearest(rows, self.settings)
        try:
            return self._database.run(ask)
        except (searching.Changed, NotFound):  # somebody wrote: now from a state that stays
            return self._database.read(ask)

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        """As `search` for each query, whose vectors are made together."""
        queries = [asked(query, k) for query in queries]
        if vectors is None:
            vectors = self.embedder.embed(queries, "query").vectors
        return [
            self.search(query, k, where, access=access, vector=vector)
            for query, vector in zip(queries, vectors, strict=True)
        ]

    async def _allowed(
        self, db: Connection, state: State, where: Mapping[str, Any] | None, access: Collection[str], few: int
    ) -> Allowed:
        return await allowed_by(db, where, access, total=state.passages, labelled=state.labelled, few=few)

    def coverage(self, query: str, passages: Sequence[int]) -> float:
        """Share of the query's words, weighted by rarity, that these passages hold between them; in [0, 1]."""
        [stems] = writing.words_in([query], self._tokenizer)
        asked = set(stems) - self._function_words

        async def ask(db: Connection) -> float:
            size = await db.fetchval("SELECT passages FROM meta")
            rows = await db.fetch(
                "SELECT word, passages, EXISTS ("
                "    SELECT FROM postings o WHERE o.word = w.id AND o.passage = ANY($2::int[])"
                ") AS here FROM words w WHERE word = ANY($1::text[])",
                list(asked),
                list(passages),
            )
            held = {row["word"]: row["passages"] for row in rows}
            total = sum(idf_of(held.get(word, 0), size) for word in asked)
            return sum(idf_of(row["passages"], size) for row in rows if row["here"]) / total if total else 0.0

        return self._database.read(ask)

    def with_settings(self, settings: SearchSettings) -> PostgresIndex:
        """The same open index, ranked another way."""
        other = copy(self)
        other.settings = settings
        return other

    # passages and documents -----------------------------------------------------------------------------------------

    @property
    def characters(self) -> int:
        """Of all passages together."""
        return int(self._value('SELECT coalesce(sum("end" - start), 0) FROM passages'))

    def citations(self, passages: Sequence[int]) -> list[Citation]:
        """The passages with these ids as quotations, in the order asked for. Raises `NotFound`."""
        return self._database.run(partial(_citations, passages=passages))

    def passages(self, where: Mapping[str, Any] | None = None, access: Collection[str] = ()) -> list[Citation]:
        """All passages that match, in the order of the documents: together they are what the documents say."""

        async def ask(db: Connection) -> list[Citation]:
            state = await searching.state_of(db, [])
            allowed = await self._allowed(db, state, where, access, state.passages)
            numbers = allowed.numbers
            ids = await db.fetchval("SELECT array_agg(id) FROM passages") if numbers is None else numbers.tolist()
            return await _citations(db, sorted(ids or ()))

        return self._database.read(ask)

    def passages_around(self, passage: int, before: int = 1, after: int = 1) -> list[Citation]:
        async def ask(db: Connection) -> list[Citation]:
            first, count = await self._document(db, passage, "first, passages")
            low, high = max(first, passage - before), min(first + count - 1, passage + after)
            return await _citations(db, range(low, high + 1))

        return self._database.read(ask)

    def document_of(self, passage: int) -> Document:
        async def ask(db: Connection) -> Document:
            row = await self._document(db, passage, "document, source, title, text, format, metadata")
            id, source, title, text, format, metadata = row
            return Document(id, source, title, text, format, metadata=json.loads(metadata))

        return self._database.run(ask)

    async def _document(self, db: Connection, passage: int, columns: str) -> tuple[Any, ...]:
        row = await db.fetchrow(
            f"SELECT {columns} FROM documents WHERE first <= $1 AND $1 < first + passages ORDER BY first DESC LIMIT 1",
            passage,
        )
        if row is None:
            raise _no_passage(passage)
        return tuple(row)

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]:
        async def ask(db: Connection) -> dict[int, NDArray[np.float32]]:
            rows = await db.fetch("SELECT id, embedding FROM passages WHERE id = ANY($1::int[])", list(passages))
            return {row["id"]: row["embedding"] for row in rows}

        found = self._database.run(ask)
        for passage in passages:
            if passage not in found:
                raise _no_passage(passage)
        return np.array([found[passage] for passage in passages], np.float32).reshape(-1, self.meta.dimension)

    def metadata_of(self, documents: Sequence[str]) -> list[Mapping[str, Any]]:
        """What is known of documents besides their texts, in the order asked for. Raises `NotFound`."""

        ids = list(map(writing.storable, documents))

        async def ask(db: Connection) -> dict[str, Any]:
            rows = await db.fetch("SELECT document, metadata FROM documents WHERE document = ANY($1::text[])", ids)
            return {row["document"]: row["metadata"] for row in rows}

        found = self._database.run(ask)
        for id in ids:
            if id not in found:
                raise NotFound(f"The index holds no document '{id}'.", "It may have been removed meanwhile.")
        return [json.loads(found[id]) for id in ids]

    def facets(self, access: Collection[str] = ()) -> Mapping[str, Sequence[Any]]:
        """The values under each key of the metadata, most frequent first, of documents that these labels may see."""

        async def ask(db: Connection) -> list[Any]:
            found: list[Any] = await db.fetch(_FACETS, labels_of(access))
            return found

        values: dict[str, list[Any]] = {}
        for key, value in self._database.run(ask):
            values.setdefault(key, []).append(json.loads(value))
        return values

    # writing --------------------------------------------------------------------------------------------------------

    def held(self) -> Mapping[str, str]:
        async def ask(db: Connection) -> dict[str, str]:
            return {row["document"]: row["digest"] for row in await db.fetch("SELECT document, digest FROM documents")}

        return self._database.run(ask)

    def put(self, entries: Iterable[Entry]) -> None:
        with self._database.transaction() as run:
            totals = run(writing.begin)
            for batch in writing.batches(entries, self.meta):
                rows = writing.rows_of(batch, self.meta, self._tokenizer, totals)
                run(partial(writing.add, rows=rows, totals=totals))
            run(partial(writing.end, totals=totals))
        self._database.run(self._settle)

    def delete(self, documents: Iterable[str]) -> int:
        ids = sorted(set(map(writing.storable, documents)))
        with self._database.transaction() as run:
            totals = run(writing.begin)
            removed: int = run(partial(writing.remove, ids=ids, totals=totals))
            run(partial(writing.end, totals=totals))
        return removed

    def snapshot(self, ws: Workspace, name: str) -> Artifact:
        raise Unsupported(
            f"An index in PostgreSQL cannot be frozen as '{name}'.",
            "Take `pg_dump` for a copy of it, or ingest the same documents into an embedded index and freeze that.",
        )

    async def _settle(self, db: Connection) -> None:
        """After the index has grown by half: tells the planner what is there, and makes the graph when it is due.

        None of it is part of what was acknowledged; cut off here, the next transaction does it.
        """
        passages, settled, approximate = await db.fetchrow("SELECT passages, settled, approximate FROM meta")
        if passages <= settled * 1.5:
            return
        await db.execute("VACUUM (ANALYZE) documents, passages, words, postings")
        if not approximate and passages > self._how.exact_below and self.meta.dimension <= _GRAPH_DIMENSION:
            async with db.transaction():
                await db.execute(_GRAPH)
        await db.execute("UPDATE meta SET settled = $1", passages)

    def _value(self, sql: str, *values: Any) -> Any:
        async def ask(db: Connection) -> Any:
            return await db.fetchval(sql, *values)

        return self._database.run(ask)


_GRAPH = """
SELECT 1 FROM meta FOR UPDATE;
-- Workers share what they build in /dev/shm, of which a container has 64 MB: too little, and the build would fail.
SET LOCAL max_parallel_maintenance_workers = 0;
SET LOCAL maintenance_work_mem = '512MB';
CREATE INDEX IF NOT EXISTS passages_graph ON passages USING hnsw (embedding vector_ip_ops);
UPDATE meta SET approximate = true;
"""

_FACETS = """
SELECT key, value::text FROM documents d, jsonb_each(d.metadata) e (key, held), jsonb_array_elements(
    CASE jsonb_typeof(held) WHEN 'array' THEN held ELSE jsonb_build_array(held) END
) value
WHERE d.access && $1::text[] AND key <> 'access' GROUP BY key, value ORDER BY key, count(*) DESC, value
"""


async def _citations(db: Connection, passages: Sequence[int]) -> list[Citation]:
    rows = await db.fetch(
        f"SELECT {searching.QUOTED} FROM passages p JOIN documents d ON d.id = p.document WHERE p.id = ANY($1::int[])",
        list(passages),
    )
    found = {row["id"]: Citation(*tuple(row)[1:]) for row in rows}
    for passage in passages:
        if passage not in found:
            raise _no_passage(passage)
    return [found[passage] for passage in passages]


def _hits(ranked: Ranked, citations: Sequence[Citation]) -> list[Hit]:
    return [
        Hit(
            int(row),
            float(ranked.score[i]),
            citations[i],
            {
                "dense": float(ranked.dense[i]),
                "bm25": float(ranked.bm25[i]),
                "dense_rank": float(ranked.dense_rank[i]),
                "bm25_rank": float(ranked.bm25_rank[i]),
            },
        )
        for i, row in enumerate(ranked.rows)
    ]


def _nearest(rows: Sequence[tuple[Any, ...]], settings: SearchSettings) -> list[Hit]:
    """Hits of `searching.nearest_of`."""
    scores = alone([row[0] for row in rows], settings)
    return [
        Hit(id, score, Citation(*quoted), {"dense": dense, "bm25": 0.0, "dense_rank": float(rank), "bm25_rank": 0.0})
        for rank, (score, (dense, id, *quoted)) in enumerate(zip(scores, rows, strict=True), start=1)
    ]


def _no_passage(passage: int) -> NotFound:
    return NotFound(f"The index holds no passage {passage}.", "It may have been removed meanwhile: search again.")

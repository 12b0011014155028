"""The tables of an index: a schema of its own in the database, made on first use.

    meta       one row: what the index was made of, and the sums that BM25 needs
    documents  each with its whole text, its metadata and its labels
    passages   each with its vector and the numbers of its words; a title only where it is not its document's
    words      each with how many passages hold it
    postings   which passage holds which word, and how often: the inverted index

The words are those of the embedded index's own tokenizer, and their numbers are kept up to date by each transaction
that adds or removes documents. So BM25 is exact, and both kinds of index rank alike, which PostgreSQL's `ts_rank`,
that knows nothing of how rare a word is, could not do.
"""

from __future__ import annotations

import re

from windlass.apply.rag.indexes.compatible import check_format, check_vectors
from windlass.apply.rag.indexes.embedded.layout import IndexMeta
from windlass.apply.rag.indexes.postgres.connection import Connection, Database, quoted
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder

FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_INLINE = 1536
"""A vector of more numbers fills more than most of a page, and stays in a place of its own."""

_TABLES = """
CREATE TABLE meta (
    format int NOT NULL, embedder text NOT NULL, embedder_name text NOT NULL, dimension int NOT NULL,
    context int NOT NULL,
    writes bigint NOT NULL DEFAULT 0, documents int NOT NULL DEFAULT 0, passages int NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0, labelled int NOT NULL DEFAULT 0,
    next_document int NOT NULL DEFAULT 1, next_passage int NOT NULL DEFAULT 1,
    settled int NOT NULL DEFAULT 0, approximate bool NOT NULL DEFAULT false
);
CREATE TABLE documents (
    id int PRIMARY KEY, document text NOT NULL UNIQUE, digest text NOT NULL, source text NOT NULL, title text NOT NULL,
    format text NOT NULL, text text NOT NULL, metadata jsonb NOT NULL, access text[] NOT NULL,
    first int NOT NULL, passages int NOT NULL
);
CREATE INDEX ON documents USING gin (metadata);
CREATE INDEX ON documents USING gin (access);
CREATE INDEX ON documents (first);
CREATE TABLE passages (
    id int PRIMARY KEY, document int NOT NULL, title text, heading text NOT NULL, context text NOT NULL,
    start int NOT NULL, "end" int NOT NULL, text text NOT NULL, words int[] NOT NULL, tokens int NOT NULL,
    embedding vector({dimension}) NOT NULL
);
CREATE INDEX ON passages (document);
ALTER TABLE passages ALTER COLUMN embedding SET STORAGE {storage};
CREATE TABLE words (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text COLLATE "C" NOT NULL UNIQUE, passages int NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE postings (
    word int NOT NULL, passage int NOT NULL, tokens int NOT NULL, above smallint NOT NULL, inside smallint NOT NULL,
    PRIMARY KEY (word, passage) INCLUDE (tokens, above, inside)
);
"""


def schema_of(name: str) -> str:
    """The schema of the index of this name. Raises `InputError` for a name that cannot be one."""
    if _NAME.fullmatch(name) is None:
        raise InputError(
            f"An index cannot be called {name!r}.", "Use up to 48 small letters, digits, '-' and '_', such as 'docs'."
        )
    return f"windlass_{name}"


def opened(database: Database, name: str, embedder: Embedder, context: int) -> IndexMeta:
    """The index's facts; its tables are made when there are none. Raises `InputError` for another embedder."""
    schema = schema_of(name)
    there = "SELECT true FROM pg_tables WHERE schemaname = $1 AND tablename = 'meta'"

    async def look(db: Connection) -> IndexMeta:
        if not await db.fetchval(there, schema):
            async with db.transaction():
                # Of two that make the same index at once, the second waits and then finds it made.
                await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", schema)
                if not await db.fetchval(there, schema):
                    await _make(db, schema, embedder, context)
        row = await db.fetchrow("SELECT embedder, embedder_name, dimension, context, format FROM meta")
        return IndexMeta(**row)

    meta = database.run(look)
    index = f"Index '{name}' in {database.shown}"
    check_format(index, meta.format, FORMAT)
    check_vectors(index, meta, embedder)
    return meta


async def _make(db: Connection, schema: str, embedder: Embedder, context: int) -> None:
    if embedder.dimension > 16_000:
        raise InputError(f"{embedder.name} makes vectors of {embedder.dimension} numbers, pgvector holds 16,000.")
    await db.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    storage = "PLAIN" if embedder.dimension <= _INLINE else "EXTERNAL"
    await db.execute(_TABLES.format(dimension=embedder.dimension, storage=storage))
    await db.execute(
        "INSERT INTO meta (format, embedder, embedder_name, dimension, context) VALUES ($1, $2, $3, $4, $5)",
        FORMAT,
        embedder.digest,
        embedder.name,
        embedder.dimension,
        context,
    )


def dropped(database: Database, name: str) -> None:
    """Removes an index with all that it holds."""
    schema = quoted(schema_of(name))

    async def drop(db: Connection) -> None:
        await db.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")

    database.run(drop)

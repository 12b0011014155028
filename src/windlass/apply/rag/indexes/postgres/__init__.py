"""An index in PostgreSQL with pgvector: the embedded index's twin for many machines that share one."""

from __future__ import annotations

from windlass.apply.rag.indexes.postgres.index import PostgresIndex, PostgresSettings

__all__ = ["PostgresIndex", "PostgresSettings"]

"""An index in Qdrant: for those who run one already."""

from __future__ import annotations

from windlass.apply.rag.indexes.qdrant.index import MEMORY, QdrantIndex

__all__ = ["MEMORY", "QdrantIndex"]

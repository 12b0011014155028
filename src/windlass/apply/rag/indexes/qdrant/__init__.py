"""An index in Qdrant: for those who run one already."""

from __future__ import annotations

from windlass.apply.rag.indexes.qdrant.collections import MEMORY
from windlass.apply.rag.indexes.qdrant.index import QdrantIndex

__all__ = ["MEMORY", "QdrantIndex"]

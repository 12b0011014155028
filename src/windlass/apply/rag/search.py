"""Hybrid search over an index file: exact dense search and BM25, fused; filters first, one query or thousands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.adapter import AdaptedEmbedder, Adapter, load_adapter
from windlass.apply.rag.fusion import Ranked, SearchSettings, fuse
from windlass.apply.rag.index_file import FILE, IndexFile, IndexMeta
from windlass.apply.rag.lexical import Lexical
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import sha256_file
from windlass.core.protocols import Embedder, Embeddings, Hit
from windlass.core.values import Citation

_BLOCK = 256
"""Queries scored at once: bounds the memory of `search_many` to this many rows of scores."""


class HybridIndex:
    """Implements `windlass.core.protocols.Index`. Read-only and safe to share between threads."""

    def __init__(self, file: IndexFile, embedder: Embedder, settings: SearchSettings, digest: str | None) -> None:
        self._file = file
        self._digest = digest
        self.embedder = embedder
        self.settings = settings
        self.lexical = Lexical(file.query, file.lengths, settings.context_weight)

    @classmethod
    def open(
        cls,
        source: Artifact | Path,
        embedder: Embedder,
        adapter: Adapter | Artifact | None = None,
        settings: SearchSettings | None = None,
    ) -> HybridIndex:
        """Opens an index artifact, its folder or its file.

        `embedder` is the plain one; `adapter` must be the one the index was made with, or None when there was none.
        Raises `InputError` when either is another: vectors of two models would be compared, and nobody would notice.
        """
        path = source if isinstance(source, Path) else source.path
        file = IndexFile(path / FILE if path.is_dir() else path)
        try:
            if isinstance(adapter, Artifact):
                adapter = load_adapter(adapter)
            _check(file, embedder, adapter)
        except BaseException:
            file.close()
            raise
        embedder = embedder if adapter is None else AdaptedEmbedder(embedder, adapter)
        return cls(file, embedder, settings or SearchSettings(), None if isinstance(source, Path) else source.digest)

    def with_settings(self, settings: SearchSettings) -> HybridIndex:
        """The same open index, ranked another way."""
        other = HybridIndex(self._file, self.embedder, settings, self._digest)
        if settings.context_weight == self.settings.context_weight:
            other.lexical = self.lexical  # postings that were read already serve both
        return other

    @property
    def digest(self) -> str:
        if self._digest is None:
            self._digest = sha256_file(self._file.path)
        return self._digest

    @property
    def meta(self) -> IndexMeta:
        return self._file.meta

    @property
    def vectors(self) -> NDArray[np.float32]:
        """What is searched: shape (passages, dimension), read-only. Row i belongs to passage i + 1."""
        return self._file.vectors

    def __len__(self) -> int:
        return self.meta.passages

    def close(self) -> None:
        self._file.close()

    # searching ------------------------------------------------------------------------------------------------------

    def search(self, query: str, k: int = 10, where: Mapping[str, Any] | None = None) -> list[Hit]:
        return self.search_many([query], k, where)[0]

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        """The best `k` passages for each query. `vectors` are the queries' own, when they are known already.

        `where` maps metadata keys of documents (or `document`, `source`) to a value or a list of allowed values.
        """
        return [self.hits(ranked) for ranked in self.rank_many(queries, k, where, vectors=vectors)]

    def rank_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        vectors: NDArray[np.float32] | None = None,
    ) -> Iterator[Ranked]:
        """As `search_many`, but rows and scores only: what an evaluation over thousands of questions needs."""
        if k < 1:
            raise InputError(f"A search for {k} passages finds nothing.", "Ask for at least one.")
        if vectors is None:
            vectors = self.embed(queries).vectors
        allowed = None if where is None else np.flatnonzero(self._matching(where))
        terms = self.lexical.tokenizer.terms(queries)
        searched = self.vectors if allowed is None else self.vectors[allowed]
        for first in range(0, len(queries), _BLOCK):
            dense = vectors[first : first + _BLOCK] @ searched.T
            for similarity, words in zip(dense, terms[first : first + _BLOCK], strict=True):
                bm25 = self.lexical.scores(words)
                ranked = fuse(similarity, bm25 if allowed is None else bm25[allowed], k, self.settings)
                yield ranked if allowed is None else ranked.moved(allowed)

    def embed(self, queries: Sequence[str]) -> Embeddings:
        """Vectors of questions, adapted as the index is. Raises `InputError` for an empty one."""
        for number, query in enumerate(queries, start=1):
            if not query.strip():
                raise InputError(f"Question {number} is empty.", "Write what you want to find.")
        return self.embedder.embed([query.encode("utf-8", "replace").decode() for query in queries], "query")

    def hits(self, ranked: Ranked) -> list[Hit]:
        found = self.citations([int(row) + 1 for row in ranked.rows])
        return [
            Hit(
                int(row) + 1,
                float(ranked.score[i]),
                found[i],
                {
                    "dense": float(ranked.dense[i]),
                    "bm25": float(ranked.bm25[i]),
                    "dense_rank": float(ranked.dense_rank[i]),
                    "bm25_rank": float(ranked.bm25_rank[i]),
                },
            )
            for i, row in enumerate(ranked.rows)
        ]

    def citations(self, passages: Sequence[int]) -> list[Citation]:
        """The passages with these ids as quotations, in the order asked for."""
        found: dict[int, Citation] = {}
        for at in range(0, len(passages), 500):
            some = list(passages[at : at + 500])
            rows = self._file.query(
                'SELECT p.id, d.document, d.title, p.heading, p.start, p."end", p.text, d.source'
                f" FROM passages p JOIN documents d ON d.id = p.document WHERE p.id IN ({','.join('?' * len(some))})",
                tuple(some),
            )
            found.update((row[0], Citation(*row[1:])) for row in rows)
        return [found[passage] for passage in passages]

    @cached_property
    def characters(self) -> int:
        """Of all passages together."""
        return int(self._file.query('SELECT total("end" - start) FROM passages')[0][0])

    def passages(self, where: Mapping[str, Any] | None = None) -> list[Citation]:
        """All passages that match, in the order of the documents: together they are what the documents say."""
        ids = range(1, len(self) + 1) if where is None else np.flatnonzero(self._matching(where)) + 1
        return self.citations([int(passage) for passage in ids])

    # filters --------------------------------------------------------------------------------------------------------

    def _matching(self, where: Mapping[str, Any]) -> NDArray[np.bool_]:
        documents, owners = self._documents
        known = {key for document in documents for key in document}
        for key in where:
            if documents and key not in known:
                raise InputError(
                    f"No document of the index has '{key}'.",
                    f"Documents can be filtered by: {', '.join(sorted(known))}.",
                )
        wanted = {key: _values(value) for key, value in where.items()}
        passes = np.array(
            [all(any(v in ok for v in _values(d.get(key))) for key, ok in wanted.items()) for d in documents], np.bool_
        )
        return passes[owners]

    @cached_property
    def _documents(self) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
        """What can be filtered by, per document, and each passage's document."""
        rows = self._file.query("SELECT document, source, metadata FROM documents ORDER BY id")
        owners = self._file.query("SELECT document FROM passages ORDER BY id")
        documents = [{**json.loads(row[2]), "document": row[0], "source": row[1]} for row in rows]
        return documents, np.asarray(owners, np.int64).reshape(-1) - 1

    def documents_of(self, rows: NDArray[np.int64]) -> list[str]:
        """The document ids of rows of `Ranked`."""
        documents, owners = self._documents
        return [documents[owner]["document"] for owner in owners[rows]]


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _check(file: IndexFile, embedder: Embedder, adapter: Adapter | None) -> None:
    meta = file.meta
    if meta.embedder != embedder.digest or meta.dimension != embedder.dimension:
        raise InputError(
            f"The index {file.path} holds vectors of {meta.embedder_name} ({meta.embedder[:12]}), "
            f"not of {embedder.name} ({embedder.digest[:12]}).",
            "Open it with the embedder it was built with, or build it again with this one.",
        )
    given = None if adapter is None else adapter.digest
    if meta.adapter != given:
        raise InputError(
            f"The index {file.path} was made with adapter {_short(meta.adapter)}, but is opened with {_short(given)}.",
            "Open it with its own adapter, or make the index for this one with `reindex`.",
        )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]

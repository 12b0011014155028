"""Hybrid search over an index: exact dense search and BM25, fused; filters first, one query or thousands."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.embedding.adapter import AdaptedEmbedder, Adapter, load_adapter
from windlass.apply.rag.indexes.asked import check_wanted
from windlass.apply.rag.indexes.compatible import check_vectors
from windlass.apply.rag.indexes.embedded.cells import KIND, Cells
from windlass.apply.rag.indexes.embedded.layout import FILE, IndexMeta, is_live, open_frozen, version_digest
from windlass.apply.rag.indexes.embedded.lexical import Lexical, Query
from windlass.apply.rag.indexes.embedded.products import product
from windlass.apply.rag.indexes.embedded.quantised import CANDIDATES, likeness
from windlass.apply.rag.indexes.embedded.reading import Connection, Reading
from windlass.apply.rag.indexes.fusion import Ranked, Rows, SearchSettings, best, fuse, worded
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder, Embeddings, Hit
from windlass.core.values import Citation

_BLOCK = 256
"""Queries scored at once, fewer where there are many passages: bounds the memory of `search_many`."""
_SCORES = 1 << 26
_ROWS = 1 << 16
"""Vectors of a filter that are brought together at once."""


class HybridIndex:
    """Implements `windlass.core.protocols.Index`. Read-only, of one version, and safe to share between threads.

    Rows, as in `Ranked`, count the passages of this version; ids of passages stay what they are for ever.
    """

    def __init__(
        self,
        reading: Reading,
        embedder: Embedder,
        settings: SearchSettings,
        digest: str | None = None,
        lexical: Lexical | None = None,
    ) -> None:
        self.at = reading
        """The version that is searched."""
        self._digest = digest
        self._connection: Connection | None = None
        self._once: dict[str, Any] = {}
        """What was computed for this version, shared by its copies."""
        self.embedder = embedder
        self.settings = settings
        self.lexical = lexical or Lexical(reading.query, reading.contents, settings.context_weight)

    @classmethod
    def open(
        cls,
        source: Artifact | Path,
        embedder: Embedder,
        adapter: Adapter | Artifact | None = None,
        settings: SearchSettings | None = None,
    ) -> HybridIndex:
        """Opens an index artifact or its folder.

        `embedder` is the plain one; `adapter` must be the one the index was made with, or None when there was none.
        Raises `InputError` when either is another: vectors of two models would be compared, and nobody would notice.
        """
        folder = source if isinstance(source, Path) else source.path
        if folder.name == FILE:
            folder = folder.parent
        if is_live(folder):
            raise InputError(
                f"The index {folder} may be written to while it is read.", "Open it with `rag.indexes.live.open_live`."
            )
        connection = Connection(open_frozen(folder), folder)
        try:
            reading = Reading.of(connection, folder)
            if isinstance(adapter, Artifact):
                adapter = load_adapter(adapter)
            check_embedder(reading, embedder, adapter)
            embedder = embedder if adapter is None else AdaptedEmbedder(embedder, adapter)
            digest = None if isinstance(source, Path) else source.digest
            made = cls(reading, embedder, settings or SearchSettings(), digest)
        except BaseException:
            connection.close()
            raise
        made._connection = connection
        return made

    def with_settings(self, settings: SearchSettings) -> HybridIndex:
        """The same open index, ranked another way."""
        other = copy(self)
        other.settings = settings
        if settings.context_weight != self.settings.context_weight:
            other.lexical = self.lexical.weighted(settings.context_weight)
        return other

    def bound(self, query: Query) -> HybridIndex:
        """The same, reading through another connection that sees the same version."""
        other = copy(self)
        other.at, other.lexical = self.at.bound(query), self.lexical.bound(query)
        return other

    @contextlib.contextmanager
    def reading(self) -> Iterator[HybridIndex]:
        """As `EmbeddedIndex.reading`: an index that does not change while one works with it."""
        yield self

    @property
    def digest(self) -> str:
        """Of the artifact; of an index that is none, of its documents' digests and of who made the vectors."""
        return self._digest or version_digest(self.meta, self.at.contents.state)

    @property
    def meta(self) -> IndexMeta:
        return self.at.meta

    @property
    def vectors(self) -> NDArray[np.float32]:
        """What is searched: shape (passages, dimension), read-only. Row i belongs to row i of `Ranked`. A copy when
        documents were removed since the vectors were last written anew."""
        rows = self.at.contents.rows
        return self.at.vectors if rows is None else self.at.vectors[rows]

    def __len__(self) -> int:
        return len(self.at.contents)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

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
        """As `search` for each query. `vectors` are the queries' own, when they are known already."""
        return [self.hits(ranked) for ranked in self.rank_many(queries, k, where, access=access, vectors=vectors)]

    def rank_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> Iterator[Ranked]:
        """As `search_many`, but rows and scores only: what an evaluation over thousands of questions needs."""
        check_wanted(k)
        if vectors is None:
            vectors = self.embed(queries).vectors
        allowed = self.at.filters.passages(where, access, self.at.query)
        # Where words do not count, none is looked up.
        terms = self.lexical.tokenizer.terms(queries) if self.settings.dense < 1 else [[] for _ in queries]
        if vectors.shape != (len(queries), self.meta.dimension):
            raise InputError(
                f"Queries need vectors of shape {(len(queries), self.meta.dimension)}, not {vectors.shape}."
            )
        if self.at.quantised is not None or self.at.cells is not None:
            for vector, words in zip(vectors, terms, strict=True):
                yield self._ranked_of_candidates(vector, words, k, allowed)
            return
        block = max(1, min(_BLOCK, _SCORES // max(len(self.at.vectors), 1)))
        for first in range(0, len(queries), block):
            dense = self._likeness(vectors[first : first + block], allowed)
            for similarity, words in zip(dense, terms[first : first + block], strict=True):
                ranked = fuse(similarity, self.lexical.scores(words, allowed), k, self.settings)
                yield ranked if allowed is None else ranked.moved(allowed)

    def _ranked_of_candidates(
        self, vector: NDArray[np.float32], words: Sequence[str], k: int, allowed: Rows | None
    ) -> Ranked:
        """The ranking of those that cells or quantised vectors, or the words, say are among the best."""
        bm25 = self.lexical.scores(words, allowed)
        depth = max(self.settings.depth, k)
        near = self._candidates(vector, depth, allowed)
        if near is not None:
            chosen = np.union1d(near, worded(bm25, depth))
            bm25 = bm25[chosen]
            allowed = chosen if allowed is None else allowed[chosen]
        ranked = fuse(self._likeness(vector[None], allowed)[0], bm25, k, self.settings)
        return ranked if allowed is None else ranked.moved(allowed)

    def _candidates(self, vector: NDArray[np.float32], depth: int, allowed: Rows | None) -> Rows | None:
        """Which of the allowed passages may be among the `depth` nearest: some more than that, and never fewer. None:
        they are so few that all of them are looked at."""
        kind, quantised = self.meta.quantised, self.at.quantised
        count = len(self) if allowed is None else len(allowed)
        if self.at.cells is not None and (found := self._in_cells(self.at.cells, vector, depth, allowed)) is not None:
            return found
        if quantised is None or count <= depth * (CANDIDATES[kind] + 1):
            return None
        rows = self.at.contents.rows
        wanted = rows if allowed is None else allowed if rows is None else rows[allowed]
        return best(likeness(kind, quantised, vector, wanted), depth * CANDIDATES[kind])

    def _in_cells(self, cells: Cells, vector: NDArray[np.float32], depth: int, allowed: Rows | None) -> Rows | None:
        """As `_candidates`, by the cells and all of the vectors that came after them."""
        rows, positions = self.at.contents.rows, self.at.contents.positions
        most, later = depth * CANDIDATES[KIND], len(self.at.vectors) - cells.made.rows
        if not cells.made.pays((len(self) if allowed is None else len(allowed)) - later, most):
            return None
        passing = self.at.contents.alive
        if allowed is not None:
            passing = np.zeros(len(self.at.vectors), np.bool_)
            passing[allowed if rows is None else rows[allowed]] = True
        found = cells.near(vector, most, passing)
        if later:
            scores = product(self.at.vectors[cells.made.rows :], vector)
            if passing is not None:
                scores[~passing[cells.made.rows :]] = -np.inf
            new = best(scores, min(most, later))
            found = np.concatenate([found, cells.made.rows + new[np.isfinite(scores[new])]])
        at = found if positions is None else positions[found]
        return at if allowed is None else np.searchsorted(allowed, at)

    def _likeness(self, queries: NDArray[np.float32], allowed: Rows | None) -> NDArray[np.float32]:
        """Shape (queries, passages), those that are allowed."""
        vectors, rows = self.at.vectors, self.at.contents.rows
        wanted = rows if allowed is None else allowed if rows is None else rows[allowed]
        if len(queries) == 1 and len(vectors if wanted is None else wanted) <= _ROWS:
            return product(vectors if wanted is None else vectors[wanted], queries[0])[None]
        if wanted is None:
            return queries @ vectors.T
        if 2 * len(wanted) > len(vectors) > _ROWS:  # most of them: cheaper without bringing them together
            return (queries @ vectors.T)[:, wanted]
        blocks = [queries @ vectors[wanted[at : at + _ROWS]].T for at in range(0, max(len(wanted), 1), _ROWS)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def embed(self, queries: Sequence[str]) -> Embeddings:
        """Vectors of questions, adapted as the index is. Raises `InputError` for an empty one."""
        for number, query in enumerate(queries, start=1):
            if not query.strip():
                raise InputError(f"Question {number} is empty.", "Write what you want to find.")
        return self.embedder.embed([query.encode("utf-8", "replace").decode() for query in queries], "query")

    def hits(self, ranked: Ranked) -> list[Hit]:
        ids = [int(passage) for passage in self.at.contents.ids[ranked.rows]]
        found = self.citations(ids)
        return [
            Hit(
                passage,
                float(ranked.score[i]),
                found[i],
                {
                    "dense": float(ranked.dense[i]),
                    "bm25": float(ranked.bm25[i]),
                    "dense_rank": float(ranked.dense_rank[i]),
                    "bm25_rank": float(ranked.bm25_rank[i]),
                },
            )
            for i, passage in enumerate(ids)
        ]

    def coverage(self, query: str, passages: Sequence[int]) -> float:
        """Share of the query's words, weighted by rarity, that these passages hold between them; in [0, 1]."""
        rows, _ = self.at.contents.places(np.sort(np.asarray(passages, np.int64)))
        return self.lexical.coverage(self.lexical.tokenizer.terms([query])[0], rows)

    # passages and documents -----------------------------------------------------------------------------------------

    def citations(self, passages: Sequence[int]) -> list[Citation]:
        """The passages with these ids as quotations, in the order asked for. Raises `NotFound`."""
        return self.at.citations(passages)

    @property
    def characters(self) -> int:
        """Of all passages together."""
        if "characters" not in self._once:
            self._once["characters"] = int(self.at.query('SELECT total("end" - start) FROM passages', ())[0][0])
        return int(self._once["characters"])

    def passages(self, where: Mapping[str, Any] | None = None, access: Collection[str] = ()) -> list[Citation]:
        """All passages that match, in the order of the documents: together they are what the documents say."""
        rows = self.at.filters.passages(where, access, self.at.query)
        ids = self.at.contents.ids
        return self.citations([int(passage) for passage in (ids if rows is None else ids[rows])])

    def documents_of(self, rows: NDArray[np.int64]) -> list[str]:
        """The document ids of rows of `Ranked`."""
        if "names" not in self._once:
            self._once["names"] = [row[0] for row in self.at.query("SELECT document FROM documents ORDER BY id", ())]
        names: list[str] = self._once["names"]
        return [names[owner] for owner in self.at.contents.owners[rows]]

    def passages_around(self, passage: int, before: int = 1, after: int = 1) -> list[Citation]:
        """A passage with those that stand before and after it in its document, in order. Raises `NotFound`."""
        return self.at.around(passage, before, after)

    def document_of(self, passage: int) -> Document:
        """The document that a passage was cut from, with its whole text, without its sections. Raises `NotFound`."""
        return self.at.document(passage)

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of passages, one row for each. Raises `NotFound`."""
        return self.at.vectors_of(passages)

    def metadata_of(self, documents: Sequence[str]) -> list[Mapping[str, Any]]:
        """The metadata of documents, in the order asked for. Raises `NotFound`."""
        return list(self.at.metadata(documents))

    def facets(self, access: Collection[str] = ()) -> dict[str, list[Any]]:
        """What documents that these labels may see can be filtered by: keys of the metadata and their values, most
        frequent first."""
        return self.at.filters.facets(access, self.at.query)


def check_embedder(reading: Reading, embedder: Embedder, adapter: Adapter | None) -> None:
    """Raises `InputError` when the vectors of an index are not of this embedder."""
    meta, path = reading.meta, reading.folder / FILE
    check_vectors(f"The index {path}", meta, embedder, "build it again with this one")
    given = None if adapter is None else adapter.digest
    if meta.adapter != given:
        raise InputError(
            f"The index {path} was made with adapter {_short(meta.adapter)}, but is opened with {_short(given)}.",
            "Open it with its own adapter, or make the index for this one with `reindex`.",
        )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]

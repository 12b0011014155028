"""`QdrantIndex`: a `LiveIndex` whose passages lie in a Qdrant server.

Qdrant has no transactions, so an index keeps states, as databases do beneath: each passage is marked with the state
that brought it (`born`) and the one that replaced it (`died`), and one point holds the number of the state that
counts. A search looks at the passages of that state; a `put` writes those of the next one beside them and then counts
on, which is the writing of a single point. Cut off before it, it has changed nothing; the next one clears it away.

Two things are less than in the other indexes. There is no lock: one process at a time may write. And BM25 is as near as
Qdrant comes: it counts how many passages hold a word by itself, those of replaced documents included until it has
cleaned up, and weighs words of half of the passages as a little more than nothing; the length of a passage is set
against a fixed one, since the mean changes with each document.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.asked import asked
from windlass.apply.rag.indexes.embedded.layout import IndexMeta
from windlass.apply.rag.indexes.embedded.writing import check
from windlass.apply.rag.indexes.fusion import SearchSettings, fuse
from windlass.apply.rag.indexes.qdrant import points
from windlass.apply.rag.indexes.qdrant.collections import Collections
from windlass.apply.rag.indexes.qdrant.points import State
from windlass.apply.rag.indexes.terms import FUNCTION_WORDS, Tokenizer
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Entry
from windlass.core.errors import InputError, MissingExtra, NotFound, Unsupported
from windlass.core.files import sha256_json
from windlass.core.protocols import Embedder, Hit
from windlass.core.values import Citation
from windlass.core.workspace import Workspace

try:
    from qdrant_client import models
except ModuleNotFoundError as error:
    raise MissingExtra("An index in Qdrant", "qdrant") from error

_AT_ONCE = 256


class QdrantIndex:
    """Implements `windlass.core.protocols.LiveIndex`. Safe to share between threads.

    `url` is the server's (`http://127.0.0.1:6333`), or `:memory:` for an index that ends with the process, which is
    for tests. Qdrant's own folders are not offered: it keeps them as pickles, which run what they hold.
    """

    def __init__(
        self,
        url: str,
        embedder: Embedder,
        *,
        name: str = "docs",
        search: SearchSettings | None = None,
        context: int = 120,
        api_key: str | None = None,
        timeout_s: int = 30,
    ) -> None:
        self.embedder, self.name, self.where = embedder, name, url
        self.settings = search or SearchSettings()
        if self.settings.context_weight != 1.0:
            raise Unsupported(
                "An index in Qdrant cannot weigh the words of titles and headings by themselves.",
                "Leave `context_weight` at 1, or use another index.",
            )
        self._tokenizer = Tokenizer()
        self._function_words = frozenset(self._tokenizer.terms([FUNCTION_WORDS])[0])
        self._writing = threading.Lock()
        self._held = Collections(url, name, api_key=api_key, timeout_s=timeout_s)
        self._passages, self._documents = self._held.passages, self._held.documents
        try:
            self._held.open(embedder, context)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._held.close()

    # reading --------------------------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        state = self._held.state()
        return sha256_json([state.embedder, state.context, sorted(self.held().items())])

    def __len__(self) -> int:
        return int(self._passages.ask("count", count_filter=points.visible(self._held.state()), exact=True).count)

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
        words = points.sparse(Counter(self._tokenizer.terms([query])[0]))
        while True:
            state = self._held.state()
            hits = self._found(vector, words, k, where or {}, access, state)
            # What a later state has replaced is cleared away: the search may have missed it.
            if hits is not None and (len(hits) == k or self._held.state().number == state.number):
                return hits

    def _found(
        self,
        vector: NDArray[np.float32],
        words: models.SparseVector,
        k: int,
        where: Mapping[str, Any],
        access: Collection[str],
        state: State,
    ) -> list[Hit] | None:
        """None when something was cleared away between two of its queries."""
        depth = max(self.settings.depth, k)
        visible = points.visible(state, points.condition(where, access))
        near = self._best(vector.tolist(), "dense", visible, depth)
        if len(near) < depth:  # the graph may have lost its way among what the filter leaves out
            near = self._best(vector.tolist(), "dense", visible, depth, exact=True)
        if not near:
            self._check(where, access, state)
            return []
        worded = self._best(words, "words", visible, depth)
        ids = sorted({*near, *worded})
        these = models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
        dense = self._best(vector.tolist(), "dense", these, len(ids), exact=True)
        bm25 = self._best(words, "words", these, len(ids))
        if len(dense) < len(ids):
            return None
        ranked = fuse(
            np.array([dense[id] for id in ids], np.float32),
            np.array([bm25.get(id, 0.0) for id in ids], np.float32),
            k,
            self.settings,
        )
        ranked = ranked.moved(np.array(ids, np.int64))
        citations = {one.id: points.citation(one.payload) for one in self._passages.points(ranked.rows.tolist())}
        if len(citations) < len(ranked.rows):
            return None
        return [
            Hit(
                int(row),
                float(ranked.score[i]),
                citations[int(row)],
                {
                    "dense": float(ranked.dense[i]),
                    "bm25": float(ranked.bm25[i]),
                    "dense_rank": float(ranked.dense_rank[i]),
                    "bm25_rank": float(ranked.bm25_rank[i]),
                },
            )
            for i, row in enumerate(ranked.rows)
        ]

    def _best(
        self, query: Any, using: str, among: models.Filter, limit: int, *, exact: bool = False
    ) -> dict[int, float]:
        """Passages and their scores, best first."""
        if isinstance(query, models.SparseVector) and not query.indices:
            return {}
        found = self._passages.ask(
            "query_points",
            query=query,
            using=using,
            query_filter=among,
            limit=limit,
            with_payload=False,
            # Without a server every search is exact.
            search_params=models.SearchParams(exact=True) if exact and not self._held.local else None,
        )
        return {int(point.id): point.score for point in found.points}

    def _check(self, where: Mapping[str, Any], access: Collection[str], state: State) -> None:
        """Raises `InputError` for a key that no document has which the asker may see."""
        known = {"document", "source"}
        seen = False
        for point in self._documents.all(points.visible(state, points.condition({}, access)), ["metadata"]):
            known |= point.payload["metadata"].keys() - {"access"}
            seen = True
        for key in where:
            if seen and points.storable(key) not in {*known, "access"}:
                raise InputError(
                    f"No document of the index has '{key}'.",
                    f"Documents can be filtered by: {', '.join(sorted(known))}.",
                )

    @property
    def meta(self) -> IndexMeta:
        state = self._held.state()
        return IndexMeta(state.embedder, state.embedder_name, state.dimension, context=state.context)

    def coverage(self, query: str, passages: Sequence[int]) -> float:
        """Share of the query's words, weighted by rarity, that these passages hold between them; in [0, 1]."""
        asked = dict.fromkeys(self._tokenizer.terms([query])[0])
        words = points.sparse({word: 1.0 for word in asked if word not in self._function_words})
        stored = self._passages.ask("retrieve", list(passages), with_payload=False, with_vectors=["words"])
        here = {number for point in stored for number in point.vector["words"].indices}
        total = len(self)
        idf = {number: self._idf(number, total) for number in words.indices}
        weight = sum(idf.values())
        return sum(idf[number] for number in idf.keys() & here) / weight if weight else 0.0

    def _idf(self, word: int, passages: int) -> float:
        """How rare a word is. Qdrant tells nobody, but it shows in the score of any passage that holds it."""
        alone = models.SparseVector(indices=[word], values=[1.0])
        found = self._passages.ask("query_points", query=alone, using="words", limit=1, with_vectors=["words"])
        for point in found.points:
            stored = point.vector["words"]
            return float(point.score / stored.values[stored.indices.index(word)])
        return math.log((passages + 0.5) / 0.5 + 1)

    @property
    def characters(self) -> int:
        """Of all passages together."""
        found = self._passages.all(points.visible(self._held.state()), ["start", "end"])
        return sum(point.payload["end"] - point.payload["start"] for point in found)

    def passages(self, where: Mapping[str, Any] | None = None, access: Collection[str] = ()) -> list[Citation]:
        """All passages that match, in the order of the documents: together they are what the documents say."""
        state = self._held.state()
        found = list(self._passages.all(points.visible(state, points.condition(where or {}, access)), None))
        if not found:
            self._check(where or {}, access, state)
        return [points.citation(point.payload) for point in sorted(found, key=lambda point: point.id)]

    def with_settings(self, settings: SearchSettings) -> QdrantIndex:
        """The same open index, ranked another way."""
        other = copy(self)
        other.settings = settings
        return other

    def passages_around(self, passage: int, before: int = 1, after: int = 1) -> list[Citation]:
        owner = self._owner(passage)
        first, last = owner["first"], owner["first"] + owner["passages"] - 1
        ids = list(range(max(first, passage - before), min(last, passage + after) + 1))
        found = {point.id: points.citation(point.payload) for point in self._passages.points(ids)}
        return [found[id] for id in ids]

    def document_of(self, passage: int) -> Document:
        owner = self._owner(passage)
        return Document(
            owner["document"],
            owner["source"],
            owner["title"],
            owner["text"],
            owner["format"],
            metadata=owner["metadata"],
        )

    def _owner(self, passage: int) -> Mapping[str, Any]:
        state = self._held.state()
        for point in self._passages.points([passage]):
            if points.counts(point.payload, state):
                for document in self._documents.points([point.payload["owner"]]):
                    found: Mapping[str, Any] = document.payload
                    return found
        raise _no_passage(passage)

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]:
        stored = self._passages.ask("retrieve", list(passages), with_payload=False, with_vectors=["dense"])
        found = {point.id: point.vector["dense"] for point in stored}
        for passage in passages:
            if passage not in found:
                raise _no_passage(passage)
        return np.array([found[passage] for passage in passages], np.float32).reshape(-1, self.embedder.dimension)

    def metadata_of(self, documents: Sequence[str]) -> list[Mapping[str, Any]]:
        """What is known of documents besides their texts, in the order asked for. Raises `NotFound`."""
        ids = list(map(points.storable, documents))
        these = points.visible(self._held.state(), [points.any_of("document", ids)])
        found = {
            point.payload["document"]: point.payload["metadata"]
            for point in self._documents.all(these, ["document", "metadata"])
        }
        for id in ids:
            if id not in found:
                raise NotFound(f"The index holds no document '{id}'.", "It may have been removed meanwhile.")
        return [found[id] for id in ids]

    def facets(self, access: Collection[str] = ()) -> Mapping[str, Sequence[Any]]:
        """The values under each key of the metadata, most frequent first, of documents that these labels may see."""
        counts: dict[str, Counter[Any]] = {}
        for point in self._documents.all(
            points.visible(self._held.state(), points.condition({}, access)), ["metadata"]
        ):
            for key, value in point.payload["metadata"].items():
                if key != "access":
                    counts.setdefault(key, Counter()).update(
                        v for v in points.values_of(value) if not isinstance(v, dict)
                    )
        return {key: [value for value, _ in often.most_common()] for key, often in counts.items()}

    def held(self) -> Mapping[str, str]:
        found = self._documents.all(points.visible(self._held.state()), ["document", "digest"])
        return {point.payload["document"]: point.payload["digest"] for point in found}

    # writing --------------------------------------------------------------------------------------------------------

    def put(self, entries: Iterable[Entry]) -> None:
        with self._writing:
            state = self._swept()
            coming = state.number + 1
            ids: set[str] = set()
            left = iter(entries)
            while batch := list(islice(left, _AT_ONCE)):
                check(batch, self.meta)
                for entry in batch:
                    id = points.storable(entry.document.id)
                    if id in ids:
                        raise InputError(f"Document '{id}' is to be put twice at once.", "Put its newest version.")
                    ids.add(id)
                state = self._written(batch, state, coming)
            self._replaced(sorted(ids), state, coming)

    def delete(self, documents: Iterable[str]) -> int:
        with self._writing:
            state = self._swept()
            ids = sorted(set(map(points.storable, documents)))
            there = self._documents.ask(
                "count",
                count_filter=points.visible(state, [points.any_of("document", ids)]),
                exact=True,
            )
            self._replaced(ids, state, state.number + 1)
            return int(there.count)

    def _written(self, batch: Sequence[Entry], state: State, coming: int) -> State:
        """Writes some entries, which do not count yet."""
        documents, passages, state = points.made(batch, state, coming, self._tokenizer)
        for collection, some in ((self._passages, passages), (self._documents, documents)):
            for at in range(0, len(some), _AT_ONCE):
                collection.ask("upsert", some[at : at + _AT_ONCE], wait=True)
        return state

    def _replaced(self, ids: Sequence[str], state: State, coming: int) -> None:
        """Makes the coming state the one that counts, in which these documents are what was written last."""
        old = models.Filter(must=[points.any_of("document", ids), points.upto("born", state.number)])
        for collection in (self._passages, self._documents):
            collection.ask("set_payload", payload={"died": coming}, points=old, wait=True)
        state = replace(state, number=coming)
        self._held.keep(state)
        self._sweep(state)

    def _swept(self) -> State:
        """The state that counts, after what others left half-done is undone."""
        state = self._held.state()
        self._sweep(state)
        return state

    def _sweep(self, state: State) -> None:
        for collection in (self._passages, self._documents):
            never, later = points.between("born", gt=state.number), points.between("died", gt=state.number)
            for gone in (never, points.upto("died", state.number)):
                chosen = models.FilterSelector(filter=models.Filter(must=[gone]))
                collection.ask("delete", points_selector=chosen, wait=True)
            still = models.Filter(must=[later])
            collection.ask("delete_payload", keys=["died"], points=still, wait=True)

    def snapshot(self, ws: Workspace, name: str) -> Artifact:
        raise Unsupported(
            f"An index in Qdrant cannot be frozen as '{name}'.",
            "Take Qdrant's own snapshot, or ingest the same documents into an embedded index and freeze that.",
        )


def _no_passage(passage: int) -> NotFound:
    return NotFound(f"The index holds no passage {passage}.", "It may have been removed meanwhile: search again.")

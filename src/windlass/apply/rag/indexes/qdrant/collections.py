"""The collections of an index in a Qdrant server, of its passages and of its documents, and what is asked of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from windlass.apply.rag.indexes.compatible import check_format, check_vectors
from windlass.apply.rag.indexes.qdrant import points
from windlass.apply.rag.indexes.qdrant.points import FORMAT, State
from windlass.core.errors import InputError, MissingExtra, WorkspaceError
from windlass.core.protocols import Embedder

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ModuleNotFoundError as error:
    raise MissingExtra("An index in Qdrant", "qdrant") from error

MEMORY = ":memory:"
_STATE = 0
"""The point that holds the state, among those of documents, which count from 1."""


class Collection:
    """One of them."""

    def __init__(
        self, client: QdrantClient, turn: contextlib.AbstractContextManager[Any], name: str, where: str
    ) -> None:
        """`turn`: held while the client is asked."""
        self.name = name
        self._client, self._turn, self._where = client, turn, where

    def ask(self, what: str, *given: Any, **named: Any) -> Any:
        """A method of the client, for this collection; what goes wrong with the server is told in one sentence."""
        try:
            with self._turn:
                return getattr(self._client, what)(self.name, *given, **named)
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise InputError(
                    f"Qdrant at {self._where} does not let this user in (status {error.status_code}).",
                    "Set the environment variable QDRANT_API_KEY.",
                ) from error
            raise
        except ResponseHandlingException as error:
            raise WorkspaceError(
                f"Qdrant at {self._where} does not answer: {error.source}.",
                "See that the server runs, then do the same again: what was acknowledged is kept.",
            ) from error

    def points(self, ids: Sequence[int]) -> list[Any]:
        found: list[Any] = self.ask("retrieve", list(ids))
        return found

    def all(self, among: models.Filter, fields: list[str] | None) -> Iterator[Any]:
        """All points that are meant, in the order of their numbers, with these fields or with all."""
        place = None
        while True:
            some, place = self.ask("scroll", scroll_filter=among, limit=1000, offset=place, with_payload=fields or True)
            yield from some
            if place is None:
                return


class Collections:
    """`url`: as of `QdrantIndex`. Safe to share between threads."""

    def __init__(self, url: str, name: str, *, api_key: str | None, timeout_s: int) -> None:
        self.name, self.where = name, url
        self.local = url == MEMORY
        """Whether there is no server."""
        self._client = (
            QdrantClient(MEMORY)
            if self.local
            else QdrantClient(url=url, api_key=api_key, timeout=timeout_s, check_compatibility=False)
        )
        turn: contextlib.AbstractContextManager[Any] = threading.RLock() if self.local else contextlib.nullcontext()
        self.passages = Collection(self._client, turn, f"windlass_{name}", url)
        self.documents = Collection(self._client, turn, f"windlass_{name}_documents", url)

    def close(self) -> None:
        self._client.close()

    def open(self, embedder: Embedder, context: int) -> None:
        """Makes them where they are not there. Raises `InputError` for those of another format or embedder."""
        if not self.documents.ask("collection_exists"):
            self._make(embedder, context)
        state = self.state()
        index = f"Index '{self.name}' in {self.where}"
        check_format(index, state.format, FORMAT)
        check_vectors(index, state, embedder)

    def _make(self, embedder: Embedder, context: int) -> None:
        if not self.passages.ask("collection_exists"):
            self.passages.ask(
                "create_collection",
                vectors_config={"dense": models.VectorParams(size=embedder.dimension, distance=models.Distance.DOT)},
                sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            )
        self.documents.ask("create_collection", vectors_config={})
        if not self.local:
            for field, kind in points.INDEXED.items():
                for collection in (self.passages, self.documents):
                    collection.ask("create_payload_index", field_name=field, field_schema=kind)
        self.keep(State(embedder.digest, embedder.name, embedder.dimension, context))

    def state(self) -> State:
        found = self.documents.ask("retrieve", [_STATE])
        if not found:
            raise WorkspaceError(
                f"Index '{self.name}' in {self.where} was not made to the end.",
                f"Delete the collections {self.documents.name} and {self.passages.name}, and make it again.",
            )
        return State(**found[0].payload)

    def keep(self, state: State) -> None:
        point = models.PointStruct(id=_STATE, vector={}, payload=asdict(state))
        self.documents.ask("upsert", [point], wait=True)

"""What passages are found in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from windlass.core.protocols.embedding import Embedder
from windlass.core.values import Citation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from windlass.core.artifacts import Artifact
    from windlass.core.documents import Document, Entry
    from windlass.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found. `score` is comparable only within one search."""

    passage: int
    """The passage's id in its index."""
    score: float
    citation: Citation
    """The whole passage as a quotation."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What each retriever said: `bm25`, `dense`, and their ranks."""


@runtime_checkable
class Index(Protocol):
    """A searchable set of passages. A search returns `k` hits whenever `k` passages match."""

    @property
    def digest(self) -> str:
        """Of what is in it: an index with other passages or vectors has another."""
        ...

    def __len__(self) -> int:
        """Passages."""
        ...

    def search(
        self,
        query: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        """The best `k` of the passages that `where` and `access` let through, best first.

        `where`: keys of the documents' metadata (or `document`, `source`) to a value or a list of allowed values;
        `InputError` for a key that no document has. `access`: the labels that the asker holds; without them only
        public documents are searched. `vector`: the query's own, shape (dimension,), when it is known already or is
        to be another than the embedder's.
        """
        ...


@runtime_checkable
class BatchIndex(Index, Protocol):
    """An index that is faster with several queries at once: their vectors are made together, and searched together."""

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        """As `search` for each query. `vectors`: of the queries, shape (queries, dimension), as its `vector`."""
        ...


@runtime_checkable
class LiveIndex(Index, Protocol):
    """An index that is written to while it is searched. Safe to share between threads."""

    @property
    def embedder(self) -> Embedder:
        """Whose vectors it holds."""
        ...

    def held(self) -> Mapping[str, str]:
        """Id and `Entry.digest` of each document that it holds."""
        ...

    def put(self, entries: Iterable[Entry]) -> None:
        """Adds documents, in place of those of the same ids, all in one transaction: whatever happens meanwhile, each
        is in the index whole, as it was or as it is. An entry without passages is held, and never found. Raises
        `InputError` for vectors of another shape."""
        ...

    def delete(self, documents: Iterable[str]) -> int:
        """Removes documents with all of their passages, in one transaction; returns how many there were."""
        ...

    def passages_around(self, passage: int, before: int = 1, after: int = 1) -> list[Citation]:
        """A passage with those that stand before and after it in its document, in order. Raises `NotFound`."""
        ...

    def document_of(self, passage: int) -> Document:
        """The document that a passage was cut from, with its whole text, without its sections. Raises `NotFound`."""
        ...

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of passages, one row for each. Raises `NotFound`."""
        ...

    def snapshot(self, ws: Workspace, name: str) -> Artifact:
        """Freezes what it holds now as an artifact of the kind `index`. Raises `Unsupported` where it cannot."""
        ...

    def close(self) -> None: ...

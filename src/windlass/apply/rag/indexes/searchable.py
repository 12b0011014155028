"""What an assistant needs of an index, wherever it is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.layout import IndexMeta
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.live import EmbeddedIndex
from windlass.core.protocols import Embedder, Index
from windlass.core.values import Citation


class Searchable(Index, Protocol):
    """An `Index` that also tells how much of a question passages hold, and what is known of its documents."""

    @property
    def settings(self) -> SearchSettings: ...

    @property
    def meta(self) -> IndexMeta: ...

    @property
    def embedder(self) -> Embedder:
        """Of its vectors, adapted as they are."""
        ...

    @property
    def characters(self) -> int:
        """Of all passages together."""
        ...

    def with_settings(self, settings: SearchSettings) -> Self:
        """The same index, ranked another way."""
        ...

    def coverage(self, query: str, passages: Sequence[int]) -> float:
        """Share of the query's words, weighted by rarity, that these passages hold between them; in [0, 1]."""
        ...

    def passages(self, where: Mapping[str, Any] | None = None, access: Collection[str] = ()) -> list[Citation]:
        """All that match, in the order of the documents."""
        ...

    def metadata_of(self, documents: Sequence[str]) -> list[Mapping[str, Any]]: ...

    def facets(self, access: Collection[str] = ()) -> Mapping[str, Sequence[Any]]:
        """Keys of the metadata and their values, of the documents that these labels may see."""
        ...

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]: ...


@contextlib.contextmanager
def one_version(index: Searchable) -> Iterator[Searchable]:
    """An index that does not change while one works with it, as far as it can promise that: the embedded one does."""
    if isinstance(index, EmbeddedIndex):
        with index.reading() as now:
            yield now
    else:
        yield index

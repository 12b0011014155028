"""The small interfaces where implementations plug in. Each has one conformance suite in `tests/conformance`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EmbedKind = Literal["query", "passage"]


@runtime_checkable
class ChatModel(Protocol):
    """Anything that answers a chat request: a local model, a remote provider, a grounded assistant."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None:
        """Digest of the artifact behind the model, or None for a remote one."""
        ...

    def complete(self, request: ChatRequest) -> ChatResponse: ...

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """Deltas whose texts concatenate to the message of the response that the last delta carries."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    vectors: NDArray[np.float32]
    """Shape (texts, dimension), rows of unit length."""
    tokens: int
    truncated: int = 0
    """How many of the texts were longer than the model reads and were cut."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors. `digest` changes whenever its outputs may."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings: ...


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
    def digest(self) -> str: ...

    def __len__(self) -> int: ...

    def search(self, query: str, k: int = 10, where: Mapping[str, Any] | None = None) -> list[Hit]: ...

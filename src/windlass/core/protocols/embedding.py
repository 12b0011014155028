"""Models that turn texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EmbedKind = Literal["query", "passage"]


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


@runtime_checkable
class LateEmbedder(Embedder, Protocol):
    """One that can tell its tokens apart: a text is read whole, and vectors of its parts are taken from that."""

    def token_starts(self, text: str) -> NDArray[np.int64]:
        """Where each token of a text starts, in characters; none is left out, however long the text is."""
        ...

    def embed_spans(self, text: str, spans: Sequence[tuple[int, int]], above: str = "") -> Embeddings:
        """The mean of the vectors of the tokens in each span of characters, scaled to unit length. A text longer than
        the model reads is read through windows that overlap. `above`: read at the head of each window, not pooled."""
        ...

"""The first numbers of each vector: for embedders that were trained so that these alone say nearly all.

Kusupati et al., "Matryoshka Representation Learning" (2022). An index of such vectors is smaller and faster by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import Embedder, Embeddings, EmbedKind


@dataclass(frozen=True, slots=True)
class Cut:
    """Implements `Embedder`: the first `dimension` numbers of another one's vectors, at unit length again."""

    embedder: Embedder
    dimension: int

    def __post_init__(self) -> None:
        if not 0 < self.dimension <= self.embedder.dimension:
            raise InputError(
                f"Vectors of {self.embedder.name} cannot be cut to {self.dimension} numbers.",
                f"They have {self.embedder.dimension}.",
            )

    @property
    def name(self) -> str:
        return f"{self.embedder.name}-{self.dimension}"

    @property
    def digest(self) -> str:
        return sha256_json([self.embedder.digest, "cut", self.dimension])

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        made = self.embedder.embed(texts, kind)
        vectors = made.vectors[:, : self.dimension]
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return replace(made, vectors=(vectors / lengths).astype(np.float32))

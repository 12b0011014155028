"""An embedder without a model: words and their three-letter pieces, hashed into a vector (Weinberger et al., 2009).

It knows no meaning, only shared spelling, but it is instant, deterministic and needs nothing installed: for tests,
and for trying the pipeline where no model can be had.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from windlass.core.files import sha256_json
from windlass.core.protocols import Embeddings, EmbedKind

_WORD = re.compile(r"\w+")


class HashingEmbedder:
    """Implements `Embedder`; questions and passages are treated alike."""

    def __init__(self, dimension: int = 256) -> None:
        self._dimension = dimension

    @property
    def name(self) -> str:
        return f"hashing-{self._dimension}"

    @property
    def digest(self) -> str:
        return sha256_json(["hashing", 1, self._dimension])

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        vectors = np.zeros((len(texts), self._dimension), np.float32)
        tokens = 0
        for row, text in zip(vectors, texts, strict=True):
            words = _WORD.findall(text.lower())
            tokens += len(words)
            for word in words:
                for feature, weight in _features(word):
                    row[feature % self._dimension] += weight if feature & (1 << 40) else -weight
            length = float(np.linalg.norm(row))
            if length == 0.0:  # no word at all: some unit vector, always the same
                row[0] = length = 1.0
            row /= length
        return Embeddings(vectors, tokens)


@lru_cache(maxsize=100_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    padded = f"<{word}>"
    pieces = {padded[i : i + 3] for i in range(len(padded) - 2)} - {padded}
    return ((_hash(padded), 1.0), *((_hash(piece), 0.3) for piece in sorted(pieces)))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")

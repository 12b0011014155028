"""The embedder without a model: unit vectors of what is spelt."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from windlass.apply.rag.embedding.hashing import HashingEmbedder


@given(st.lists(st.text(max_size=30), max_size=6), st.sampled_from([1, 16, 256]))
def test_every_text_has_a_unit_vector_of_its_own_words(texts: list[str], dimension: int) -> None:
    embedder = HashingEmbedder(dimension)
    vectors = embedder.embed(texts).vectors
    assert vectors.shape == (len(texts), dimension) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = [embedder.embed([text]).vectors[0] for text in texts]
    assert all(np.array_equal(one, row) for one, row in zip(alone, vectors, strict=True))


def test_shared_spelling_is_likeness() -> None:
    a, b, c = HashingEmbedder().embed(["the old pump station", "old pumps and a station", "violin strings"]).vectors
    assert a @ b > a @ c + 0.2
    assert HashingEmbedder(64).digest != HashingEmbedder(128).digest

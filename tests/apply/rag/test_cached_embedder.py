"""Vectors that are known are not computed again, and are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.embedding.vectors import CachedEmbedder
from windlass.core.errors import WorkspaceCorrupt
from windlass.core.protocols import EmbedKind

LISTS = st.lists(st.lists(st.sampled_from("pump valve oven bread star song".split()), max_size=5), max_size=5)  # noqa: SIM905


@settings(max_examples=25, deadline=None)
@given(LISTS)
def test_what_comes_from_the_cache_is_what_the_embedder_says(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]
) -> None:
    plain = HashingEmbedder(16)
    cached = CachedEmbedder(plain, tmp_path_factory.mktemp("cache") / "vectors.db")
    for texts in [*calls, *calls]:
        found, expected = cached.embed(texts), plain.embed(list(dict.fromkeys(texts)))
        assert np.array_equal(found.vectors, plain.embed(texts).vectors)
        assert cached.computed <= len({text for call in calls for text in call}), "something was computed twice"
        if texts == calls[0]:
            assert found.tokens == expected.tokens, "a text that is repeated is read once"
    cached.close()


def test_kinds_and_embedders_do_not_meet(tmp_path: Path) -> None:
    class Sided(HashingEmbedder):
        def embed(self, texts: Sequence[str], kind: EmbedKind = "passage"):  # type: ignore[no-untyped-def]
            return super().embed([f"{kind} {text}" for text in texts])

    cached = CachedEmbedder(Sided(16), tmp_path / "vectors.db")
    query, passage = (cached.embed(["pump"], kind).vectors for kind in ("query", "passage"))
    assert not np.array_equal(query, passage) and cached.computed == 2
    other = CachedEmbedder(HashingEmbedder(8), tmp_path / "vectors.db")
    assert other.embed(["pump"]).vectors.shape == (1, 8) and other.computed == 1
    cached.close()
    other.close()


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "vectors.db").write_text("this is a letter to my aunt, not a database " * 40)
    with pytest.raises(WorkspaceCorrupt, match=r"vectors\.db"):
        CachedEmbedder(HashingEmbedder(8), tmp_path / "vectors.db")

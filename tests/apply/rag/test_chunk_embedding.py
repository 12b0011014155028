"""The vectors of passages: from their own texts, or from whole documents, never from what is masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chunk_world import Words, documents
from hypothesis import given, settings

from windlass.apply.rag.chunking import ChunkSettings, chunk, embed_passages, embedding_text
from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.chunking.contextual import ContextWriter
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.embedding.vectors import CachedEmbedder
from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.protocols import LateEmbedder
from windlass.testing import Scripted

SECRET = "the code is 4711"
TEXT = f"The pump moves water. It is red.\n\nNobody knows that {SECRET} here.\n\nBread rises. It is baked at night."


def test_by_default_a_passage_is_embedded_below_its_context() -> None:
    document = Document("d", "d.md", "Manual", TEXT)
    passages = list(chunk(document))
    made = embed_passages([(document, passages)], ChunkSettings(), HashingEmbedder())
    assert np.array_equal(made.vectors, HashingEmbedder().embed([embedding_text(p) for p in passages]).vectors)


def test_late_reads_documents_whole_but_not_across_what_is_masked() -> None:
    words = Words()
    small = ChunkSettings(target=30, limit=60, late=True)
    at = TEXT.index(SECRET)
    both = [Document("a", "a.md", "Manual", TEXT), Document("b", "b.md", "", "Oil it. Once a week.")]
    cut = [(both[0], list(chunk(both[0], [(at, at + len(SECRET))], small))), (both[1], list(chunk(both[1], (), small)))]
    made = embed_passages(cut, small, words)
    assert made.vectors.shape == (sum(len(passages) for _, passages in cut), 64)
    assert words.read == [
        "Manual|" + TEXT[:at].rstrip(),
        "Manual|" + TEXT[at + len(SECRET) :].lstrip(),
        "|" + both[1].text,
    ]
    first = cut[0][1][0]
    alone = Words().embed_spans(TEXT[:at].rstrip(), [(first.start, first.end)], "Manual")
    assert np.allclose(made.vectors[0], alone.vectors[0])


@given(documents())
@settings(max_examples=60)
def test_late_never_reads_what_is_masked(case: tuple[Document, list[tuple[int, int]]]) -> None:
    document, masked = case
    marked = "".join(
        "\N{SNOWMAN}" if any(start <= i < end for start, end in masked) else c for i, c in enumerate(document.text)
    )
    document = Document("d", "d.md", "Title", marked, document.format)
    words, small = Words(), ChunkSettings("sentence", target=60, limit=100, overlap=20, late=True)
    passages = list(chunk(document, masked, small))
    assert len(embed_passages([(document, passages)], small, words).vectors) == len(passages)
    assert not any("\N{SNOWMAN}" in text for text in words.read)


def test_late_vectors_are_kept_by_all_that_they_depend_on(tmp_path: Path) -> None:
    words = Words()
    cached = CachedEmbedder(words, tmp_path / "vectors.db")
    assert isinstance(cached, LateEmbedder)
    first = cached.embed_spans(TEXT, [(0, 20), (5, 30)], "Manual")
    again = cached.embed_spans(TEXT, [(0, 20), (5, 30)], "Manual")
    assert np.array_equal(first.vectors, again.vectors) and first.tokens == again.tokens and len(words.read) == 1
    cached.embed_spans(TEXT + " ", [(0, 20)], "Manual")
    cached.embed_spans(TEXT, [(0, 20)], "Other")
    cached.embed_spans(TEXT, [(0, 21)], "Manual")
    assert len(words.read) == 4 and cached.computed == 5
    assert np.array_equal(cached.token_starts("a b"), [0, 2])
    cached.close()


def test_an_embedder_of_whole_texts_is_refused_by_name(tmp_path: Path) -> None:
    document = Document("d", "d.md", "", TEXT)
    cached = CachedEmbedder(HashingEmbedder(), tmp_path / "vectors.db")
    for embedder in (HashingEmbedder(), cached):
        with pytest.raises(InputError, match="'hashing-256' gives vectors of whole texts only"):
            embed_passages([(document, list(chunk(document)))], ChunkSettings(late=True), embedder)
        with pytest.raises(InputError, match="whole texts only"):
            Chunker(embedder, ChunkSettings(late=True))
    cached.close()


def test_a_chunker_cuts_embeds_and_knows_what_that_depends_on() -> None:
    document = Document("d", "d.md", "Manual", TEXT)
    plain = Chunker(HashingEmbedder())
    passages = plain.passages(document)
    assert passages == list(chunk(document))
    assert len(plain.embed([(document, passages)]).vectors) == len(passages)
    model = Scripted("About pumps.")
    model.digest = "f" * 64
    written = Chunker(HashingEmbedder(), ChunkSettings(written=True), ContextWriter(model))
    others = [Chunker(HashingEmbedder(64)), Chunker(HashingEmbedder(), ChunkSettings(target=500)), written]
    assert len({one.digest for one in [plain, *others]}) == 4
    assert plain.digest == Chunker(HashingEmbedder()).digest
    with pytest.raises(InputError, match="written by a chat model"):
        Chunker(HashingEmbedder(), ChunkSettings(written=True))
    with pytest.raises(InputError, match="nothing to write"):
        Chunker(HashingEmbedder(), ChunkSettings(), ContextWriter(model))

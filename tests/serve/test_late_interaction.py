"""Reranking by an embedder's words: the library's token vectors, and the definition of the score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from encoder_world import save_encoder

from windlass.core.errors import InputError
from windlass.core.protocols import Reranker
from windlass.serve.encoders.embedder import SentenceEncoder
from windlass.serve.encoders.late_interaction import LateInteraction

TEXTS = ["pump moves water", "bread rises", "a cat " * 30, "the violin music is old"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "model", "Bert", "Model")
    return tmp_path / "model"


@pytest.mark.filterwarnings("ignore")
def test_words_have_the_librarys_token_vectors(folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules as steps

    peer = library.SentenceTransformer(
        modules=[steps.Transformer(str(folder)), steps.Pooling(32, "mean")], device="cpu"
    )
    encoder = SentenceEncoder.from_folder(folder)
    found = encoder.words(TEXTS)
    theirs = peer.encode(TEXTS, output_value="token_embeddings")
    for ours, vectors in zip(found.vectors, theirs, strict=True):
        unit = torch_free(vectors)[1:-1]  # without the tokens around a text
        np.testing.assert_allclose(ours, unit / np.linalg.norm(unit, axis=1, keepdims=True), atol=1e-4)
    assert found.tokens == encoder.embed(TEXTS).tokens and found.truncated == encoder.embed(TEXTS).truncated


def torch_free(vectors: object) -> np.ndarray:
    return np.asarray(vectors.cpu() if hasattr(vectors, "cpu") else vectors, np.float32)


def test_the_score_is_the_mean_of_the_best_cosines(folder: Path) -> None:
    encoder = SentenceEncoder.from_folder(folder)
    reranker = LateInteraction(encoder)
    assert isinstance(reranker, Reranker) and len(reranker.digest) == 64
    found = reranker.rank("pump water", TEXTS)
    asked = encoder.words(["pump water"]).vectors[0]
    for score, words in zip(found.scores, encoder.words(TEXTS).vectors, strict=True):
        assert score == pytest.approx(np.mean([max(q @ w for w in words) for q in asked]), abs=1e-5)
    assert found.tokens > 0


def test_a_prompt_is_read_and_left_out(folder: Path) -> None:
    plain = SentenceEncoder.from_folder(folder).words(["pump water"], "query").vectors[0]
    prompts = {"prompts": {"query": "the old "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    behind = SentenceEncoder.from_folder(folder).words(["pump water"], "query").vectors[0]
    assert behind.shape == plain.shape and not np.allclose(behind, plain)


def test_a_document_without_a_word_comes_last_and_a_query_without_one_is_refused(folder: Path) -> None:
    reranker = LateInteraction(SentenceEncoder.from_folder(folder))
    scores = reranker.rank("pump", ["", *TEXTS]).scores
    assert scores[0] == -1.0 == min(scores)
    with pytest.raises(InputError, match="no word"):
        reranker.rank(" ", TEXTS)
    with pytest.raises(InputError, match="Text 1"):
        reranker.rank("pump", ["bread", 3])  # type: ignore[list-item]

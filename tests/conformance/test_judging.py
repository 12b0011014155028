"""What every `Reranker` and every `Classifying` must do. A new implementation adds itself to `RERANKERS` or
`CLASSIFIERS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.serve.encoder_world import save_encoder

from windlass.core.errors import InputError
from windlass.core.protocols import Classifying, Reranker

TEXTS = ["Pumps move water.", "Bread rises.", "", "Pumps move water.", "日本語 äöü 🎈", "a " * 3000]


def cross_encoder(folder: Path) -> Reranker:
    from windlass.serve.encoders.cross_encoder import CrossEncoder

    save_encoder(folder, "ModernBert", "ForSequenceClassification", num_labels=1)
    return CrossEncoder.from_folder(folder)


def text_classifier(folder: Path) -> Classifying:
    from windlass.serve.encoders.cross_encoder import TextClassifier

    save_encoder(folder, "Bert", "ForSequenceClassification", num_labels=3)
    return TextClassifier.from_folder(folder)


RERANKERS: dict[str, Callable[[Path], Reranker]] = {"cross-encoder": cross_encoder}
CLASSIFIERS: dict[str, Callable[[Path], Classifying]] = {"encoder": text_classifier}


@pytest.mark.parametrize("maker", RERANKERS)
def test_rerankers(maker: str, tmp_path: Path) -> None:
    ranker = RERANKERS[maker](tmp_path)
    assert isinstance(ranker, Reranker) and ranker.name
    assert ranker.digest is None or len(ranker.digest) == 64
    found = ranker.rank("What moves water?", TEXTS)
    assert len(found.scores) == len(TEXTS) and all(type(score) is float for score in found.scores)
    assert found.tokens > 0 and found.truncated >= 0
    assert found.scores[0] == pytest.approx(found.scores[3], abs=1e-6)
    for text, score in zip(TEXTS, found.scores, strict=True):
        assert ranker.rank("What moves water?", [text]).scores[0] == pytest.approx(score, abs=1e-5)
    assert list(ranker.rank("What moves water?", []).scores) == []
    with pytest.raises(InputError, match="Text 1"):
        ranker.rank("What moves water?", ["a", None])  # type: ignore[list-item]


@pytest.mark.parametrize("maker", CLASSIFIERS)
def test_classifiers(maker: str, tmp_path: Path) -> None:
    classifier = CLASSIFIERS[maker](tmp_path)
    assert isinstance(classifier, Classifying) and classifier.name and len(set(classifier.labels)) > 1
    pairs = [*TEXTS, ("What moves water?", "Pumps.")]
    found = classifier.classify(pairs)
    assert found.probabilities.shape == (len(pairs), len(classifier.labels))
    assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
    assert found.tokens > 0 and found.truncated >= 0
    for text, row in zip(pairs, found.probabilities, strict=True):
        assert np.allclose(classifier.classify([text]).probabilities[0], row, atol=1e-5)
    assert classifier.classify([]).probabilities.shape == (0, len(classifier.labels))
    with pytest.raises(InputError, match="Text 0"):
        classifier.classify([3])  # type: ignore[list-item]

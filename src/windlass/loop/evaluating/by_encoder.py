"""Metrics that read with an encoder: BERTScore by the vectors of its tokens, similarity by those of whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.catalogue import Metric, Values, metric
from windlass.evaluate.metrics.text.bertscore import Tokens, bertscore
from windlass.evaluate.metrics.text.texts import References, paired
from windlass.loop.embedders import DEFAULT, embedder_named

BERTSCORE, SIMILARITY = "bertscore", "similarity"
NAMES = (BERTSCORE, SIMILARITY)


def metric_by(ws: Workspace | None, name: str, encoder: str = DEFAULT) -> tuple[Metric, str | None]:
    """The metric with its encoder, as `embedder_named` takes it, and the encoder's digest."""
    return bertscore_by(ws, encoder) if name == BERTSCORE else similarity_by(ws, encoder)


def bertscore_by(ws: Workspace | None, encoder: str = DEFAULT) -> tuple[Metric, str | None]:
    """Its F1, of the last layer. Raises `InputError` for an embedder that tells no vectors of tokens."""
    from windlass.serve.encoders.embedder import SentenceEncoder

    embedder = embedder_named(ws, encoder)
    if not isinstance(embedder, SentenceEncoder):
        raise InputError(f"'{encoder}' tells no vectors of tokens.", "Name minilm, or the folder of an encoder.")

    def values(found: Sequence[str], right: References) -> NDArray[np.float64]:
        texts = _texts(found, right)
        vectors = dict(zip(texts, embedder.words(texts).vectors, strict=True))
        tokens = {text: Tokens(np.asarray(one, dtype=np.float64)) for text, one in vectors.items()}
        return bertscore([tokens[one] for one in found], [[tokens[one] for one in some] for some in right]).f1

    return _with(BERTSCORE, embedder.name, values), embedder.digest


def similarity_by(ws: Workspace | None, encoder: str = DEFAULT) -> tuple[Metric, str | None]:
    """The cosine with the nearest reference."""
    embedder = embedder_named(ws, encoder)

    def values(found: Sequence[str], right: References) -> NDArray[np.float64]:
        texts = _texts(found, right)
        vectors = np.asarray(embedder.embed(texts).vectors, dtype=np.float64)
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        by_text = dict(zip(texts, vectors / lengths, strict=True))
        nearest = [max(float(by_text[one] @ by_text[wanted]) for wanted in some) for one, some in zip(found, right)]
        return np.clip(nearest, -1.0, 1.0)

    return _with(SIMILARITY, embedder.name, values), embedder.digest


def _texts(found: Sequence[str], right: References) -> list[str]:
    """Each distinct text once. Raises as `paired`."""
    return list(dict.fromkeys(text for one, some in paired(found, right) for text in (one, *some)))


def _with(name: str, encoder: str, values: Values) -> Metric:
    known = metric(name)
    return replace(known, what=f"{known.what}, by {encoder}", values=values)

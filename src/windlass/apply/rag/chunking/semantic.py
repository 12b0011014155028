"""Cuts where the subject changes: the less alike the text on both sides of a place, the cheaper a cut there.

The comparison of blocks on both sides is Hearst's ("TextTiling", Computational Linguistics 23, 1997), with the vectors
of an embedder in place of counts of words. Sizes, sections, tables and code stay what they are for a cut along the
structure; only the prices of places between sentences, lines and paragraphs are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.chunking.cheapest import Place
from windlass.apply.rag.chunking.structure import LINE
from windlass.core.protocols import Embedder

_BLOCK = 3
"""Sentences compared on each side."""
_DEAREST = 1.0
"""Price of the place with the most alike sides; that of the least alike is 0, and ranks decide between."""


def repriced(text: str, places: Sequence[Place], embedder: Embedder) -> list[Place]:
    """The same places with prices by what the embedder finds alike."""
    bounds = [i for i, place in enumerate(places) if place.price <= LINE]
    spans = [(places[a].at, places[b].at) for a, b in pairwise(bounds)]
    if len(spans) < 2:
        return list(places)
    found = likeness(_weighted(text, spans, embedder))
    price = _DEAREST * found.argsort(kind="stable").argsort(kind="stable") / max(len(found) - 1, 1)
    made = list(places)
    for i, one in zip(bounds[1:-1], price, strict=True):
        if not places[i].section:
            made[i] = replace(places[i], price=float(one))
    return made


def likeness(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Between consecutive rows, the cosine of the sums of up to three rows before and after: shape (rows - 1,)."""
    before, after = np.zeros_like(vectors[1:]), np.zeros_like(vectors[1:])
    for i in range(min(_BLOCK, len(vectors) - 1)):
        before[i:] += vectors[: len(before) - i]
        after[: len(after) - i] += vectors[1 + i :]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines: NDArray[np.float32] = np.einsum("nd,nd->n", before, after) / np.maximum(lengths, 1e-9)
    return cosines


def _weighted(text: str, spans: Sequence[tuple[int, int]], embedder: Embedder) -> NDArray[np.float32]:
    """A vector for each span, as long as the span; white space has none."""
    texts = [text[start:end].strip() for start, end in spans]
    said = [i for i, one in enumerate(texts) if one]
    vectors = np.zeros((len(texts), embedder.dimension), np.float32)
    if said:
        vectors[said] = embedder.embed([texts[i] for i in said], "passage").vectors
        vectors[said] *= np.array([[len(texts[i])] for i in said], np.float32)
    return vectors

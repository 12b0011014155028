"""A small index for the steps: it ranks by shared words, and keeps how it was searched."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.retrieving.step import Asked
from windlass.core.protocols import Hit
from windlass.core.values import Citation

DOCUMENTS: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("pump", "The red pump moves nine litres of water in a minute.", {"year": 2021, "author": "Ada"}),
    ("pump-again", "The red pump moves nine litres of water in a minute!", {"year": 2019, "author": "Bo"}),
    ("oil", "Ada oils the red pump on Mondays.", {"year": 2023, "author": "Ada", "access": ["staff"]}),
    ("ada", "Ada lives in a blue house by the river.", {"year": 2023, "author": "Cy"}),
    ("bread", "Bread rises in the oven for forty minutes.", {"author": "Bo"}),
    ("violin", "A violin has four strings.", {"year": 2021, "author": "Cy"}),
    ("stars", "Stars burn hydrogen.", {"year": 2020, "author": "Di", "access": ["astronomers"]}),
)


class SmallIndex:
    """Implements `Index`. With a vector it ranks by the cosines of hashed words instead."""

    digest = "0" * 64

    def __init__(self) -> None:
        self.embedder = HashingEmbedder(64)
        self.searches: list[Asked] = []
        self.texts = [text for _, text, _ in DOCUMENTS]
        self.vectors = self.embedder.embed(self.texts).vectors

    def __len__(self) -> int:
        return len(DOCUMENTS)

    def search(
        self,
        query: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        self.searches.append(Asked(query, k, where, access, vector))
        asked = _words(query)
        shared = [float(sum((asked & _words(text)).values())) for text in self.texts]
        scores = shared if vector is None else (self.vectors @ vector).tolist()
        known = [{**facts, "document": name} for name, _, facts in DOCUMENTS]
        passing = [n for n, facts in enumerate(known) if _passes(facts, where or {}, access)]
        best = sorted(passing, key=lambda n: -scores[n])[:k]
        return [self.hit(n, scores[n]) for n in best]

    def hit(self, n: int, score: float) -> Hit:
        name, text, _ = DOCUMENTS[n]
        return Hit(n + 1, score, Citation(name, name.title(), "", 0, len(text), text, f"{name}.txt"), {"words": score})

    def metadata_of(self, documents: Sequence[str]) -> list[Mapping[str, Any]]:
        known = {name: facts for name, _, facts in DOCUMENTS}
        return [known[document] for document in documents]

    def facets(self, access: Collection[str] = ()) -> Mapping[str, Sequence[Any]]:
        found: dict[str, dict[Any, None]] = {}
        for _, _, facts in DOCUMENTS:
            if _passes(facts, {}, access):
                for key, value in facts.items():
                    if key != "access":
                        found.setdefault(key, {})[value] = None
        return {key: list(values) for key, values in found.items()}


def named(hits: Sequence[Hit]) -> list[str]:
    return [hit.citation.document for hit in hits]


def _words(text: str) -> Counter[str]:
    return Counter(set(re.findall(r"\w+", text.lower())))


def _passes(facts: Mapping[str, Any], where: Mapping[str, Any], access: Collection[str]) -> bool:
    labels = facts.get("access", ())
    allowed = {key: value if isinstance(value, list) else [value] for key, value in where.items()}
    return (not labels or bool(set(labels) & set(access))) and all(
        facts.get(key) in values for key, values in allowed.items()
    )

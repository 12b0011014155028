"""A small world for tests of the loop: pages, an embedder that knows too little, an exam and an index.

Every page speaks of its own made-up words. A question uses other forms of them (another ending), so that BM25 finds
little. The embedder sees through the endings, but adds noise to questions in half of its dimensions: an adapter can
learn to leave that half out, on any questions, and then gets much better on all.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.index import build_index
from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.core.files import sha256_json
from windlass.core.protocols import Embeddings, EmbedKind
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.deriving import derive_exam
from windlass.evaluate.exam.items import load_items
from windlass.loop.assistants.assemble import load_assistant
from windlass.loop.assistants.variant import VariantSpec
from windlass.loop.releasing import releases
from windlass.loop.turning.candidate import first_variant
from windlass.loop.turning.users import simulate_users

DIMENSION = 32


class NoisyEmbedder:
    """Implements `Embedder`: the mean of its words' vectors, with noise in half of the dimensions of questions."""

    name = "noisy"
    dimension = DIMENSION

    def __init__(self, noise: float = 1.5) -> None:
        self.noise = noise
        self.digest = sha256_json(["noisy", 1, noise])

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        vectors = np.stack([self._one(text, kind) for text in texts])
        return Embeddings(vectors, sum(len(text.split()) for text in texts))

    def _one(self, text: str, kind: EmbedKind) -> NDArray[np.float32]:
        words = re.findall(r"[a-z]{5,}|[0-9]+", text.lower())
        vector = np.sum([_vector(word[:5]) for word in words], axis=0) if words else np.ones(DIMENSION)
        vector = vector / np.linalg.norm(vector)
        if kind == "query":
            noise = np.random.default_rng(_seed(text)).normal(size=DIMENSION) / DIMENSION**0.5
            vector = vector + self.noise * noise * (np.arange(DIMENSION) >= DIMENSION // 2) * 2
        return (vector / np.linalg.norm(vector)).astype(np.float32)


@lru_cache(maxsize=10_000)
def _vector(stem: str) -> NDArray[np.float64]:
    return np.random.default_rng(_seed(stem)).normal(size=DIMENSION)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def write_pages(folder: Path, count: int = 200, seed: int = 0) -> None:
    """Pages of made-up words: a first sentence, and a body that says the same in other forms."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    stems = ["".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(3)) for _ in range(400)]
    for number in range(count):
        words = [rng.choice(stems[:20]), *rng.sample(stems[20:], 6)]
        asked = " ".join(f"{stem}or" for stem in words)
        said = " ".join(f"{stem}um" for stem in words * 2)
        more = " ".join(f"{rng.choice(stems)}is" for _ in range(8)) + f" {words[0]}or"  # a word that BM25 can find
        (folder / f"page{number:03}.md").write_text(
            f"# Part {number}\n\nThis {asked} was measured. It says {said} and {more} in all.\n", encoding="utf-8"
        )


def make_world(home: Path, pages: int = 400) -> Workspace:
    """A workspace with the artifacts `corpus`, `exam` and `index`."""
    write_pages(home / "docs", pages)
    ws = Workspace(home)
    corpus = build_corpus(ws, Folder(home / "docs"), CorpusSettings(heldout=0.0))
    exam = derive_exam(ws, corpus)
    build_index(ws, corpus, NoisyEmbedder(), exam=exam)
    return ws


def make_served_world(home: Path, pages: int = 400, spec: VariantSpec | None = None) -> Workspace:
    """The same with a first variant that is live, and whose users have spoken."""
    ws = make_world(home, pages)
    embedder, exam = NoisyEmbedder(), ws.artifacts.get("exam")
    first = first_variant(ws, ws.artifacts.get("index"), exam, embedder, spec=spec)
    releases.promote(ws, "assistant", first, None, "the first")
    simulate_users(ws, load_assistant(ws, embedder=embedder), load_items(exam, "harvest"))
    return ws

"""Documents for tests of chunking, and an embedder that can tell its tokens apart without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.core.documents import Document, Section
from windlass.core.protocols import Embeddings

pieces = st.sampled_from(
    ["A word.", " ", "\n", "\n\n", "# Head\n", "- item one\n", "    code()\n", "```\nx = 1\n```\n", "e.g. this ", "\t",
     "Ünïcode… ", "日本語。", "x" * 130, "Dr. Who said “no.” Then left! ", "| a | b |\n", "|---|---|\n", "\r\n",
     "\u00a0", "def f():\n", "+---+---+\n", "+===+===+\n", "....", "| " + "cell " * 30 + "|\n"]
)  # fmt: skip
texts = st.one_of(st.lists(pieces, max_size=40).map("".join), st.text(max_size=400))


@st.composite
def documents(draw: st.DrawFn) -> tuple[Document, list[tuple[int, int]]]:
    """A document, and spans of it that are to be masked."""
    text = draw(texts)
    at = st.integers(0, len(text))
    sections = [
        Section(draw(at), draw(st.integers(1, 4)), draw(st.text(max_size=9))) for _ in range(draw(st.integers(0, 5)))
    ]
    kind = draw(st.sampled_from(["text", "markdown", "rst", "html", "python", "code"]))
    spans = [tuple(sorted((draw(at), draw(at)))) for _ in range(draw(st.integers(0, 4)))]
    return Document("d", "d.md", "Title", text, kind, sections), [(a, b) for a, b in spans if a < b]


class Words(HashingEmbedder):
    """Implements `LateEmbedder`: tokens are words; a token's vector is its own and a little of all words around."""

    def __init__(self) -> None:
        super().__init__(64)
        self.read: list[str] = []
        """Every text that was read for its parts."""

    def token_starts(self, text: str) -> NDArray[np.int64]:
        return np.array([match.start() for match in re.finditer(r"\w+|[^\w\s]", text)], np.int64)

    def embed_spans(self, text: str, spans: Sequence[tuple[int, int]], above: str = "") -> Embeddings:
        self.read.append(f"{above}|{text}")
        own = self.embed([text[start:end] for start, end in spans]).vectors
        mixed = own + 0.1 * self.embed([text]).vectors
        unit: NDArray[np.float32] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return Embeddings(unit, len(self.token_starts(text)))

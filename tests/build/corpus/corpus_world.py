"""Sources and documents for the tests of corpora."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document
from windlass.core.readers import ReadReport

WORDS = [f"w{i}".translate(str.maketrans("0123456789", "abcdefghij")) for i in range(3000)]


@dataclass
class Given:
    """A source of ready-made documents."""

    rows: Sequence[Document]
    name: str = "documents made for a test"
    licence: str = "CC0-1.0"

    def documents(self, report: ReadReport) -> Iterator[Document]:
        for row in self.rows:
            report.documents += 1
            yield row


def page(id: str, text: str, kind: str = "page", cluster: str = "") -> Document:
    return Document(id, id, id, text.strip(), metadata={"kind": kind, "cluster": cluster or id})


def prose(n: int) -> str:
    return " ".join(f"word{n}x{i} of page {n}" for i in range(20))


def noisy(count: int, seed: int = 0) -> list[Document]:
    """Pages of which some repeat others exactly, some nearly, some are too short, and some hold personal data."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(3, 120))
        if texts and rng.random() < 0.3:
            words = rng.choice(texts).split()
            for _ in range(rng.randint(0, 2)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
        if rng.random() < 0.2:
            words.append("anna.smith@mail.org")
        texts.append(" ".join(words))
    return [page(f"p{number}", text, rng.choice(("page", "source"))) for number, text in enumerate(texts)]


def left_out(corpus: Artifact) -> list[dict[str, Any]]:
    return lines(corpus, "dropped.jsonl")


def lines(corpus: Artifact, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (corpus.path / file).read_text(encoding="utf-8").split("\n") if line]

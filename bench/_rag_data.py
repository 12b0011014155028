"""What `bench.rag` reads: a folder of documents, and a large set of passages with vectors, tenants and questions.

Documents are the public data folder's technical pages (Markdown and reST), or, where there is none, the pages that
this Python carries about itself. The large set is cut from their texts; some thousands of its vectors are MiniLM's own,
the others lie around those of their neighbours, as passages of one document do.
"""

from __future__ import annotations

import ast
import gzip
import json
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from bench._data import data_folder
from numpy.typing import NDArray

K, TENANTS, DOCUMENT = 10, 100, 10
"""Passages asked for; groups of documents, of which a question sees one: 1 %; passages of a document."""
_LETTERS, _APART = 500, 0.5
"""Characters of a passage; how far a made vector lies from the real one, which is 1 long."""


# a folder of documents ------------------------------------------------------------------------------------------------


def pages() -> Iterator[tuple[str, str]]:
    """Names and texts, in an order of their own."""
    found = sorted((data_folder() / "pretrain" / "docs").glob("*.jsonl.gz"))
    for file in found:
        with gzip.open(file, "rt", encoding="utf-8", newline="\n") as rows:
            for row in map(json.loads, rows):
                if row["path"].endswith((".md", ".rst")):
                    yield f"{row['source']}/{row['path']}", row["text"]
    if not found:
        yield from ((f"topics/{name}.rst", text) for name, text in topics.items())
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            nodes = ast.walk(ast.parse(path.read_bytes()))
            said = (ast.get_docstring(n) for n in nodes if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)))
            if text := "\n\n".join(filter(None, said)):
                yield f"library/{path.stem}.md", text


def write_files(folder: Path, most: int) -> tuple[int, int]:
    """So many documents, or all that there are, drawn evenly from all sources, as files; returns how many, and their
    bytes."""
    everything = [(name, text) for name, text in pages() if text.strip()]
    size = 0
    for i in np.random.default_rng(0).permutation(len(everything))[:most]:
        name, text = everything[i]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        size += path.stat().st_size
    return min(most, len(everything)), size


# a large set of passages ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passages:
    """Passage i is `texts[i]`, of document i // DOCUMENT, which belongs to `tenants[i]`."""

    texts: Sequence[str]
    tenants: Sequence[str]
    vectors: NDArray[np.float32]
    questions: Sequence[str]
    asked_by: Sequence[str]
    """The tenant whose passages alone may answer."""
    question_vectors: NDArray[np.float32]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "questions.npy", self.question_vectors)
        rest = {name: list(getattr(self, name)) for name in ("texts", "tenants", "questions", "asked_by")}
        (folder / "rest.json").write_text(json.dumps(rest), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Passages:
        rest = json.loads((folder / "rest.json").read_text(encoding="utf-8"))
        vectors, asked = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "questions.npy")
        return cls(vectors=vectors, question_vectors=asked, **rest)


def passages(count: int, questions: int, read: int) -> Passages:
    """`read`: how many texts MiniLM really reads."""
    from windlass.serve.encoders.embedder import MiniLM

    rng, embedder = np.random.default_rng(0), MiniLM.load()
    texts = list(_texts(count))
    real = embedder.embed(texts[:: -(-count // read)]).vectors
    vectors = real[np.arange(count) * len(real) // count]
    noise = rng.standard_normal(vectors.shape, np.float32)
    vectors = _unit(vectors + noise * np.float32(_APART / vectors.shape[1] ** 0.5))
    of_document = rng.permutation(-(-count // DOCUMENT)) % TENANTS
    tenants = [f"t{of_document[i // DOCUMENT]:02d}" for i in range(count)]
    chosen = rng.permutation(count)[:questions]
    asked = [_question(texts[i], rng) for i in chosen]
    # every other question is asked by a tenant who need not hold what it was drawn from
    asked_by = [tenants[i] if n % 2 else f"t{rng.integers(TENANTS):02d}" for n, i in enumerate(chosen)]
    return Passages(texts, tenants, vectors, asked, asked_by, embedder.embed(asked, "query").vectors)


def _texts(count: int) -> Iterator[str]:
    """All pages cut into passages, then once more with other cuts, until there are enough."""
    everything = [text for _, text in pages()]
    for shift in range(0, _LETTERS, 10):
        for text in everything:
            for at in range(shift, len(text), _LETTERS):
                if len(part := text[at : at + _LETTERS].strip()) > _LETTERS // 2:
                    yield part
                    count -= 1
                    if not count:
                        return
    raise SystemExit(f"the pages that are here lack {count} passages")


def _question(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    first = int(rng.integers(max(1, len(words) - 10)))
    return " ".join(words[first : first + 10])


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit

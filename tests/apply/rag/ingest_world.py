"""What tests of ingesting share: an index, an embedder that counts, and a record of every file that is opened."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from windlass.apply.rag.chunking import ChunkSettings
from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.embedding.vectors import CachedEmbedder
from windlass.apply.rag.indexes.live import EmbeddedIndex, open_live
from windlass.apply.rag.ingest.access import AccessRules
from windlass.apply.rag.ingest.ingesting import ingest
from windlass.apply.rag.ingest.report import IngestReport
from windlass.apply.rag.ingest.roots import Root, place_name
from windlass.apply.rag.ingest.stamps import Stamps
from windlass.core.protocols import Embeddings, EmbedKind
from windlass.core.readers import source_at

SMALL = ChunkSettings(target=60, limit=100, pieces=80)


class CountingEmbedder(HashingEmbedder):
    """Counts the texts that it really reads."""

    def __init__(self) -> None:
        super().__init__(32)
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        self.texts += texts
        return super().embed(texts, kind)


class World:
    """A workspace's folder with an index, a cache and a memory of files, as `windlass ingest` uses them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.docs = home / "docs"
        self.docs.mkdir(parents=True, exist_ok=True)
        self.embedder = CountingEmbedder()
        self.index: EmbeddedIndex = open_live(home / "index", self.embedder)
        self.cached = CachedEmbedder(self.embedder, home / "vectors.db")
        self.stamps = Stamps(home / "files.db")

    def root(self, path: Path | None = None, access: AccessRules | None = None, **labels: str) -> Root:
        path = path or self.docs
        name = place_name(path, self.home)
        return Root(source_at(path), name, labels, access or AccessRules(), path.is_file())

    def ingest(self, *roots: Root, chunks: ChunkSettings = SMALL, **options: Any) -> IngestReport:
        chunker = Chunker(self.cached, chunks)
        return ingest(self.index, roots or [self.root()], chunker, **{"stamps": self.stamps} | options)

    def write(self, name: str, text: str) -> Path:
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def close(self) -> None:
        self.index.close()
        self.cached.close()
        self.stamps.close()


def contents(index: EmbeddedIndex) -> dict[str, Any]:
    """All that an index holds, whatever the order it came in: digests, passages with their vectors, words."""
    found: dict[str, Any] = {"held": dict(index.held())}
    labels = [f"label{number}" for number in range(3)]
    for passage in sorted(index.passages(None, labels), key=lambda one: (one.document, one.start)):
        found[f"{passage.document}:{passage.start}"] = (passage.title, passage.heading, passage.end, passage.quote)
    return found


class _Opened:
    """Every path that is opened anywhere in this process while `active`: Python's audit hooks cannot be taken off."""

    def __init__(self) -> None:
        self.active = False
        self.paths: list[str] = []
        self.installed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.active and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self.paths.append(os.fsdecode(arguments[0]))


_opened = _Opened()


@contextlib.contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """The files below a folder that are opened in the block; filled when it ends."""
    if not _opened.installed:
        sys.addaudithook(_opened)
        _opened.installed = True
    _opened.paths, _opened.active = [], True
    found: list[str] = []
    try:
        yield found
    finally:
        _opened.active = False
        found += [path for path in _opened.paths if Path(path).is_relative_to(folder) and not Path(path).is_dir()]

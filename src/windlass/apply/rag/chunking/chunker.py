"""Chunk settings together with all that they need: what cuts documents, and makes the vectors of their passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from windlass.apply.rag.chunking import ChunkSettings, Span, chunk
from windlass.apply.rag.chunking.embedding import embed_passages
from windlass.apply.rag.embedding.vectors import late
from windlass.core.documents import Document, Passage
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder, Embeddings

if TYPE_CHECKING:
    from windlass.apply.rag.chunking.contextual import ContextWriter  # with it come providers

_FORMAT = 1
"""Raised whenever the same settings come to cut otherwise."""


@dataclass(frozen=True, slots=True)
class Chunker:
    """`embedder`: the index's. `writer`: for settings that are `written`. Raises `InputError` for what is missing."""

    embedder: Embedder
    settings: ChunkSettings = field(default_factory=ChunkSettings)
    writer: ContextWriter | None = None

    def __post_init__(self) -> None:
        if self.settings.late or self.settings.unit == "tokens":
            late(self.embedder)
        if self.settings.written != (self.writer is not None):
            raise InputError(
                "Contexts are written by a chat model."
                if self.writer is None
                else "A chat model has nothing to write.",
                "Give a writer with settings that are written, and with no others.",
            )

    @property
    def digest(self) -> str:
        """Changes whenever passages or their vectors may, for the same document."""
        writer = None if self.writer is None else self.writer.digest
        return sha256_json(
            {"format": _FORMAT, "embedder": self.embedder.digest, "writer": writer, **asdict(self.settings)}
        )

    def passages(self, document: Document, masked: Sequence[Span] = ()) -> list[Passage]:
        """As `chunk`, with what the writer says."""
        passages = list(chunk(document, masked, self.settings, self.embedder))
        return passages if self.writer is None else self.writer.write(document, passages)

    def embed(self, cut: Sequence[tuple[Document, Sequence[Passage]]], progress: Progress | None = None) -> Embeddings:
        """As `embed_passages`."""
        return embed_passages(cut, self.settings, self.embedder, progress)

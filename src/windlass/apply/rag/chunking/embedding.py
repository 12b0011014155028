"""What is embedded and searched for a passage, and its vector: from its own text, or from its whole document's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from windlass.apply.rag.chunking.settings import ChunkSettings
from windlass.apply.rag.embedding.vectors import CachedEmbedder, late
from windlass.core.documents import Document, Passage
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder, Embeddings, LateEmbedder


def embedding_text(passage: Passage, context: int = 120) -> str:
    """What is embedded for a passage: what `context_of` says, a line break, the text."""
    above = context_of(passage, context)
    return f"{above}\n{passage.text}" if above else passage.text


def context_of(passage: Passage, context: int = 120) -> str:
    """What is searched besides the passage's own text: `title > heading`, cut to `context` characters, and below it the
    passage's own context, if any."""
    line = heading_line(passage.title, passage.heading, context)
    return "\n".join(part for part in (line, passage.context) if part)


def heading_line(title: str, heading: str, longest: int) -> str:
    return " > ".join(part for part in (title, heading) if part)[:longest]


def embed_passages(
    cut: Sequence[tuple[Document, Sequence[Passage]]],
    settings: ChunkSettings,
    embedder: Embedder,
    progress: Progress | None = None,
) -> Embeddings:
    """The vectors of all passages of some documents: one row for each, in order.

    With `settings.late` a document is read whole and its passages are pooled from that (Günther et al., "Late
    Chunking", arXiv 2409.04701); what is masked is not read, as no passage holds it. Raises `InputError` for an
    embedder that cannot.
    """
    if settings.late:
        return _pooled(cut, late(embedder), progress)
    texts = [embedding_text(passage, settings.context) for _, passages in cut for passage in passages]
    if isinstance(embedder, CachedEmbedder):
        return embedder.embed_all(texts, "passage", progress)
    return embedder.embed(texts, "passage")


def _pooled(
    cut: Sequence[tuple[Document, Sequence[Passage]]], embedder: LateEmbedder, progress: Progress | None
) -> Embeddings:
    rows = [np.empty((0, embedder.dimension), np.float32)]
    tokens = truncated = done = 0
    for document, passages in cut:
        for run in _runs(document.text, passages):
            start, end = run[0].start, max(passage.end for passage in run)
            spans = [(passage.start - start, passage.end - start) for passage in run]
            made = embedder.embed_spans(document.text[start:end], spans, run[0].title)
            rows.append(made.vectors)
            tokens, truncated, done = tokens + made.tokens, truncated + made.truncated, done + len(run)
            if progress is not None:
                progress.update(done)
    return Embeddings(np.concatenate(rows), tokens, truncated)


def _runs(text: str, passages: Sequence[Passage]) -> Iterator[list[Passage]]:
    """Passages with nothing but white space between them. What else lies between two was masked."""
    run: list[Passage] = []
    reach = 0
    for passage in passages:
        if run and text[reach : passage.start].strip():
            yield run
            run = []
        run.append(passage)
        reach = max(reach, passage.end)
    if run:
        yield run

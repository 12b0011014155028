"""From documents to passages: verbatim spans, none lost, none reaching into what is masked.

`chunk` is the door. It cuts in one of four ways (`ChunkSettings.kind`): along the structure of the text, the default;
into windows of one size; into windows of sentences; or where the subject changes. Whatever the way, a passage says
where it stands, and what is embedded and searched is the passage below its context, `title > heading` and the header
of a table that it is a piece of: so a passage from the middle of a page still says what it is about (`embedding_text`).

A `Chunker` adds what two settings ask for beyond cutting: vectors from the whole document (`late`), and a sentence of
context that a chat model writes above each passage (`written`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from windlass.apply.rag.chunking.cheapest import cheapest
from windlass.apply.rag.chunking.embedding import context_of, embed_passages, embedding_text, heading_line
from windlass.apply.rag.chunking.fixed import token_windows, windows
from windlass.apply.rag.chunking.headings import Outline
from windlass.apply.rag.chunking.masks import Span, between, merged
from windlass.apply.rag.chunking.semantic import repriced
from windlass.apply.rag.chunking.sentence import sentence_windows
from windlass.apply.rag.chunking.settings import RECIPES, WRITTEN, ChunkSettings
from windlass.apply.rag.chunking.structure import places
from windlass.apply.rag.chunking.tables import Tables
from windlass.apply.rag.embedding.vectors import late
from windlass.apply.rag.sentences import trimmed
from windlass.core.documents import Document, Passage
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder

__all__ = [
    "RECIPES",
    "ChunkSettings",
    "Span",
    "chunk",
    "context_of",
    "embed_passages",
    "embedding_text",
]


def chunk(
    document: Document,
    masked: Sequence[Span] = (),
    settings: ChunkSettings | None = None,
    embedder: Embedder | None = None,
) -> Iterator[Passage]:
    """The passages of one document, in order.

    Every character that is neither white space nor inside a `masked` span is in exactly one passage (with an overlap:
    in at least one), and no passage touches a masked span. A title or heading that repeats a masked text is left out of
    the passages' context too. `embedder`: for the semantic kind, and for sizes in tokens. Raises `InputError` when it
    is wanted and missing, and for a masked span outside of the document.
    """
    settings = settings or ChunkSettings()
    text = document.text
    masked = merged(masked, document)
    outline = Outline(document, masked)
    above = (len(heading_line(outline.title, outline.longest, settings.context)) + settings.written * WRITTEN) // 4
    for low, high in between(masked, 0, len(text)):
        tables = Tables(document, low, high)
        done = low
        for left, right in _cut(document, outline, tables, low, high, settings, settings.pieces - above, embedder):
            span = trimmed(text, left, right)
            if span is None or span[1] <= done:  # nothing but white space, or what the one before holds
                continue
            done = span[1]
            start = _indented(text, span[0], low, settings)
            heading, header = outline.path(*span), tables.header_above(start)
            yield Passage(document.id, outline.title, heading, start, done, text[start:done], header)


def _cut(
    document: Document,
    outline: Outline,
    tables: Tables,
    low: int,
    high: int,
    settings: ChunkSettings,
    most_pieces: int,
    embedder: Embedder | None,
) -> Iterator[Span]:
    """Spans that cover `low:high` but for white space, in order."""
    text = document.text
    match settings.kind:
        case "fixed" if settings.unit == "tokens":
            starts = late(_wanted(embedder, settings)).token_starts(text[low:high]) + low
            yield from token_windows(starts, low, high, settings.target, settings.overlap, settings.limit)
        case "fixed":
            yield from windows(text, low, high, settings.target, settings.overlap)
        case "sentence":
            yield from sentence_windows(text, tables, low, high, settings, most_pieces)
        case _:
            found = places(document, outline.starts, tables, low, high, settings)
            if settings.kind == "semantic":
                found = repriced(text, found, _wanted(embedder, settings))
            cuts = cheapest(text, found, settings, most_pieces)
            yield from pairwise(cuts)


def _wanted(embedder: Embedder | None, settings: ChunkSettings) -> Embedder:
    if embedder is None:
        raise InputError(
            f"Chunks of the kind '{settings.kind}' in {settings.unit} are cut with an embedder.", "Give one."
        )
    return embedder


def _indented(text: str, start: int, low: int, settings: ChunkSettings) -> int:
    """`start` moved left over the indentation of its line, so that a block of code keeps its shape."""
    at, furthest = start, max(low, start - settings.limit // 8)
    while at > furthest and text[at - 1] in " \t":
        at -= 1
    return at if at == 0 or text[at - 1] == "\n" else start

"""Windows of whole sentences, as many as fit, each repeating the last sentences of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from windlass.apply.rag.chunking.cheapest import pieces_in
from windlass.apply.rag.chunking.fixed import windows
from windlass.apply.rag.chunking.masks import Span
from windlass.apply.rag.chunking.settings import ChunkSettings
from windlass.apply.rag.chunking.tables import Tables
from windlass.apply.rag.sentences import sentence_spans


def sentence_windows(
    text: str, tables: Tables, low: int, high: int, settings: ChunkSettings, most_pieces: int
) -> Iterator[Span]:
    """Spans of at most `target` characters and `most_pieces`, or of one sentence; a row of a table is one. A sentence
    larger than the settings' `limit` is cut between words."""
    atoms = list(_atoms(text, tables, low, high, settings, most_pieces))
    pieces = [pieces_in(text, start, end) for start, end in atoms]
    first = fresh = 0  # of the window, and of what no window holds yet
    while fresh < len(atoms):
        start = atoms[first][0]
        room = most_pieces - pieces_in(tables.header_above(start)) - sum(pieces[first:fresh])
        end = fresh
        while end < len(atoms) and atoms[end][1] - start <= settings.target and pieces[end] <= room:
            room -= pieces[end]
            end += 1
        if end == fresh:
            if first < fresh:  # there is no room for more beside what would be repeated
                first += 1
                continue
            end += 1
        yield start, atoms[end - 1][1]
        began, first, fresh = first, end, end
        while first - 1 > began and atoms[end - 1][1] - atoms[first - 1][0] <= settings.overlap:
            first -= 1


def _atoms(text: str, tables: Tables, low: int, high: int, settings: ChunkSettings, most_pieces: int) -> Iterator[Span]:
    for start, end in _sentences(text, tables, low, high):
        if end - start > settings.limit or pieces_in(text, start, end) > most_pieces:
            yield from windows(text, start, end, max(settings.target // 4, 1))
        else:
            yield start, end


def _sentences(text: str, tables: Tables, low: int, high: int) -> Iterator[Span]:
    left = low
    for table in tables.all:
        yield from sentence_spans(text, left, table.start)
        bounds = [table.start, *table.rows[1:], table.end]
        yield from pairwise(bounds)
        left = table.end
    yield from sentence_spans(text, left, high)

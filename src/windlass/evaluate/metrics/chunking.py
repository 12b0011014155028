"""How well chunks hold what a question needs, by the characters that both share: recall, precision, IoU.

Definitions of Smith & Troynikov, "Evaluating Chunking Strategies for Retrieval" (Chroma, 2024), as the authors'
`chunking_evaluation` computes them. They speak of tokens and count characters; so does this. The references of a
question are the spans that answer it, the chunks what a search gave for it.

    found     = characters of the references that are in some chunk, each counted once
    recall    = found / characters of the references
    precision = found / characters of the chunks, those that several chunks hold counted several times
    IoU       = found / (characters of the chunks + characters of the references that were not found)

`precision_omega` asks nothing of a search: it is the IoU of all chunks that touch a reference, each character counted
once, and so the best that a cut of the documents allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

Piece = tuple[str, int, int]
"""A span of a document: its id, start and end in characters."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of one question, each between 0 and 1."""

    recall: float
    precision: float
    """0 when nothing was found at all, also when no chunk was given."""
    iou: float


def overlap(chunks: Sequence[Piece], references: Sequence[Piece]) -> Overlap:
    """What the chunks that a search gave have in common with the references of the question.

    Raises `InputError` for a question without references (its recall would be 0/0), and for a span that ends before it
    starts, or a reference without a character.
    """
    _check(chunks, references)
    found = _length(_merged(_common(chunks, references)))
    held = sum(end - start for _, start, end in chunks)
    wanted = sum(end - start for _, start, end in references)
    missed = sum(_outside(reference, chunks) for reference in references)
    return Overlap(found / wanted, found / held if held else 0.0, found / (held + missed))


def precision_omega(chunks: Sequence[Piece], references: Sequence[Piece]) -> float:
    """The precision of a search that gives all chunks with a part of a reference, and no others. `chunks`: all there
    are. As in the authors' code, a chunk counts even where it only begins or ends at a reference.

    Raises `InputError` as `overlap`.
    """
    _check(chunks, references)
    touching = [
        (document, start, end)
        for document, start, end in chunks
        if any(document == other and start <= until and at <= end for other, at, until in references)
    ]
    found = _length(_merged(_common(touching, references)))
    missed = [(reference[0], *gap) for reference in references for gap in _gaps(reference, touching)]
    return found / _length(_merged([*touching, *missed]))


def first(chunks: Iterable[Piece], budget: int, tokens: Mapping[str, NDArray[np.int64]]) -> list[Piece]:
    """The best chunks until `budget` tokens are read, the last one cut where they end: so cuts of different sizes are
    compared at equal cost. What is read twice costs twice.

    tokens: document -> where its tokens start, ascending, by the tokenizer that counts. Raises `InputError` for a
    budget below 1.
    """
    if budget < 1:
        raise InputError(f"Nothing can be read of {budget} tokens.", "Use 1 or more.")
    read: list[Piece] = []
    for document, start, end in chunks:
        starts = tokens[document]
        begin, stop = np.searchsorted(starts, (start, end))
        if stop - begin >= budget:
            last = starts[begin + budget] if begin + budget < stop else end
            return [*read, (document, start, int(last))]
        read.append((document, start, end))
        budget -= int(stop - begin)
    return read


def _check(chunks: Sequence[Piece], references: Sequence[Piece]) -> None:
    if not references:
        raise InputError("A question without references has no recall.", "Leave it out of this comparison.")
    for piece in (*chunks, *references):
        if not 0 <= piece[1] <= piece[2]:
            raise InputError(f"{piece[1]}:{piece[2]} of '{piece[0]}' is not a span.")
    for document, start, end in references:
        if start == end:
            raise InputError(f"The reference at {start} of '{document}' is empty.")


def _common(chunks: Sequence[Piece], references: Sequence[Piece]) -> list[Piece]:
    return [
        (document, max(start, at), min(end, until))
        for document, start, end in chunks
        for other, at, until in references
        if document == other and start < until and at < end
    ]


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """The same characters, each once."""
    merged: list[Piece] = []
    for document, start, end in sorted(pieces):
        if merged and merged[-1][0] == document and start <= merged[-1][2]:
            merged[-1] = (document, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((document, start, end))
    return merged


def _gaps(reference: Piece, chunks: Sequence[Piece]) -> list[tuple[int, int]]:
    """The parts of a reference that no chunk holds."""
    document, left, until = reference
    gaps = []
    for _, start, end in _merged([chunk for chunk in chunks if chunk[0] == document]):
        if left < min(start, until):
            gaps.append((left, min(start, until)))
        left = max(left, end)
    if left < until:
        gaps.append((left, until))
    return gaps


def _outside(reference: Piece, chunks: Sequence[Piece]) -> int:
    return sum(end - start for start, end in _gaps(reference, chunks))


def _length(pieces: Sequence[Piece]) -> int:
    return sum(end - start for _, start, end in pieces)

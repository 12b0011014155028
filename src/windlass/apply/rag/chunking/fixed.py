"""Windows of one size, in characters or tokens, each repeating the end of the one before: the plainest cut there is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.chunking.masks import Span


def windows(text: str, low: int, high: int, size: int, overlap: int = 0) -> Iterator[Span]:
    """Spans of at most `size` characters that cover `low:high`. No word is torn that is shorter than half of a window.

    With an overlap each starts at the first word of the last `overlap` characters of the one before."""
    left = low
    while high - left > size:
        right = left + size
        while right > left + size // 2 and not text[right - 1].isspace():
            right -= 1
        if not text[right - 1].isspace():  # one endless word
            right = left + size
        yield left, right
        left = _word(text, max(right - overlap, left + 1), right)
    yield left, high


def token_windows(
    starts: NDArray[np.int64], low: int, high: int, size: int, overlap: int = 0, limit: int | None = None
) -> Iterator[Span]:
    """Spans of `size` tokens that cover `low:high`. `starts`: where the tokens start in the text, ascending.

    A span longer than `limit` characters, as of a token that stands for a word nobody knows, is cut at that size."""
    places = [low, *np.unique(starts[(starts > low) & (starts < high)]).tolist()]
    step = size - overlap
    for first in range(0, len(places), step):
        left = places[first]
        right = places[first + size] if first + size < len(places) else high
        following = places[first + step] if right < high else high
        for at in range(left, following, limit or right - left):  # what is left of a cut span begins the next one
            yield at, min(at + (limit or right - left), right)
        if right == high:
            break


def _word(text: str, at: int, until: int) -> int:
    """The first place from `at` on where a word starts; `until` when there is none before."""
    while at < until and not text[at - 1].isspace():
        at += 1
    return at

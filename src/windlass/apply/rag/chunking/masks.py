"""What must not be found: spans of a document that no passage touches, and headings that would give them away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from windlass.core.documents import Document
from windlass.core.errors import InputError

Span = tuple[int, int]


def merged(masked: Sequence[Span], document: Document) -> list[Span]:
    """In order, none touching another. Raises `InputError` for a span outside of the document."""
    spans: list[Span] = []
    for start, end in sorted(masked):
        if not 0 <= start < end <= len(document.text):
            raise InputError(
                f"Document '{document.id}' has {len(document.text)} characters, but {start}:{end} is to be masked.",
                "The masked spans belong to another version of the corpus: make them again from this one.",
            )
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def between(spans: Sequence[Span], low: int, high: int) -> Iterator[Span]:
    """What of `low:high` lies outside of spans that are in order."""
    left = low
    for start, end in spans:
        if left < start:
            yield left, start
        left = max(left, end)
    if left < high:
        yield left, high


_RUN = 4
"""A heading that shares this many words in a row with a masked text gives it away; shorter secrets count whole."""


class Secrets:
    """The masked texts of a document, by their runs of words."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._runs: dict[int, set[tuple[str, ...]]] = {}
        for text in texts:
            words = _words(text)
            if words:
                run = min(_RUN, len(words))
                self._runs.setdefault(run, set()).update(_runs(words, run))

    def told_by(self, heading: str) -> bool:
        words = _words(heading) if self._runs else []
        return any(not known.isdisjoint(_runs(words, run)) for run, known in self._runs.items())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

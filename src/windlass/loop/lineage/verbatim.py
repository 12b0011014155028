"""Where did the model read this? The longest piece of a context that stands word for word in the training text.

A suffix of the context occurs in the corpus only if every shorter suffix does, so its longest length is found by
binary search with a plain substring search as the test, as infini-gram does with a suffix array (Liu et al. 2024,
https://arxiv.org/abs/2401.17377) and OLMoTrace shows for served answers (Liu et al. 2025,
https://arxiv.org/abs/2504.07096). For a corpus of some megabytes the plain search takes milliseconds and no index.

A match says that the text was there to be learned, not that it caused the token.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.core.documents import Document
from windlass.core.errors import InputError

_BETWEEN = "\x00"
"""Stands between documents; text that contains it is refused, so that no match spans two documents."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """`document.text[start:end]` is the matched text."""

    document: Document
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Verbatim:
    """The longest suffix of a context that occurs in the text, and where."""

    text: str
    occurrences: tuple[Occurrence, ...]
    """The first ones, in corpus order."""
    total: int
    """How often the text occurs altogether (overlaps not counted)."""


class TrainingText:
    """The documents that a model was trained on, searchable as one string."""

    def __init__(self, documents: Sequence[Document]) -> None:
        if not documents:
            raise InputError("There are no training documents to search.")
        for document in documents:
            if _BETWEEN in document.text:
                raise InputError(f"Document '{document.id}' contains a null character.", "Clean the corpus first.")
        self._documents = list(documents)
        self._starts: list[int] = []
        at = 0
        for document in documents:
            self._starts.append(at)
            at += len(document.text) + 1
        self._text = _BETWEEN.join(document.text for document in documents)

    def longest_suffix(self, context: str, *, limit: int = 5) -> Verbatim:
        """The longest suffix of `context` that occurs, with up to `limit` places; empty text if not even one character.

        A context that holds the null character is searched only after it.
        """
        context = context[context.rfind(_BETWEEN) + 1 :]
        low, high = 0, len(context)  # a suffix of length `low` occurs; none longer than `high` does
        while low < high:
            middle = (low + high + 1) // 2
            if context[len(context) - middle :] in self._text:
                low = middle
            else:
                high = middle - 1
        text = context[len(context) - low :]
        return Verbatim(text, *self._find(text, limit)) if text else Verbatim("", (), 0)

    def _find(self, text: str, limit: int) -> tuple[tuple[Occurrence, ...], int]:
        found: list[Occurrence] = []
        at = self._text.find(text)
        while at >= 0 and len(found) < limit:
            number = bisect_right(self._starts, at) - 1
            start = at - self._starts[number]
            found.append(Occurrence(self._documents[number], start, start + len(text)))
            at = self._text.find(text, at + len(text))
        return tuple(found), self._text.count(text)

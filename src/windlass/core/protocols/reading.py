"""Models that read texts, and rank them, sort them, or find something in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Relevance:
    scores: Sequence[float]
    """One for each document, in order; higher is more relevant, comparable within one query only."""
    tokens: int
    truncated: int = 0
    """How many of the documents were, with the query, longer than the model reads and were cut."""


@runtime_checkable
class Reranker(Protocol):
    """Says how well documents answer a query."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def rank(self, query: str, documents: Sequence[str]) -> Relevance: ...


@dataclass(frozen=True, slots=True)
class Classes:
    probabilities: NDArray[np.float32]
    """Shape (texts, labels). Those of a text add up to 1 when its labels exclude each other."""
    tokens: int
    truncated: int = 0
    """How many of the texts were longer than the model reads and were cut."""
    numbers: bool = False
    """Whether they are no probabilities, but numbers in the units of what a regression learned, one for each label."""


@runtime_checkable
class Classifying(Protocol):
    """Sorts texts, or pairs of texts, into classes, or tells numbers from them."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    @property
    def labels(self) -> Sequence[str]: ...

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> Classes: ...


@dataclass(frozen=True, slots=True)
class Extract:
    """The part of a text that answers a question: `text == whole[start : start + len(text)]`."""

    text: str
    start: int
    """Its first character in the whole text."""
    margin: float
    """How much likelier than that the text has no answer, in logits; comparable between texts."""


@runtime_checkable
class Extracting(Protocol):
    """Finds the words in texts that answer a question."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def find(self, question: str, texts: Sequence[str]) -> Sequence[Extract | None]:
        """For each text its likeliest answer, or None where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a text that is to be looked at: `text[start:end]`."""

    start: int
    end: int
    kind: str
    """What it is, in words that can follow "this is"."""


Scan = Callable[[str], Sequence[Finding]]
"""Looks through a text that somebody else wrote; findings come in order and do not overlap."""

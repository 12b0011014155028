"""BM25 over the postings of an index, one query or thousands at a time.

The occurrences of a term are read from the file when the term is first asked for, and kept as arrays; a query is a sum
of sparse columns. The scores are those of FTS5's `bm25()` (Robertson's formula with k1 = 1.2, b = 0.75, and weights for
the two columns); tests hold the two equal.

A query never becomes an FTS5 expression: it is tokenised as a document would be. No syntax, nothing to escape.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.contents import Contents
from windlass.apply.rag.indexes.terms import FUNCTION_WORDS, K1, B, Tokenizer, idf_of

_PARTS = "SELECT data FROM postings WHERE segment IN (SELECT id FROM segments) AND term = ? ORDER BY segment"

_MOST_KEPT = 10_000_000
"""Occurrences and postings kept in memory, eight bytes each: the common words of a million passages."""

Scores = NDArray[np.float32]
Query = Callable[[str, tuple[object, ...]], list[tuple[Any, ...]]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Postings:
    """The passages that hold one term. `rows` counts from 0; `weights` is the term's BM25 share in each."""

    rows: NDArray[np.int32]
    weights: Scores
    idf: float


@dataclass(frozen=True, slots=True)
class Occurrences:
    """How often one term stands in the passages that hold it: what postings of any weights are made of."""

    ids: NDArray[np.int32]
    """Of passages, ascending; those that were removed since may still be among them."""
    in_context: NDArray[np.uint16]
    in_text: NDArray[np.uint16]

    @classmethod
    def of(cls, ids: NDArray[np.int32], in_context: NDArray[Any], in_text: NDArray[Any]) -> Occurrences:
        most = np.iinfo(np.uint16).max
        return cls(ids, *(np.minimum(counts, most).astype(np.uint16) for counts in (in_context, in_text)))

    def __len__(self) -> int:
        return len(self.ids)

    def packed(self) -> bytes:
        """Eight bytes a passage, as `unpacked` reads them."""
        return self.ids.tobytes() + self.in_context.tobytes() + self.in_text.tobytes()

    @classmethod
    def unpacked(cls, parts: Iterable[bytes]) -> Occurrences:
        """From `packed` ones whose ids follow each other."""
        made = [
            cls(
                np.frombuffer(data, "<i4", len(data) // 8),
                np.frombuffer(data, "<u2", len(data) // 8, len(data) // 2),
                np.frombuffer(data, "<u2", len(data) // 8, len(data) // 4 * 3),
            )
            for data in parts
        ]
        if len(made) == 1:
            return made[0]
        return cls(
            np.concatenate([np.zeros(0, np.int32), *(one.ids for one in made)]),
            np.concatenate([np.zeros(0, np.uint16), *(one.in_context for one in made)]),
            np.concatenate([np.zeros(0, np.uint16), *(one.in_text for one in made)]),
        )


class Lexical:
    """The postings of an index, see `embedded.postings`.

    `query` runs SQL on the index file. Safe to share between threads.
    """

    def __init__(
        self, query: Query, contents: Contents, context_weight: float = 1.0, *, tokenizer: Tokenizer | None = None
    ) -> None:
        self._query = query
        self._contents = contents
        self._size = len(contents)
        self._context_weight = context_weight
        average = max(float(contents.lengths.mean()) if self._size else 1.0, 1e-9)
        self._norm = (K1 * (1 - B + B * contents.lengths / average)).astype(np.float32)
        self._occurrences = Kept[Occurrences](_MOST_KEPT)
        self._postings = Kept[Postings](_MOST_KEPT)
        self.tokenizer = tokenizer or Tokenizer()
        self._function_words = frozenset(self.tokenizer.terms([FUNCTION_WORDS])[0])

    def bound(self, query: Query) -> Lexical:
        """The same, reading through another connection that sees the same version of the index."""
        other = copy(self)
        other._query = query
        return other

    def weighted(self, context_weight: float) -> Lexical:
        """The same passages with another weight of the context: nothing is read again."""
        other = Lexical(self._query, self._contents, context_weight, tokenizer=self.tokenizer)
        other._occurrences = self._occurrences
        return other

    def advanced(self, query: Query, contents: Contents) -> Lexical:
        """For another version of the index."""
        return Lexical(query, contents, self._context_weight, tokenizer=self.tokenizer)

    def postings(self, term: str) -> Postings:
        known = self._postings.get(term)
        if known is None:
            known = self._weighed(self._known(term))
            self._postings.put(term, known, len(known.rows))
        return known

    def _known(self, term: str) -> Occurrences:
        if (known := self._occurrences.get(term)) is not None:
            return known
        made = Occurrences.unpacked(data for (data,) in self._query(_PARTS, (term,)))
        self._occurrences.put(term, made, len(made.ids))
        return made

    def _weighed(self, held: Occurrences) -> Postings:
        rows, kept = self._contents.places(held.ids)
        frequency = (self._context_weight * held.in_context + held.in_text)[kept]
        idf = idf_of(len(rows), self._size)
        weights = idf * frequency * (K1 + 1) / (frequency + self._norm[rows])
        return Postings(rows.astype(np.int32), weights.astype(np.float32), idf)

    def scores(self, terms: Sequence[str], rows: NDArray[np.int64] | None = None) -> Scores:
        """BM25 for one query of every passage, or of those at `rows`, ascending; 0 where no term occurs. A repeated
        term counts as often."""
        total = np.zeros(self._size if rows is None else len(rows), np.float32)
        for term in terms:
            postings = self.postings(term)
            if rows is None:
                total[postings.rows] += postings.weights  # rows of one term are distinct: plain indexing adds up
            elif len(postings.rows) < len(rows):
                at, found = _among(rows, postings.rows)
                total[at] += postings.weights[found]
            else:
                at, found = _among(postings.rows, rows)
                total[found] += postings.weights[at]
        return total

    def coverage(self, terms: Sequence[str], rows: NDArray[np.int64]) -> float:
        """Share of the query's terms, weighted by rarity, that the passages `rows` hold between them.

        A term that no passage of the index holds weighs most of all, common words weigh next to nothing.
        """
        held = total = 0.0
        for term in dict.fromkeys(terms):
            if term in self._function_words:
                continue
            postings = self.postings(term)
            total += postings.idf
            if len(postings.rows):
                at = np.minimum(np.searchsorted(postings.rows, rows), len(postings.rows) - 1)
                held += postings.idf * bool((postings.rows[at] == rows).any())
        return held / total if total else 0.0


def _among(
    ordered: NDArray[np.integer[Any]], wanted: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where those of `wanted` that are in `ordered` stand in it, and where they stand in `wanted`."""
    at = np.searchsorted(ordered, wanted.astype(ordered.dtype, copy=False))
    at = np.minimum(at, max(len(ordered) - 1, 0))
    found = np.flatnonzero(ordered[at] == wanted) if len(ordered) else np.zeros(0, np.int64)
    return at[found], found


class Kept(Generic[T]):
    """What was used last, up to a sum of sizes. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._entries: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        with self._lock:
            if (entry := self._entries.get(key)) is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: str, value: T, size: int) -> None:
        with self._lock:
            if key not in self._entries:
                self._entries[key] = (value, size)
                self._size += size
            while self._size > self._most and len(self._entries) > 1:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._size -= dropped

    def items(self) -> list[tuple[str, T]]:
        """Longest unused first."""
        with self._lock:
            return [(key, value) for key, (value, _) in self._entries.items()]

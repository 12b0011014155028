"""The terms of texts, and how rare each is: the same in every kind of index.

SQLite's FTS5 does the tokenising (porter stems over unicode61).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TOKENIZER = "porter unicode61"
K1, B = 1.2, 0.75
_LEAST_IDF = 1e-6
"""FTS5 gives this weight to a term that more than half of the passages hold."""

FUNCTION_WORDS = (
    "about all an and any are as at be been but by can could did do does for from had has have how i if in into is it "
    "its many me more most much my no not of on or our she should so some than that the their them there these they "
    "this those to was we were what when where which who whom whose why will with would you your a"
)
"""Left out of `coverage`: in a small collection, counting cannot tell that a missing "how" means nothing."""


class Inverted(NamedTuple):
    """The terms of some passages; what belongs to term i stands at `bounds[i]:bounds[i + 1]` of the arrays."""

    terms: Sequence[str]
    bounds: NDArray[np.int64]
    passages: NDArray[np.int64]
    """Which of the passages hold the term, ascending."""
    in_context: NDArray[Any]
    """How often in their contexts, and how often in their texts."""
    in_text: NDArray[Any]


class Tokenizer:
    """FTS5's own tokenizer, used through an in-memory table. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute(f"CREATE VIRTUAL TABLE words USING fts5(context, text, content='', tokenize='{TOKENIZER}')")
        self._db.execute("CREATE VIRTUAL TABLE instances USING fts5vocab(words, instance)")

    def occurrences(self, texts: Sequence[tuple[str, str]]) -> Inverted:
        """The terms of some passages, each given as context and text."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                self._db.executemany(
                    "INSERT INTO words (rowid, context, text) VALUES (?, ?, ?)",
                    ((i, above, text) for i, (above, text) in enumerate(texts)),
                )
                # One text of numbers for a term, instead of a row for each occurrence, of which there are very many.
                found = self._db.execute(
                    "SELECT term, count(*), group_concat(doc * 2 + (col = 'context')) FROM instances GROUP BY term"
                ).fetchall()
            finally:
                self._db.execute("ROLLBACK")
        codes = np.fromstring(",".join(numbers for _, _, numbers in found), np.int64, sep=",")
        owner = np.repeat(np.arange(len(found)), [count for _, count, _ in found])
        keys, counts = np.unique(owner * (2 * len(texts)) + codes, return_counts=True)  # term, passage, column
        pairs, place = np.unique(keys >> 1, return_inverse=True)
        counted = [np.bincount(place, counts * (keys & 1 == column), len(pairs)) for column in (1, 0)]
        term, passage = np.divmod(pairs, max(len(texts), 1))
        bounds = np.searchsorted(term, np.arange(len(found) + 1))
        return Inverted([term for term, _, _ in found], bounds, passage, *counted)

    def terms(self, texts: Sequence[str]) -> list[list[str]]:
        """The stems of each text in reading order."""
        found: list[list[tuple[int, str]]] = [[] for _ in texts]
        with self._lock:
            self._db.execute("BEGIN")
            try:
                self._db.executemany(
                    "INSERT INTO words (rowid, text) VALUES (?, ?)",
                    ((i, text.encode("utf-8", "replace").decode()) for i, text in enumerate(texts, 1)),
                )
                for row, offset, term in self._db.execute("SELECT doc, offset, term FROM instances"):
                    found[row - 1].append((offset, term))
            finally:
                self._db.execute("ROLLBACK")
        return [[term for _, term in sorted(terms)] for terms in found]


def idf_of(held: int, passages: int) -> float:
    """The weight of a term that `held` of the passages hold."""
    return max(float(np.log((passages - held + 0.5) / (held + 0.5))), 0.0) or _LEAST_IDF

"""BM25 over an FTS5 table, one query or thousands at a time.

SQLite's FTS5 does the tokenising (porter stems over unicode61) and keeps the inverted index in the file. Its own
`MATCH` would score one query after the other, so the postings of a term are read from the file when the term is
first asked for, kept as arrays, and a query is a sum of sparse columns. The scores are those of FTS5's `bm25()`
(Robertson's formula with k1 = 1.2, b = 0.75, and weights for the two columns); tests hold the two equal.

A query never becomes an FTS5 expression: it is tokenised as a document would be. No syntax, nothing to escape.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOKENIZER = "porter unicode61"
K1, B = 1.2, 0.75
_LEAST_IDF = 1e-6
"""FTS5 gives this weight to a term that more than half of the passages hold."""

_FUNCTION_WORDS = (
    "about all an and any are as at be been but by can could did do does for from had has have how i if in into is it "
    "its many me more most much my no not of on or our she should so some than that the their them there these they "
    "this those to was we were what when where which who whom whose why will with would you your a"
)
"""Left out of `coverage`: in a small collection, counting cannot tell that a missing "how" means nothing."""

Scores = NDArray[np.float32]
Query = Callable[[str, tuple[object, ...]], list[tuple[object, ...]]]


@dataclass(frozen=True, slots=True)
class Postings:
    """The passages that hold one term. `rows` counts from 0; `weights` is the term's BM25 share in each."""

    rows: NDArray[np.int32]
    weights: Scores
    idf: float


class Tokenizer:
    """FTS5's own tokenizer, used through an in-memory table. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute(f"CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='{TOKENIZER}')")
        self._db.execute("CREATE VIRTUAL TABLE instances USING fts5vocab(words, instance)")

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


class Lexical:
    """The postings of the FTS5 table `words(context, text)`, whose rowids are 1..`size`.

    `query` runs SQL on the index file, `lengths` holds the number of tokens of each passage.
    """

    def __init__(
        self, query: Query, lengths: NDArray[np.int32], context_weight: float = 1.0, *, keep: int = 50_000_000
    ) -> None:
        self._query = query
        self._size = len(lengths)
        self._context_weight = context_weight
        average = max(float(lengths.mean()) if self._size else 1.0, 1e-9)
        self._norm = (K1 * (1 - B + B * lengths / average)).astype(np.float32)
        self._postings: OrderedDict[str, Postings] = OrderedDict()
        self._kept, self._keep = 0, keep
        self._lock = threading.Lock()
        self.tokenizer = Tokenizer()
        self._function_words = frozenset(self.tokenizer.terms([_FUNCTION_WORDS])[0])

    def postings(self, term: str) -> Postings:
        with self._lock:
            known = self._postings.get(term)
            if known is not None:
                self._postings.move_to_end(term)
                return known
        made = self._read(term)
        with self._lock:
            if term not in self._postings:
                self._postings[term] = made
                self._kept += len(made.rows)
                while self._kept > self._keep and len(self._postings) > 1:
                    _, dropped = self._postings.popitem(last=False)
                    self._kept -= len(dropped.rows)
        return made

    def _read(self, term: str) -> Postings:
        found = self._query("SELECT doc, col = 'context' FROM instances WHERE term = ?", (term,))
        pairs = np.asarray(found, np.int64).reshape(-1, 2)
        held = np.where(pairs[:, 1] == 1, self._context_weight, 1.0)
        rows, where = np.unique(pairs[:, 0] - 1, return_inverse=True)
        frequency = np.bincount(where, held, len(rows))
        idf = max(float(np.log((self._size - len(rows) + 0.5) / (len(rows) + 0.5))), 0.0) or _LEAST_IDF
        weights = idf * frequency * (K1 + 1) / (frequency + self._norm[rows])
        return Postings(rows.astype(np.int32), weights.astype(np.float32), idf)

    def scores(self, terms: Sequence[str]) -> Scores:
        """BM25 of every passage for one query; 0 where no term occurs. A repeated term counts as often."""
        total = np.zeros(self._size, np.float32)
        for term in terms:
            postings = self.postings(term)
            total[postings.rows] += postings.weights  # rows of one term are distinct: plain indexing adds up
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

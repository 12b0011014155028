"""The inverted index: for each term the passages that hold it, as arrays that a search uses as they are.

SQLite's FTS5 cuts texts into terms, in memory; what it finds is kept in *segments*, one for each transaction, which is
a run of passages in the order of their ids. Sixteen segments of a level become one of the next (O'Neil et al., "The
Log-Structured Merge-Tree", 1996), so a term is read from a few places, and writing stays cheap. FTS5's own inverted
index would tell the same, but one occurrence after the other, of which a common word has hundreds of thousands.

Passages that were removed stay in their segments, unseen, until these are merged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.lexical import Occurrences
from windlass.apply.rag.indexes.terms import Tokenizer

_FAN = 16
_LARGEST = 1 << 18
"""Passages of a segment that is merged no further: a merge is to take seconds."""


def add(db: sqlite3.Connection, rows: Sequence[tuple[int, str, str]], tokenizer: Tokenizer) -> NDArray[np.int32]:
    """A segment of passages, given as id, context and text in the order of their ids; returns the tokens of each."""
    if not rows:
        return np.zeros(0, np.int32)
    ids = np.array([passage for passage, _, _ in rows], np.int32)
    found = tokenizer.occurrences([(above, text) for _, above, text in rows])
    held = Occurrences.of(ids[found.passages], found.in_context, found.in_text)
    of, above, below = held.ids.tobytes(), held.in_context.tobytes(), held.in_text.tobytes()
    first = int(ids[0])
    db.execute("INSERT INTO segments VALUES (?, 0, ?)", (first, len(rows)))
    db.executemany(
        "INSERT INTO postings VALUES (?, ?, ?)",
        (  # each as `Occurrences.packed` would pack it, which takes longer
            (first, term, of[4 * i : 4 * j] + above[2 * i : 2 * j] + below[2 * i : 2 * j])
            for term, (i, j) in zip(found.terms, pairwise(found.bounds.tolist()), strict=True)
        ),
    )
    return np.bincount(found.passages, found.in_context + found.in_text, len(rows)).astype(np.int32)


def merge(db: sqlite3.Connection) -> None:
    """Makes one segment of sixteen neighbours of a level, as often as there are so many."""
    while True:
        levels = [list(run) for _, run in groupby(_segments(db), key=lambda segment: segment.level)]
        run = next((run[-_FAN:] for run in levels if len(run) >= _FAN and run[-1].passages < _LARGEST), None)
        if run is None:
            return
        _rewrite(db, run, run[0].level + 1)


def rewrite(db: sqlite3.Connection) -> None:
    """As few segments as may be, without what was removed."""
    run: list[_Segment] = []
    for segment in [*_segments(db), None]:
        if run and (segment is None or sum(one.passages for one in run) + segment.passages > _LARGEST):
            _rewrite(db, run, max(one.level for one in run) + (len(run) > 1))
            run = []
        if segment is not None:
            run.append(segment)


class _Segment(NamedTuple):
    first: int
    """Id of its first passage, and its name."""
    level: int
    passages: int


def _segments(db: sqlite3.Connection) -> list[_Segment]:
    return [_Segment(*row) for row in db.execute("SELECT id, level, passages FROM segments ORDER BY id")]


def _rewrite(db: sqlite3.Connection, run: Sequence[_Segment], level: int) -> None:
    first, last = run[0].first, run[-1].first
    living = _living(db)
    old = db.execute(
        "SELECT term, data FROM postings WHERE segment BETWEEN ? AND ? ORDER BY term, segment", (first, last)
    )
    merged = (
        (term, _alive(Occurrences.unpacked(data for _, data in parts), living))
        for term, parts in groupby(old, key=lambda row: row[0])
    )
    db.execute("CREATE TEMP TABLE IF NOT EXISTS merged (term TEXT, data BLOB)")
    db.executemany("INSERT INTO merged VALUES (?, ?)", ((term, held.packed()) for term, held in merged if len(held)))
    db.execute("DELETE FROM postings WHERE segment BETWEEN ? AND ?", (first, last))
    db.execute("DELETE FROM segments WHERE id BETWEEN ? AND ?", (first, last))
    db.execute("INSERT INTO postings SELECT ?, term, data FROM merged ORDER BY rowid", (first,))
    db.execute("DELETE FROM merged")
    (after,) = db.execute("SELECT ifnull(min(id), ?) FROM segments WHERE id > ?", (1 << 62, last)).fetchone()
    inside = living[(living[:, 0] >= first) & (living[:, 0] < after)]
    if held := int((inside[:, 1] - inside[:, 0]).sum()):
        db.execute("INSERT INTO segments VALUES (?, ?, ?)", (first, level, held))


def _living(db: sqlite3.Connection) -> NDArray[np.int64]:
    """For each document the id of its first passage, and that after its last."""
    runs = db.execute("SELECT first, first + passages FROM documents WHERE passages > 0 ORDER BY first").fetchall()
    return np.array(runs, np.int64).reshape(-1, 2)


def _alive(held: Occurrences, living: NDArray[np.int64]) -> Occurrences:
    if not len(living):
        return Occurrences(held.ids[:0], held.in_context[:0], held.in_text[:0])
    at = np.maximum(np.searchsorted(living[:, 0], held.ids, side="right") - 1, 0)
    kept = (living[at, 0] <= held.ids) & (held.ids < living[at, 1])
    return held if kept.all() else Occurrences(held.ids[kept], held.in_context[kept], held.in_text[kept])

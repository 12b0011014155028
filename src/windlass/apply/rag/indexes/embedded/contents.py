"""What an index holds, as arrays: of one version, never changed, made from the one before by what a commit changed.

Passages stand in the order of their ids. Their *positions* in these arrays are what scores and filters are computed
over; a passage's id says where its text is in the database, its row where its vector is in the file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.layout import State, damaged, read_state

Ints = NDArray[np.int64]
_SOME = 20_000
"""Documents read at once: there may be millions."""
_DOCUMENTS = "SELECT id, first, passages, row, tokens, access FROM documents WHERE id > ? ORDER BY id"


@dataclass(frozen=True)
class Contents:
    state: State
    documents: Ints
    """Ids of the documents, ascending."""
    first: Ints
    """For each document the id of its first passage."""
    count: Ints
    """For each document how many passages it has."""
    row: Ints
    """For each document the row of its first vector."""
    lengths: NDArray[np.int32]
    """Tokens of each passage, title and heading included."""
    labels: Sequence[frozenset[str] | None]
    """For each document its access labels, None for a public one."""

    def __len__(self) -> int:
        return self.state.passages

    @cached_property
    def ids(self) -> Ints:
        """Passage ids, ascending."""
        return runs(self.first, self.count)

    @cached_property
    def rows(self) -> Ints | None:
        """For each passage the row of its vector; None when all rows are in use and in this order."""
        rows = runs(self.row, self.count)
        return None if np.array_equal(rows, np.arange(self.state.rows)) else rows

    @cached_property
    def positions(self) -> Ints | None:
        """For each row the position of its passage, -1 for a row without one; None as for `rows`."""
        if self.rows is None:
            return None
        positions = np.full(self.state.rows, -1)
        positions[self.rows] = np.arange(len(self.rows))
        return positions

    @cached_property
    def alive(self) -> NDArray[np.bool_] | None:
        """For each row whether a passage has it; None as for `rows`."""
        return None if self.positions is None else self.positions >= 0

    @cached_property
    def owners(self) -> Ints:
        """For each passage the position of its document."""
        return np.repeat(np.arange(len(self.documents)), self.count)

    def places(self, ids: NDArray[np.integer[Any]]) -> tuple[Ints, NDArray[np.bool_]]:
        """The positions of passages, and which of `ids`, ascending, they belong to: not to those that are gone."""
        if self.state.last_passage == len(self):  # nothing was ever removed
            kept = ids <= len(self)
            return ids[kept].astype(np.int64) - 1, kept
        at = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1) if len(self) else np.zeros(len(ids), np.int64)
        kept = self.ids[at] == ids if len(self) else np.zeros(len(ids), np.bool_)
        return at[kept], kept

    @cached_property
    def public(self) -> bool:
        """Whether there are no labels at all."""
        return not any(self.labels)


def read(db: sqlite3.Connection, folder: Path, before: Contents | None = None) -> Contents:
    """The newest version. With the one before only what has changed is read. To be called inside one transaction."""
    state = read_state(db, folder)
    if before is None or before.state.version < state.oldest or before.state.generation != state.generation:
        before = _EMPTY
    elif before.state.version == state.version:
        return before
    gone = [row[0] for row in db.execute("SELECT document FROM removed WHERE version > ?", (before.state.version,))]
    kept = ~np.isin(before.documents, gone) if gone else np.ones(len(before.documents), np.bool_)
    columns = [np.stack([before.documents, before.first, before.count, before.row], axis=1)[kept]]
    lengths = [before.lengths[np.repeat(kept, before.count)] if gone else before.lengths]
    labels = [some for some, keep in zip(before.labels, kept, strict=True) if keep] if gone else list(before.labels)
    added = db.execute(_DOCUMENTS, (before.state.last_document,))
    while rows := added.fetchmany(_SOME):
        columns.append(np.array([row[:4] for row in rows], np.int64))
        lengths.append(np.frombuffer(b"".join(row[4] for row in rows), "<i4"))
        labels.extend(None if row[5] is None else frozenset(json.loads(row[5])) for row in rows)
    documents, first, count, row = (np.ascontiguousarray(column) for column in np.concatenate(columns).T)
    made = Contents(state, documents, first, count, row, np.concatenate(lengths), labels)
    if len(made.documents) != state.documents or not len(made.lengths) == made.count.sum() == state.passages:
        raise damaged(folder, "its documents are not those that it counts")
    return made


def runs(first: Ints, count: Ints) -> Ints:
    """first[0], first[0] + 1, ... `count[0]` of them, then those of the next."""
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()))


_NONE = np.zeros(0, np.int64)
_EMPTY = Contents(State(), _NONE, _NONE, _NONE, _NONE, np.zeros(0, np.int32), ())

"""Filters: which passages a search may find, decided before anything is scored.

What can be filtered by is kept by columns: for a key of the metadata, numbers for its values and, side by side, which
document has which. A filter is then a comparison of arrays and not a look at each document. A column is read when it
is first asked for, and grows by the documents that come.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.embedded.contents import Contents
from windlass.apply.rag.indexes.embedded.layout import storable
from windlass.apply.rag.indexes.embedded.lexical import Kept, Query
from windlass.core.errors import InputError

Rows = NDArray[np.int64]
_MOST_KEPT = 4_000_000
"""Positions kept of filters that were asked for: users of one service ask with the same ones again and again."""
_SOME = 20_000
"""Documents read at once."""
_MANY = 500
_NAMES = ("document", "source")
"""What every document can be filtered by, and has its own column in the database for."""


_EMPTY = object()
"""The value of a key whose list is empty: the key is there, and nothing that is asked for equals it."""


@dataclass(frozen=True, slots=True)
class Column:
    documents: Rows
    """Ids, ascending; once for each of the document's values."""
    codes: NDArray[np.int32]
    """For each of `documents` the number of a value."""
    numbers: Mapping[Any, int]
    """The number of a value. More values than `codes` tells of may have one."""
    values: Sequence[Any]


class Columns:
    """The columns of an index, shared by all of its versions. Documents that are gone stay in them, unseen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: dict[str, Column] = {}
        self._read = 0
        """Id of the last document that the columns hold."""

    def upto(self, contents: Contents, query: Query) -> None:
        """Reads the documents that are not in the columns yet, some at a time: there may be millions."""
        with self._lock:
            while self._read < contents.state.last_document:
                rows = query("SELECT id, metadata FROM documents WHERE id > ? ORDER BY id LIMIT ?", (self._read, _SOME))
                pairs: dict[str, list[tuple[int, Any]]] = {}
                for number, metadata in rows:
                    for key, value in json.loads(metadata).items():
                        pairs.setdefault(key, []).extend((number, one) for one in values_of(value) or (_EMPTY,))
                for key, added in pairs.items():
                    self._columns[key] = _grown(self._columns.get(key) or Column(_NO_ROWS, _NO_CODES, {}, []), added)
                self._read = rows[-1][0] if len(rows) == _SOME else contents.state.last_document

    def column(self, key: str) -> Column | None:
        with self._lock:
            return self._columns.get(key)

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._columns)


def _grown(column: Column, added: Sequence[tuple[int, Any]]) -> Column:
    numbers, values = cast(dict[Any, int], column.numbers), cast(list[Any], column.values)
    codes = []
    for _, value in added:
        key = _hashable(value)
        if key not in numbers:
            values.append(value)  # first, as readers find values by the numbers
            numbers[key] = len(numbers)
        codes.append(numbers[key])
    return Column(
        np.concatenate([column.documents, np.array([document for document, _ in added], np.int64)]),
        np.concatenate([column.codes, np.array(codes, np.int32)]),
        numbers,
        values,
    )


_NO_ROWS, _NO_CODES = np.zeros(0, np.int64), np.zeros(0, np.int32)


class Filters:
    """What filters and labels let through in one version of an index. Safe to share between threads."""

    def __init__(self, contents: Contents, columns: Columns) -> None:
        self._contents = contents
        self._columns = columns
        self._answers = Kept[tuple[Rows | None]](_MOST_KEPT)

    def passages(self, where: Mapping[str, Any] | None, access: Collection[str], query: Query) -> Rows | None:
        """Positions, ascending; None for all of them. Raises `InputError` for a key that no document has which these
        labels may see: whether others have it is not theirs to know."""
        if where is None and self._contents.public:
            return None
        asked = repr((None if where is None else sorted(where.items()), sorted(access)))
        if (known := self._answers.get(asked)) is not None:
            return known[0]
        made = self._passages(where, access, query)
        self._answers.put(asked, (made,), 1 if made is None else 1 + len(made))
        return made

    def _passages(self, where: Mapping[str, Any] | None, access: Collection[str], query: Query) -> Rows | None:
        visible = seen = self._seen(access)
        for key, value in (where or {}).items():
            if key in _NAMES:
                seen = seen & self._named(key, value, query)
            else:
                self._columns.upto(self._contents, query)
                seen = seen & self._having(key, value, visible)
        return None if seen.all() else np.flatnonzero(np.repeat(seen, self._contents.count))

    def facets(self, access: Collection[str], query: Query) -> dict[str, list[Any]]:
        """The values of each key, most frequent first."""
        seen = self._seen(access)
        self._columns.upto(self._contents, query)
        found = {}
        for key in self._columns.names():
            column = self._columns.column(key)
            if column is not None and key != "access":
                places, kept = self._places(column.documents)
                counts = np.bincount(column.codes[kept][seen[places]], minlength=len(column.values))
                order = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code]]
                values = [column.values[code] for code in order if column.values[code] is not _EMPTY]
                if values:
                    found[key] = values
        return found

    def _seen(self, access: Collection[str]) -> NDArray[np.bool_]:
        """For each document whether these labels may see it."""
        if isinstance(access, str):
            raise InputError(f"access is '{access}', but must be a collection of labels.", "Put it into a list.")
        seen, by_label = self._labelled
        if by_label:
            seen = seen.copy()
            for label in access:
                seen[by_label.get(label, [])] = True
        return seen

    @cached_property
    def _labelled(self) -> tuple[NDArray[np.bool_], dict[str, list[int]]]:
        """Which documents are public, and those that each label opens."""
        if self._contents.public:
            return np.ones(len(self._contents.documents), np.bool_), {}
        by_label: dict[str, list[int]] = {}
        for at, labels in enumerate(self._contents.labels):
            for label in labels or ():
                by_label.setdefault(label, []).append(at)
        return np.array([labels is None for labels in self._contents.labels], np.bool_), by_label

    def _named(self, key: str, value: Any, query: Query) -> NDArray[np.bool_]:
        """For each document whether it is one of those named: the database finds them by an index."""
        having = np.zeros(len(self._contents.documents), np.bool_)
        names = [storable(one) for one in values_of(value) if isinstance(one, str)]
        for at in range(0, len(names), _MANY):
            some = names[at : at + _MANY]
            rows = query(f"SELECT id FROM documents WHERE {key} IN ({','.join('?' * len(some))})", tuple(some))
            having[self._places(np.array(sorted(row[0] for row in rows), np.int64))[0]] = True
        return having

    def _having(self, key: str, value: Any, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each document whether `key` has one of the values. Without the key it has the value None."""
        having = np.zeros(len(seen), np.bool_)
        column = self._columns.column(key)
        wanted = values_of(value)
        if column is not None:
            asked = [column.numbers[one] for one in map(_hashable, wanted) if one in column.numbers]
            chosen = column.codes == asked[0] if len(asked) == 1 else np.isin(column.codes, asked)
            having[self._places(column.documents[chosen])[0]] = True
        if not (having & seen).any() and not self._known(key, seen) and seen.any():
            known = sorted([*_NAMES, *(name for name in self._columns.names() if self._known(name, seen))])
            raise InputError(
                f"No document of the index has '{key}'.", f"Documents can be filtered by: {', '.join(known)}."
            )
        if column is not None and any(one is None for one in wanted):
            without = np.ones(len(seen), np.bool_)
            without[self._places(column.documents)[0]] = False
            having |= without
        return having

    def _known(self, key: str, seen: NDArray[np.bool_]) -> bool:
        column = self._columns.column(key)
        return column is not None and bool(seen[self._places(column.documents)[0]].any())

    def _places(self, documents: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """The positions of documents, and which of `documents` they belong to: not to those that are gone."""
        mine = self._contents.documents
        if not len(mine):
            return documents[:0], np.zeros(len(documents), np.bool_)
        at = np.minimum(np.searchsorted(mine, documents), len(mine) - 1)
        kept = mine[at] == documents
        return at[kept], kept


def values_of(value: Any) -> Sequence[Any]:
    """A value of the metadata, or of a filter, as the list of values that it stands for."""
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def _hashable(value: Any) -> Any:
    """Equal for equal values, as a key: tables and lists inside of lists by their JSON."""
    if value is _EMPTY or value is None or isinstance(value, (str, int, float, bool)):
        return value
    return ("json", json.dumps(value, sort_keys=True, default=str))

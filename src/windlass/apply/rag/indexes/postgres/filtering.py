"""Which passages a search may find: metadata and labels of their documents, as SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.postgres.connection import Connection
from windlass.apply.rag.indexes.postgres.writing import PUBLIC, cleaned, storable
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the row `d` of `documents`."""

    parts: Sequence[str]
    """With `{}` where a value goes."""
    values: Sequence[str | Sequence[str]]

    def sql(self, first: int = 1) -> str:
        """The condition, with its values as parameters from number `first` on."""
        return " AND ".join(self.parts).format(*(f"${first + place}" for place in range(len(self.values))))

    def written_out(self) -> str:
        """The condition with its values in it, so that a plan for it can be kept."""
        return " AND ".join(self.parts).format(*map(_literal, self.values))


@dataclass(frozen=True, slots=True)
class Allowed:
    """All passages, those of `numbers`, or those of documents for which `condition` holds."""

    passages: int | None
    """How many they are; None where nobody counted."""
    numbers: NDArray[np.int64] | None = None
    condition: Condition | None = None


async def allowed_by(
    db: Connection, where: Mapping[str, Any] | None, access: Collection[str], *, total: int, labelled: int, few: int
) -> Allowed:
    """The passages of documents that match and that an asker with these labels may see.

    `total`: passages of the index; `labelled`: its documents that have labels. Up to `few` passages are named by their
    numbers: then a search looks through them and is exact. Raises `InputError` for a key that no document has which the
    asker may see.
    """
    condition = condition_of(where or {}, access if labelled else None)
    if not condition.parts:
        return Allowed(total)
    found = await db.fetch(
        f"SELECT first, passages FROM documents d WHERE {condition.sql()} AND passages > 0 LIMIT {few + 1}",
        *condition.values,
    )
    if where and (not found or any(None in values_of(wanted) for wanted in where.values())):
        await _check(db, where, access)
    spans = np.asarray([tuple(row) for row in found], np.int64).reshape(-1, 2)
    if spans[:, 1].sum() > few:
        return Allowed(None, condition=condition)
    numbers = np.concatenate([np.arange(first, first + count) for first, count in spans] or [np.zeros(0, np.int64)])
    return Allowed(len(numbers), numbers=numbers)


def condition_of(where: Mapping[str, Any], access: Collection[str] | None) -> Condition:
    """`access`: None where every document may be seen."""
    parts: list[str] = []
    values: list[str | Sequence[str]] = []
    for key, wanted in where.items():
        some = values_of(cleaned(wanted))
        if key in ("document", "source"):
            parts.append(f"d.{key} = ANY({{}}::text[])")
            values.append([value for value in some if isinstance(value, str)])
            continue
        # A document has the value itself, or a list with the value in it.
        parts.append("d.metadata @> ANY({}::jsonb[])")
        values.append([json.dumps({key: held}) for value in some for held in (value, [value])])
        if None in some:
            parts[-1] = f"({parts[-1]} OR NOT d.metadata ? {{}}::text)"
            values.append(key)
    if access is not None:
        parts.append("d.access && {}::text[]")
        values.append(labels_of(access))
    return Condition(parts, values)


def _literal(value: str | Sequence[str]) -> str:
    """As SQL writes it, where `standard_conforming_strings` is on and no text holds the character 0."""
    if isinstance(value, str):
        return "'" + storable(value).replace("'", "''") + "'"
    return f"ARRAY[{', '.join(map(_literal, value))}]"


async def _check(db: Connection, where: Mapping[str, Any], access: Collection[str]) -> None:
    for key in where:
        seen = "SELECT 1 FROM documents d WHERE d.access && $1::text[]"
        if key in ("document", "source") or await db.fetchval(
            f"{seen} AND d.metadata ? $2 LIMIT 1", labels_of(access), key
        ):
            continue
        known = await keys_of(db, access)
        if known:
            raise InputError(
                f"No document of the index has '{key}'.", f"Documents can be filtered by: {', '.join(known)}."
            )


async def keys_of(db: Connection, access: Collection[str]) -> list[str]:
    """What the documents can be filtered by that an asker with these labels may see; empty when there are none."""
    found = await db.fetch(
        "SELECT DISTINCT k FROM documents d LEFT JOIN LATERAL jsonb_object_keys(d.metadata) k ON true"
        " WHERE d.access && $1::text[]",
        labels_of(access),
    )
    return (
        sorted({"document", "source", *(row["k"] for row in found if row["k"] not in (None, "access"))})
        if found
        else []
    )


def labels_of(access: Collection[str]) -> list[str]:
    """The labels of an asker as the table has them: everybody holds that of public documents."""
    return [PUBLIC, *map(cleaned, access)]


def values_of(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]

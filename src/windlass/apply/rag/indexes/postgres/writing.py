"""Putting documents into an index in PostgreSQL and taking them out, each time in one transaction.

A transaction begins by locking the row of `meta`: one writer at a time, so that numbers are given out in order and
the sums of `meta` and `words` are those of what is there. Readers never wait.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from windlass.apply.rag.chunking import context_of
from windlass.apply.rag.indexes.embedded.layout import IndexMeta
from windlass.apply.rag.indexes.embedded.writing import check
from windlass.apply.rag.indexes.postgres.connection import Connection
from windlass.apply.rag.indexes.terms import Tokenizer
from windlass.core.documents import Entry
from windlass.core.errors import InputError

_BATCH = 256
"""Documents sent at once: bounds what a transaction of many holds in memory."""
_LONGEST_ID = 2000
"""Bytes. PostgreSQL indexes texts of up to a third of a page."""
_MOST = 2**15 - 1
_LONGEST_WORD = 64
PUBLIC = ""
"""The label of documents without labels, so that one condition tells who may see what. No label is empty."""


@dataclass(slots=True)
class Totals:
    """What a transaction adds to the sums of `meta`; and the next free numbers."""

    next_document: int
    next_passage: int
    documents: int = 0
    passages: int = 0
    tokens: int = 0
    labelled: int = 0

    def count(self, sign: int, documents: Iterable[Sequence[str]], tokens: Iterable[int]) -> None:
        """Adds or takes away documents, given by their labels, and passages, given by their lengths."""
        for labels in documents:
            self.documents += sign
            self.labelled += sign * (list(labels) != [PUBLIC])
        for length in tokens:
            self.passages += sign
            self.tokens += sign * length


@dataclass(slots=True)
class Rows:
    """A batch as the tables take it; its words have no numbers yet."""

    ids: list[str] = field(default_factory=list)
    documents: list[tuple[Any, ...]] = field(default_factory=list)
    passages: list[tuple[Any, ...]] = field(default_factory=list)
    """All columns but `words` and `tokens`, whose place is before the last."""
    above: list[Counter[str]] = field(default_factory=list)
    """How often each passage holds each word in its context,"""
    inside: list[Counter[str]] = field(default_factory=list)
    """and in its text."""


def batches(entries: Iterable[Entry], meta: IndexMeta) -> Iterator[list[Entry]]:
    """The entries, some at a time. Raises `InputError` for one that is not what an index holds."""
    seen: set[str] = set()
    left = iter(entries)
    while batch := list(islice(left, _BATCH)):
        check(batch, meta)
        for entry in batch:
            id = storable(entry.document.id)
            if id in seen:
                raise InputError(f"Document '{id}' is to be put twice at once.", "Put its newest version.")
            if len(id.encode()) > _LONGEST_ID:
                raise InputError(f"The id of document '{id[:80]}…' is longer than {_LONGEST_ID} bytes.")
            seen.add(id)
        yield batch


def rows_of(batch: Sequence[Entry], meta: IndexMeta, tokenizer: Tokenizer, totals: Totals) -> Rows:
    """What the tables take of some entries, with numbers given out from `totals`."""
    rows = Rows()
    contexts: list[str] = []
    for entry in batch:
        document, passages = entry.document, entry.passages
        number, first = totals.next_document, totals.next_passage
        totals.next_document += 1
        totals.next_passage += len(passages)
        rows.ids.append(storable(document.id))
        rows.documents.append(
            (
                number,
                storable(document.id),
                entry.digest,
                storable(document.source),
                storable(document.title),
                document.format,
                storable(document.text),
                _metadata(entry),
                _labels(entry),
                first,
                len(passages),
            )
        )
        for place, (passage, vector) in enumerate(zip(passages, entry.vectors, strict=True)):
            contexts.append(context_of(passage, meta.context))
            rows.passages.append(
                (
                    first + place,
                    number,
                    None if passage.title == document.title else storable(passage.title),
                    storable(passage.heading),
                    storable(passage.context),
                    passage.start,
                    passage.end,
                    storable(passage.text),
                    np.asarray(vector, np.float32),
                )
            )
    rows.above = [Counter(words) for words in words_in(contexts, tokenizer)]
    rows.inside = [Counter(words) for words in words_in([row[7] for row in rows.passages], tokenizer)]
    return rows


def words_in(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[str]]:
    """The stems of each text, as the table has them: a monster, such as an encoded image, under a name of its own."""
    return [
        [
            word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + sha256(word.encode()).hexdigest()
            for word in words
        ]
        for words in tokenizer.terms(texts)
    ]


async def begin(db: Connection) -> Totals:
    """Waits for its turn to write."""
    row = await db.fetchrow("SELECT next_document, next_passage FROM meta FOR UPDATE")
    return Totals(row["next_document"], row["next_passage"])


async def remove(db: Connection, ids: Sequence[str], totals: Totals) -> int:
    """Removes documents with all that belongs to them; returns how many there were."""
    gone = await db.fetch("DELETE FROM documents WHERE document = ANY($1::text[]) RETURNING id, access", ids)
    if gone:
        lengths = await db.fetchval(_REMOVE_PASSAGES, [row["id"] for row in gone])
        totals.count(-1, [row["access"] for row in gone], lengths or ())
    return len(gone)


_REMOVE_PASSAGES = """
WITH gone AS (DELETE FROM passages WHERE document = ANY($1::int[]) RETURNING id, tokens, words),
held AS (SELECT id AS passage, unnest(words) AS word FROM gone),
cut AS (DELETE FROM postings p USING held WHERE p.word = held.word AND p.passage = held.passage),
less AS (UPDATE words w SET passages = w.passages - h.passages
         FROM (SELECT word, count(*)::int AS passages FROM held GROUP BY word) h WHERE w.id = h.word)
SELECT array_agg(tokens) FROM gone
"""


async def add(db: Connection, rows: Rows, totals: Totals) -> None:
    """Writes a batch. What was there of the same documents is removed."""
    await remove(db, rows.ids, totals)
    await db.copy_records_to_table("documents", records=rows.documents)
    together = [above + inside for above, inside in zip(rows.above, rows.inside, strict=True)]
    numbers = await _numbered(db, Counter(word for words in together for word in words))
    lengths = [words.total() for words in together]
    await db.copy_records_to_table(
        "passages",
        records=[
            (*row[:-1], sorted(map(numbers.__getitem__, words)), length, row[-1])
            for row, words, length in zip(rows.passages, together, lengths, strict=True)
        ],
    )
    await db.copy_records_to_table(
        "postings",
        records=[
            (numbers[word], row[0], length, min(above[word], _MOST), min(inside[word], _MOST))
            for row, words, above, inside, length in zip(
                rows.passages, together, rows.above, rows.inside, lengths, strict=True
            )
            for word in words
        ],
    )
    totals.count(1, [row[8] for row in rows.documents], lengths)


async def _numbered(db: Connection, held: Mapping[str, int]) -> dict[str, int]:
    """The number of each word, which so many more passages hold now."""
    found = await db.fetch(
        "INSERT INTO words AS w (word, passages) SELECT * FROM unnest($1::text[], $2::int[])"
        " ON CONFLICT (word) DO UPDATE SET passages = w.passages + excluded.passages RETURNING word, id",
        list(held),
        list(held.values()),
    )
    return {row["word"]: row["id"] for row in found}


async def end(db: Connection, totals: Totals) -> None:
    """Brings `meta` up to date, before the transaction is committed."""
    await db.execute(
        "UPDATE meta SET writes = writes + 1, documents = documents + $1, passages = passages + $2,"
        " tokens = tokens + $3, labelled = labelled + $4, next_document = $5, next_passage = $6",
        totals.documents,
        totals.passages,
        totals.tokens,
        totals.labelled,
        totals.next_document,
        totals.next_passage,
    )


# what PostgreSQL stores ---------------------------------------------------------------------------------------------


def storable(text: str) -> str:
    """PostgreSQL stores UTF-8 without the character 0: what it cannot store becomes another of the same length."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _metadata(entry: Entry) -> str:
    try:
        return json.dumps(cleaned(entry.document.metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The metadata of document '{entry.document.id}' cannot be stored as JSON ({error}).",
            "Use texts, numbers, truth values and lists of them.",
        ) from error


def _labels(entry: Entry) -> list[str]:
    return sorted(map(storable, entry.document.access)) or [PUBLIC]


def cleaned(value: Any) -> Any:
    """The value with all of its texts storable."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [cleaned(item) for item in value]
    return value

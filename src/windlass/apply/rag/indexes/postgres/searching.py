"""Searching an index in PostgreSQL: the nearest vectors and the best words in one statement, fused as everywhere.

Two short-cuts make it fast, and both are checked when the answer is there; if one was wrong the question is asked
again without it. The first is pgvector's graph, which may give up before enough passages have passed a filter
(pgvector issue 751). The second is to look for passages by the rare words of the query only, and to count its common
words just for what those found: all common words together can add so much and no more (MaxScore; Turtle and Flood,
"Query Evaluation: Strategies and Optimizations", 1995). The scores are those of `Lexical`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.fusion import Ranked, SearchSettings, fuse
from windlass.apply.rag.indexes.postgres.connection import Connection
from windlass.apply.rag.indexes.postgres.filtering import Allowed, Condition
from windlass.apply.rag.indexes.terms import K1, B, idf_of

QUOTED = 'p.id, d.document, coalesce(p.title, d.title), p.heading, p.start, p."end", p.text, d.source'
"""Of a passage `p` and its document `d`: the number, and the fields of a `Citation`."""
_CHEAP = 2_000
"""Postings that are read as fast as one could think about not reading them."""


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the query that the index holds."""

    number: int
    weight: float
    """How rare it is (`idf`), as often as the query has it."""
    passages: int
    """That hold it."""

    @property
    def most(self) -> float:
        """What it may add to a passage's score, however often it occurs there."""
        return self.weight * (K1 + 1)


@dataclass(frozen=True, slots=True)
class State:
    """What a search needs to know of the index before it begins."""

    writes: int
    """Transactions so far: by it one sees whether the index has changed meanwhile."""
    passages: int
    average: float
    """Length of a passage in words."""
    labelled: int
    """Documents that not everybody may see."""
    approximate: bool
    """There is a graph of the vectors."""
    terms: Sequence[Term]
    """The query's words, rarest first."""


class Changed(Exception):
    """The index was written to between two statements of a search."""


async def state_of(db: Connection, words: Sequence[str]) -> State:
    often = Counter(words)
    rows = await db.fetch(
        "SELECT writes, m.passages, tokens, labelled, approximate, id, word, w.passages"
        " FROM meta m LEFT JOIN words w ON w.word = ANY($1::text[]) AND w.passages > 0 ORDER BY w.passages, id",
        list(often),
    )
    writes, passages, tokens, labelled, approximate, *_ = rows[0]
    terms = [Term(id, often[word] * idf_of(held, passages), held) for *_, id, word, held in rows if id is not None]
    return State(writes, passages, max(tokens / max(passages, 1), 1e-9), labelled, approximate, terms)


async def best_of(
    db: Connection,
    vector: NDArray[np.float32],
    state: State,
    allowed: Allowed,
    k: int,
    settings: SearchSettings,
) -> Ranked:
    """The best `k` of the allowed passages; its rows are their numbers. Raises `Changed` when `state` is no more."""
    terms = state.terms if settings.dense < 1 else ()
    depth = max(settings.depth, k) if settings.dense < 1 else k
    graph, first = state.approximate and allowed.numbers is None, _rare_enough(terms, depth)
    while True:
        question = _Question(vector, terms[:first], terms[first:], state.average, settings.context_weight, depth, graph)
        sql, values = _statement(question, allowed)
        rows = await db.fetch(sql, *values)
        if not rows or rows[0][-1] != state.writes:
            raise Changed
        found = np.array([tuple(row)[:-1] for row in rows], np.float64)
        near, worded = int(found[:, 3].sum()), found[found[:, 4] == 1, 2]
        gave_up = graph and near < min(depth, depth if allowed.passages is None else allowed.passages)
        overlooked = first < len(terms) and not (len(worded) == depth and worded.min() > question.rest)
        if not gave_up and not overlooked:
            break
        graph, first = graph and not gave_up, len(terms) if overlooked else first
    ranked = fuse(found[:, 1].astype(np.float32), found[:, 2].astype(np.float32), k, settings)
    return ranked.moved(found[:, 0].astype(np.int64))


async def nearest_of(
    db: Connection, vector: NDArray[np.float32], condition: Condition, k: int
) -> list[tuple[Any, ...]]:
    """Up to `k` of the nearest, best first, where words do not count: rows of likeness and quotation, of one statement,
    as one would write it by hand. It is for the caller to ask in another way when they are fewer than `k`.

    The filter is written out, for a connection that keeps plans: to plan this takes as long as a good part of the rest.
    """
    among = f"passages p JOIN documents d ON d.id = p.document AND {condition.written_out()}"
    if len(condition.parts) == 1:  # labels alone, which most indexes do without
        seen = f"SELECT {condition.written_out()} FROM documents d WHERE d.id = p.document"
        among = f"passages p WHERE (SELECT labelled = 0 FROM meta) OR ({seen})"
    rows = await db.fetch(
        f"SELECT -(p.embedding <#> $1), {QUOTED} FROM (SELECT p.* FROM {among} ORDER BY p.embedding <#> $1 LIMIT {k}) p"
        " JOIN documents d ON d.id = p.document",
        vector,
    )
    return sorted(map(tuple, rows), key=lambda row: (-row[0], row[1]))


def _rare_enough(terms: Sequence[Term], depth: int) -> int:
    """How many of the rarest words should find the best `depth` passages, so that the others need not be looked up.

    The guess: the last of those passages holds one of these words once.
    """
    if sum(term.passages for term in terms) <= _CHEAP:
        return len(terms)
    rest, held = sum(term.most for term in terms), 0
    for count, term in enumerate(terms, start=1):
        rest -= term.most
        held += term.passages
        if held >= depth and rest < term.weight:
            return count
    return len(terms)


@dataclass(frozen=True, slots=True)
class _Question:
    """All that a statement is made from, besides what is allowed."""

    vector: NDArray[np.float32]
    rare: Sequence[Term]
    """Passages with one of these are found."""
    common: Sequence[Term]
    """These count for what was found."""
    average: float
    context_weight: float
    depth: int
    graph: bool

    @property
    def rest(self) -> float:
        """What all common words together may add to a score."""
        return sum(term.most for term in self.common)


def _statement(q: _Question, allowed: Allowed) -> tuple[str, list[Any]]:
    """Rows of (passage, dense, bm25, is among the nearest, is among the best by words, writes), ascending."""
    values: list[Any] = [q.vector]

    def value(given: Any, kind: str) -> str:
        values.append(given)
        return f"${len(values)}::{kind}"

    passes, only, among = "", "", "passages p"
    if allowed.numbers is not None:
        only = value(allowed.numbers.tolist(), "int[]")
    elif allowed.condition is not None:
        condition = allowed.condition.sql(len(values) + 1)
        values.extend(allowed.condition.values)
        among = f"passages p JOIN documents d ON d.id = p.document AND {condition}"
        # A condition in this form is looked at row by row, until there are enough of them.
        passes = f"WHERE (SELECT true FROM {among} WHERE p.id = c.passage)"
    # What is added to a distance keeps the planner from the graph.
    order = "p.embedding <#> $1" if q.graph else "0 + (p.embedding <#> $1), p.id"
    named = f"WHERE p.id = ANY({only})" if only else ""
    near = f"SELECT p.id AS passage FROM {among} {named} ORDER BY {order} LIMIT {q.depth}"

    often = f"({value(q.context_weight, 'float8')} * o.above + o.inside)"
    length = f"{K1 * (1 - B)} + {value(K1 * B / q.average, 'float8')} * o.tokens"
    share = f"t.weight * {often} * {K1 + 1} / ({often} + {length})"

    def table(terms: Sequence[Term]) -> str:
        numbers, weights = [t.number for t in terms], [t.weight for t in terms]
        return f"unnest({value(numbers, 'int[]')}, {value(weights, 'float8[]')}) t (word, weight)"

    named = ""
    if allowed.numbers is not None:
        # Few numbers are looked up, many are a sieve: what is added to the column keeps the planner from looking up.
        few = len(allowed.numbers) * len(q.rare) < sum(term.passages for term in q.rare)
        named = f"AND o.passage {'' if few else '+ 0'} = ANY({only})"
    found = (
        f"SELECT o.passage, sum({share}) AS score"
        f" FROM {table(q.rare)} JOIN postings o ON o.word = t.word {named} GROUP BY o.passage"
    )
    complete = ""
    if q.common:
        complete = f"""
        edge AS (
            SELECT CASE WHEN count(*) < {q.depth} THEN 0 ELSE min(score) - {value(q.rest, "float8")} END AS score
            FROM (SELECT score FROM (SELECT * FROM found ORDER BY score DESC OFFSET 0) c {passes} LIMIT {q.depth}) top
        ),
        complete AS MATERIALIZED (
            SELECT c.passage, c.score + coalesce((
                SELECT sum({share}) FROM {table(q.common)} JOIN postings o ON o.word = t.word AND o.passage = c.passage
            ), 0) AS score
            FROM found c JOIN edge ON c.score >= edge.score
        ),"""
    return (
        f"""
        WITH near AS MATERIALIZED ({near}),
        found AS MATERIALIZED ({found}),{complete}
        worded AS MATERIALIZED (
            SELECT c.passage, c.score
            FROM (SELECT * FROM {"complete" if q.common else "found"} ORDER BY score DESC, passage OFFSET 0) c
            {passes} LIMIT {q.depth}
        )
        SELECT b.passage, -(p.embedding <#> $1), coalesce(w.score, (
                SELECT sum({share}) FROM {table([*q.rare, *q.common])}
                JOIN postings o ON o.word = t.word AND o.passage = b.passage
            ), 0), (n.passage IS NOT NULL)::int, (w.passage IS NOT NULL)::int, (SELECT writes FROM meta)
        FROM (SELECT passage FROM near UNION SELECT passage FROM worded) b
        JOIN passages p ON p.id = b.passage LEFT JOIN near n USING (passage) LEFT JOIN worded w USING (passage)
        ORDER BY b.passage
        """,
        values,
    )

"""Traces and their scores in the workspace's SQLite file: the half of `SqliteStore` that takes most of the load."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from windlass.core.errors import InputError
from windlass.core.jsontext import dump
from windlass.core.records import Mark, PromptUse, ScoreRecord, SpanLike, SpanRecord, TraceSummary
from windlass.core.redact import Redactor
from windlass.core.semconv import COST_USD, EVALUATION, INPUT_TOKENS, OUTPUT_TOKENS, PROMPT_DIGEST
from windlass.core.sqlite import Database

_SPAN = "trace_id, span_id, parent_id, name, operation, start_ns, end_ns, status, error, attributes, input, output"
_AMONG = "IN (SELECT value FROM json_each(?))"
_PROMPT = f"""json_extract(attributes, '$."{PROMPT_DIGEST}"')"""
"""To the letter as in the index `spans_prompts`."""
_EVALUATED = f"""json_type(root.attributes, '$."{EVALUATION}"') IS NOT NULL"""


class SqliteTraces:
    """Spans and scores. Nothing reaches the file before `redact` has seen it."""

    def __init__(self, database: Database, redact: Redactor) -> None:
        self.database = database
        self.redact = redact

    def add_spans(self, spans: Iterable[SpanLike]) -> int:
        self.redact.refresh()
        redact = self.redact
        rows = [
            (
                s.trace_id,
                s.span_id,
                s.parent_id,
                _text(s.name),
                _text(s.operation),
                s.start_ns,
                s.end_ns,
                s.status,
                None if s.error is None else redact(_text(s.error)),
                redact(dump(s.attributes)),
                None if s.input is None else redact(dump(s.input)),
                None if s.output is None else redact(dump(s.output)),
            )
            for s in spans
        ]
        with self.database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO spans VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)
        return len(rows)

    def trace(self, trace_id: str) -> list[SpanRecord]:
        rows = self.database.read(
            f"SELECT {_SPAN} FROM spans WHERE trace_id >= ? AND trace_id < ?"
            " ORDER BY start_ns, parent_id IS NOT NULL, rowid DESC",
            (trace_id, trace_id + "g"),
        )
        if len({row[0] for row in rows}) > 1:
            raise InputError(f"The id prefix '{trace_id}' fits more than one trace.", "Give more digits.")
        return [_span(row) for row in rows]

    def traces(
        self,
        *,
        name: str | None = None,
        since: float | None = None,
        errors: bool | None = None,
        score: tuple[str, float, float] | None = None,
        prompt: str | None = None,
        evaluations: bool | None = False,
        ids: Sequence[str] | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[TraceSummary]:
        # Only the conditions that are asked for, so that SQLite can walk an index from its newest end and stop.
        where, parameters = ["parent_id IS NULL"], list[Any]()
        free = ""
        if ids is not None:
            where.append(f"trace_id {_AMONG}")
            parameters.append(json.dumps(list(ids)))
            free = "+"  # keeps SQLite from walking all roots of the name, or of the time, in search of a few traces
        if name is not None:
            where.append(f"{free}name = ?")
            parameters.append(name)
        if since is not None:
            where.append(f"{free}start_ns >= ?")
            parameters.append(int(since * 1e9))
        if errors is not None:
            where.append("? = EXISTS (SELECT 1 FROM spans WHERE trace_id = root.trace_id AND status = 'error')")
            parameters.append(errors)
        if score is not None:
            where.append(
                "EXISTS (SELECT 1 FROM scores WHERE subject = root.trace_id AND name = ? AND value BETWEEN ? AND ?)"
            )
            parameters.extend(score)
        if prompt is not None:
            where.append(f"trace_id IN (SELECT trace_id FROM spans WHERE {_PROMPT} = ? AND {_PROMPT} IS NOT NULL)")
            parameters.append(prompt)
        if evaluations is not None:
            where.append(_EVALUATED if evaluations else f"NOT {_EVALUATED}")
        roots = self.database.read(
            f"SELECT {_SPAN} FROM spans AS root WHERE {' AND '.join(where)}"
            f" ORDER BY {free}start_ns DESC, rowid DESC LIMIT ? OFFSET ?",
            (*parameters, limit, offset),
        )
        wanted = json.dumps([row[0] for row in roots])
        parts: dict[str, list[_Part]] = {}
        for trace_id, *part in self.database.read(
            f"""SELECT trace_id, span_id, parent_id, status = 'error', json_extract(attributes, '$."{INPUT_TOKENS}"'),
                json_extract(attributes, '$."{OUTPUT_TOKENS}"'), json_extract(attributes, '$."{COST_USD}"'),
                json_type(attributes, '$."{COST_USD}"') IS NOT NULL FROM spans WHERE trace_id {_AMONG}""",
            (wanted,),
        ):
            parts.setdefault(trace_id, []).append(_Part(*part))
        scores: dict[str, dict[str, float]] = {}
        for subject, score_name, value in self.database.read(
            f"SELECT subject, name, value FROM scores WHERE value IS NOT NULL AND subject {_AMONG} ORDER BY at, rowid",
            (wanted,),
        ):
            scores.setdefault(subject, {})[score_name] = value
        return [_summary(_span(row), parts[row[0]], scores.get(row[0], {})) for row in roots]

    def mark(self) -> Mark:
        rows = self.database.read("SELECT (SELECT max(rowid) FROM spans), (SELECT max(rowid) FROM scores)")
        return Mark(*(found or 0 for found in rows[0]))

    def touched(self, after: Mark, limit: int = 5_000) -> tuple[list[str], Mark]:
        # Writers take turns, so rows are numbered in the order in which they become visible. The last span counts as
        # new each time: stored again, it keeps its number.
        spans = self.database.read(
            "SELECT rowid, trace_id FROM spans WHERE rowid >= ? ORDER BY rowid LIMIT ?", (after.spans, limit + 1)
        )
        scores = self.database.read(
            "SELECT rowid, subject FROM scores WHERE rowid > ? ORDER BY rowid LIMIT ?", (after.scores, limit)
        )
        found = dict.fromkeys(trace for _, trace in spans)
        found |= dict.fromkeys(subject.partition("/")[0] for _, subject in scores)
        return list(found), Mark(spans[-1][0] if spans else after.spans, scores[-1][0] if scores else after.scores)

    def prompt_uses(self, digests: Iterable[str]) -> dict[str, PromptUse]:
        wanted = json.dumps(list(digests))
        of_these = (
            f"FROM spans WHERE {_PROMPT} {_AMONG} AND {_PROMPT} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM spans AS root"
            f" WHERE root.trace_id = spans.trace_id AND root.parent_id IS NULL AND {_EVALUATED})"
        )
        price = f"""attributes, '$."{COST_USD}"'"""
        cost = f"iif(json_type({price}) IN ('integer', 'real'), json_extract({price}), NULL)"
        used = self.database.read(
            f"""SELECT {_PROMPT}, count(DISTINCT trace_id), count(DISTINCT iif(status = 'error', trace_id, NULL)),
                max(start_ns), count(json_type({price})), count({cost}), sum({cost})
                {of_these} GROUP BY {_PROMPT}""",
            (wanted,),
        )
        # Of a bare column beside max(), SQLite gives the value in the row of the maximum.
        rated = self.database.read(
            f"""SELECT digest, count(*), sum(value >= 0.5) FROM (
                SELECT digest, value, max(at) FROM (SELECT DISTINCT {_PROMPT} AS digest, trace_id {of_these})
                JOIN scores ON subject = trace_id WHERE name = 'feedback' AND value IS NOT NULL
                GROUP BY digest, trace_id) GROUP BY digest""",
            (wanted,),
        )
        feedback = {digest: (count, good) for digest, count, good in rated}
        return {
            digest: PromptUse(traces, failed, last / 1e9, calls, priced, spent, *feedback.get(digest, (0, 0)))
            for digest, traces, failed, last, calls, priced, spent in used
        }

    def add_score(self, score: ScoreRecord) -> None:
        if (score.value is None) == (score.error is None) or (
            score.value is not None and not math.isfinite(score.value)
        ):
            raise InputError(
                f"Score '{score.name}' of {score.subject} has value {score.value} and error {score.error!r}.",
                "A score has either a finite value, or an error that says why there is none.",
            )
        with self.database.write() as connection:
            inserted = connection.execute(
                "INSERT OR IGNORE INTO scores VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    score.id,
                    score.subject,
                    score.name,
                    score.value,
                    score.source,
                    score.author,
                    score.at,
                    self.redact(_text(score.comment)),
                    None if score.error is None else self.redact(_text(score.error)),
                    self.redact(dump(dict(score.metadata))),
                ),
            ).rowcount
        if not inserted:
            raise InputError(f"There is a score with the id '{score.id}' already.", "Give each its own id.")

    def scores(self, subject: str | None = None, name: str | None = None, limit: int = 100_000) -> list[ScoreRecord]:
        where = [f"{column} = ?" for column, value in (("subject", subject), ("name", name)) if value is not None]
        rows = self.database.read(
            "SELECT id, subject, name, value, source, author, at, comment, error, metadata FROM scores"
            f" {'WHERE' if where else ''} {' AND '.join(where)} ORDER BY at, rowid LIMIT ?",
            (*(value for value in (subject, name) if value is not None), limit),
        )
        return [
            ScoreRecord(id, subject, name, value, source, author, at, comment, error, json.loads(metadata))
            for id, subject, name, value, source, author, at, comment, error, metadata in rows
        ]


class _Part:
    """What a span adds to the summary of its trace."""

    __slots__ = ("cost", "error", "id", "input_tokens", "is_call", "output_tokens", "parent")

    def __init__(
        self, id: str, parent: str | None, error: int, input_tokens: Any, output_tokens: Any, cost: Any, priced: int
    ) -> None:
        self.id, self.parent, self.error = id, parent, bool(error)
        self.input_tokens = input_tokens if isinstance(input_tokens, int) else None
        self.output_tokens = output_tokens if isinstance(output_tokens, int) else None
        self.cost = cost if isinstance(cost, int | float) else None
        self.is_call = bool(priced) or self.input_tokens is not None or self.output_tokens is not None


def _summary(root: SpanRecord, parts: Sequence[_Part], scores: Mapping[str, float]) -> TraceSummary:
    # A span that repeats the sum of the calls below it must not count twice: only the innermost ones count.
    parents = {part.id: part.parent for part in parts}
    repeats: set[str] = set()
    for part in parts:
        above = part.parent if part.is_call else None
        while above is not None and above not in repeats:
            repeats.add(above)
            above = parents.get(above)
    calls = [part for part in parts if part.is_call and part.id not in repeats]
    costs = [call.cost for call in calls]
    return TraceSummary(
        root=root,
        spans=len(parts),
        errors=sum(part.error for part in parts),
        input_tokens=_total([call.input_tokens for call in calls]),
        output_tokens=_total([call.output_tokens for call in calls]),
        cost_usd=None if not costs or None in costs else sum(cost for cost in costs if cost is not None),
        scores=scores,
    )


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _text(text: str) -> str:
    """Text that SQLite can take: half a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _span(row: tuple[Any, ...]) -> SpanRecord:
    trace_id, span_id, parent_id, name, operation, start_ns, end_ns, status, error, attributes, input, output = row
    return SpanRecord(
        trace_id,
        span_id,
        parent_id,
        name,
        operation,
        start_ns,
        end_ns,
        status,
        error,
        json.loads(attributes),
        None if input is None else json.loads(input),
        None if output is None else json.loads(output),
    )

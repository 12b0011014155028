"""The embedded store: one SQLite file in WAL mode, with numbered migrations.

Every thread has its own connection. Writers wait for each other (`busy_timeout`), commits are synced, and a
killed process leaves the last committed state.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.core.errors import DiskFull, InputError, WorkspaceBusy, WorkspaceCorrupt, WorkspaceError
from windlass.core.records import (
    ArtifactRecord,
    MetricPoint,
    ReleaseRecord,
    RunRecord,
    RunStatus,
    ScoreRecord,
    SpanRecord,
    TraceSummary,
)

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE artifacts (
        digest TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
        created REAL NOT NULL, size INTEGER NOT NULL, files TEXT NOT NULL, card TEXT NOT NULL, run TEXT,
        UNIQUE (name, version)
    );
    CREATE INDEX artifacts_kind ON artifacts (kind, created);
    CREATE TABLE parents (
        child TEXT NOT NULL REFERENCES artifacts, position INTEGER NOT NULL, role TEXT NOT NULL,
        parent TEXT NOT NULL, PRIMARY KEY (child, position)
    ) WITHOUT ROWID;
    CREATE INDEX parents_parent ON parents (parent);
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, started REAL NOT NULL,
        ended REAL, config TEXT NOT NULL, environment TEXT NOT NULL, seed INTEGER, message TEXT NOT NULL
    );
    CREATE INDEX runs_started ON runs (started);
    CREATE TABLE metrics (
        run TEXT NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (run, name, step)
    ) WITHOUT ROWID;
    CREATE TABLE spans (
        trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, operation TEXT NOT NULL,
        start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status TEXT NOT NULL, error TEXT,
        attributes TEXT NOT NULL, input TEXT, output TEXT, PRIMARY KEY (trace_id, span_id)
    ) WITHOUT ROWID;
    CREATE INDEX spans_roots ON spans (start_ns) WHERE parent_id IS NULL;
    CREATE TABLE scores (
        id TEXT PRIMARY KEY, subject TEXT NOT NULL, name TEXT NOT NULL, value REAL, source TEXT NOT NULL,
        author TEXT NOT NULL, at REAL NOT NULL, comment TEXT NOT NULL, error TEXT, metadata TEXT NOT NULL,
        CHECK ((value IS NULL) = (error IS NOT NULL))
    );
    CREATE INDEX scores_subject ON scores (subject);
    CREATE INDEX scores_at ON scores (at);
    CREATE TABLE releases (
        id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, variant TEXT NOT NULL, previous TEXT,
        action TEXT NOT NULL, reason TEXT NOT NULL, experiment TEXT, at REAL NOT NULL
    );
    CREATE INDEX releases_task ON releases (task, id);
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
)

_INPUT_TOKENS = "gen_ai.usage.input_tokens"
_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
_COST = "windlass.cost.usd"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class SqliteStore:
    """Implements `windlass.core.store.Store` on the file `path`, which is created when absent."""

    def __init__(self, path: Path, *, busy_timeout: float = 10.0) -> None:
        self.path = path
        self._busy_ms = int(busy_timeout * 1000)
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._all_lock = threading.Lock()
        self._migrate()

    # connections and transactions -------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute(f"PRAGMA busy_timeout = {self._busy_ms}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
            with self._all_lock:
                self._all.append(connection)
        return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.DatabaseError) -> WorkspaceError:
        text = str(error)
        if "full" in text:
            return DiskFull(
                f"No space left on the disk that holds {self.path}.",
                "Free some space and run the same command again; what was acknowledged before is kept.",
            )
        if "locked" in text or "busy" in text:
            return WorkspaceBusy(
                f"Another process kept {self.path} locked for {self._busy_ms / 1000:g} s.",
                "Wait until it has finished, or stop it, and try again.",
            )
        if "malformed" in text or "not a database" in text or "corrupt" in text:
            return WorkspaceCorrupt(
                f"The workspace file {self.path} is damaged ({text}). Nothing was changed.",
                f"Restore it from a backup, or move it away and start anew; `sqlite3 {self.path} .recover` saves what"
                " can be read.",
            )
        return WorkspaceError(
            f"The workspace file {self.path} cannot be used: {text}.",
            "Check that the file and its folder are readable and writable.",
        )

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                    connection.execute("ROLLBACK")
                raise

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._connection().execute(sql, parameters).fetchall()

    def _migrate(self) -> None:
        with self._errors():
            connection = self._connection()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise WorkspaceError(
                    f"{self.path} was written by a newer windlass (schema {version}; this one knows"
                    f" {len(MIGRATIONS)}).",
                    "Upgrade windlass, or use another workspace.",
                )
            while version < len(MIGRATIONS):
                connection.executescript("BEGIN EXCLUSIVE")
                try:
                    version = connection.execute("PRAGMA user_version").fetchone()[0]
                    if version < len(MIGRATIONS):  # another process may have been faster
                        for statement in MIGRATIONS[version].split(";"):
                            connection.execute(statement)
                        version += 1
                        connection.execute(f"PRAGMA user_version = {version}")
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise

    def close(self) -> None:
        """Closes the connections of all threads; the store cannot be used afterwards."""
        with self._all_lock:
            for connection in self._all:
                connection.close()
            self._all.clear()

    # artifacts --------------------------------------------------------------------------------------------------

    def add_artifact(self, record: ArtifactRecord) -> ArtifactRecord:
        with self._write() as connection:
            known = connection.execute("SELECT 1 FROM artifacts WHERE digest = ?", (record.digest,)).fetchone()
            if not known:
                (newest,) = connection.execute(
                    "SELECT coalesce(max(version), 0) FROM artifacts WHERE name = ?", (record.name,)
                ).fetchone()
                connection.execute(
                    "INSERT INTO artifacts VALUES (?,?,?,?,?,?,?,?,?)",
                    (
                        record.digest,
                        record.kind,
                        record.name,
                        newest + 1,
                        record.created,
                        record.size,
                        _dump(dict(record.files)),
                        _dump(dict(record.card)),
                        record.run,
                    ),
                )
                connection.executemany(
                    "INSERT INTO parents VALUES (?,?,?,?)",
                    [(record.digest, i, role, parent) for i, (role, parent) in enumerate(record.parents)],
                )
        stored = self.artifact(record.digest)
        assert stored is not None
        return stored

    def artifact(self, ref: str) -> ArtifactRecord | None:
        name, _, version = ref.partition("@")
        if version and version != "latest":
            if not version.isdigit():
                raise InputError(
                    f"'{ref}' is not an artifact: the version must be a number.", "Write name@3, or just the name."
                )
            rows = self._artifact_rows("WHERE name = ? AND version = ?", (name, int(version)))
        else:
            rows = self._artifact_rows("WHERE name = ? ORDER BY version DESC LIMIT 1", (name,))
        if not rows and not version and len(ref) >= 8 and all(c in "0123456789abcdef" for c in ref):
            rows = self._artifact_rows("WHERE digest >= ? AND digest < ? LIMIT 2", (ref, ref + "g"))
            if len(rows) > 1:
                raise InputError(f"The digest prefix '{ref}' fits more than one artifact.", "Give more digits.")
        return rows[0] if rows else None

    def artifacts(
        self, kind: str | None = None, name: str | None = None, limit: int = 1000, *, run: str | None = None
    ) -> list[ArtifactRecord]:
        return self._artifact_rows(
            "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) AND (?4 IS NULL OR run = ?4)"
            " ORDER BY created DESC, rowid DESC LIMIT ?3",
            (kind, name, limit, run),
        )

    def children(self, digest: str) -> list[tuple[str, ArtifactRecord]]:
        rows = self._read("SELECT role, child FROM parents WHERE parent = ? ORDER BY child", (digest,))
        found = ((role, self.artifact(child)) for role, child in rows)
        return [(role, record) for role, record in found if record is not None]

    def _artifact_rows(self, where: str, parameters: Sequence[Any]) -> list[ArtifactRecord]:
        rows = self._read(
            f"SELECT digest, kind, name, version, created, size, files, card, run FROM artifacts {where}", parameters
        )
        parents: dict[str, list[tuple[str, str]]] = {}
        for child, role, parent in self._read(
            "SELECT child, role, parent FROM parents WHERE child IN (SELECT value FROM json_each(?))"
            " ORDER BY child, position",
            (_dump([row[0] for row in rows]),),
        ):
            parents.setdefault(child, []).append((role, parent))
        return [
            ArtifactRecord(
                digest=digest,
                kind=kind,
                name=name,
                version=version,
                created=created,
                size=size,
                files=json.loads(files),
                card=json.loads(card),
                parents=parents.get(digest, []),
                run=run,
            )
            for digest, kind, name, version, created, size, files, card, run in rows
        ]

    # runs -------------------------------------------------------------------------------------------------------

    def add_run(self, record: RunRecord) -> None:
        with self._write() as connection:
            connection.execute(
                "INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    record.id,
                    record.kind,
                    record.name,
                    record.status,
                    record.started,
                    record.ended,
                    _dump(dict(record.config)),
                    _dump(dict(record.environment)),
                    record.seed,
                    record.message,
                ),
            )

    def end_run(self, run: str, status: RunStatus, ended: float | None, message: str = "") -> None:
        with self._write() as connection:
            connection.execute(
                "UPDATE runs SET status = ?, ended = ?, message = ? WHERE id = ?", (status, ended, message, run)
            )

    def run(self, run: str) -> RunRecord | None:
        rows = self._run_rows("WHERE id = ?", (run,))
        return rows[0] if rows else None

    def runs(self, kind: str | None = None, limit: int = 1000) -> list[RunRecord]:
        return self._run_rows("WHERE (?1 IS NULL OR kind = ?1) ORDER BY started DESC LIMIT ?2", (kind, limit))

    def _run_rows(self, where: str, parameters: Sequence[Any]) -> list[RunRecord]:
        rows = self._read(
            f"SELECT id, kind, name, status, started, ended, config, environment, seed, message FROM runs {where}",
            parameters,
        )
        return [
            RunRecord(
                id, kind, name, status, started, ended, json.loads(config), json.loads(environment), seed, message
            )
            for id, kind, name, status, started, ended, config, environment, seed, message in rows
        ]

    def add_metrics(self, run: str, points: Sequence[MetricPoint]) -> None:
        with self._write() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?,?,?,?,?)",
                [(run, p.name, p.step, p.value, p.at) for p in points],
            )

    def metrics(self, run: str, name: str | None = None) -> list[MetricPoint]:
        rows = self._read(
            "SELECT step, name, value, at FROM metrics WHERE run = ?1 AND (?2 IS NULL OR name = ?2)"
            " ORDER BY name, step",
            (run, name),
        )
        return [MetricPoint(*row) for row in rows]

    # traces -----------------------------------------------------------------------------------------------------

    def add_spans(self, spans: Iterable[SpanRecord]) -> int:
        rows = [
            (
                s.trace_id,
                s.span_id,
                s.parent_id,
                s.name,
                s.operation,
                s.start_ns,
                s.end_ns,
                s.status,
                s.error,
                _dump(s.attributes),
                None if s.input is None else _dump(s.input),
                None if s.output is None else _dump(s.output),
            )
            for s in spans
        ]
        with self._write() as connection:
            connection.executemany("INSERT OR REPLACE INTO spans VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)
        return len(rows)

    def trace(self, trace_id: str) -> list[SpanRecord]:
        rows = self._read(
            "SELECT * FROM spans WHERE trace_id >= ? AND trace_id < ? ORDER BY start_ns, parent_id IS NOT NULL",
            (trace_id, trace_id + "g"),
        )
        spans = [_span(row) for row in rows]
        if len({span.trace_id for span in spans}) > 1:
            raise InputError(f"The id prefix '{trace_id}' fits more than one trace.", "Give more digits.")
        return spans

    def traces(
        self,
        *,
        name: str | None = None,
        since: float | None = None,
        errors: bool | None = None,
        score: tuple[str, float, float] | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[TraceSummary]:
        roots = self._read(
            "SELECT * FROM spans AS root WHERE parent_id IS NULL AND (?1 IS NULL OR name = ?1)"
            " AND (?2 IS NULL OR start_ns >= ?2)"
            " AND (?3 IS NULL OR ?3 = EXISTS"
            " (SELECT 1 FROM spans WHERE trace_id = root.trace_id AND status = 'error'))"
            " AND (?4 IS NULL OR EXISTS"
            " (SELECT 1 FROM scores WHERE subject = root.trace_id AND name = ?4 AND value BETWEEN ?5 AND ?6))"
            " ORDER BY start_ns DESC LIMIT ?7 OFFSET ?8",
            (name, None if since is None else int(since * 1e9), errors, *(score or (None, None, None)), limit, offset),
        )
        wanted = _dump([row[0] for row in roots])
        spans: dict[str, list[SpanRecord]] = {}
        for row in self._read(
            "SELECT * FROM spans WHERE trace_id IN (SELECT value FROM json_each(?)) ORDER BY trace_id, start_ns",
            (wanted,),
        ):
            spans.setdefault(row[0], []).append(_span(row))
        scores: dict[str, dict[str, float]] = {}
        for subject, score_name, value in self._read(
            "SELECT subject, name, value FROM scores WHERE value IS NOT NULL"
            " AND subject IN (SELECT value FROM json_each(?)) ORDER BY at, rowid",
            (wanted,),
        ):
            scores.setdefault(subject, {})[score_name] = value
        return [_summary(_span(row), spans[row[0]], scores.get(row[0], {})) for row in roots]

    # scores -----------------------------------------------------------------------------------------------------

    def add_score(self, score: ScoreRecord) -> None:
        with self._write() as connection:
            connection.execute(
                "INSERT INTO scores VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    score.id,
                    score.subject,
                    score.name,
                    score.value,
                    score.source,
                    score.author,
                    score.at,
                    score.comment,
                    score.error,
                    _dump(dict(score.metadata)),
                ),
            )

    def scores(self, subject: str | None = None, name: str | None = None, limit: int = 100_000) -> list[ScoreRecord]:
        rows = self._read(
            "SELECT id, subject, name, value, source, author, at, comment, error, metadata FROM scores"
            " WHERE (?1 IS NULL OR subject = ?1) AND (?2 IS NULL OR name = ?2) ORDER BY at, rowid LIMIT ?3",
            (subject, name, limit),
        )
        return [
            ScoreRecord(id, subject, name, value, source, author, at, comment, error, json.loads(metadata))
            for id, subject, name, value, source, author, at, comment, error, metadata in rows
        ]

    # releases ---------------------------------------------------------------------------------------------------

    def add_release(self, release: ReleaseRecord, *, expected: str | None) -> ReleaseRecord:
        with self._write() as connection:
            live = connection.execute(
                "SELECT variant FROM releases WHERE task = ? ORDER BY id DESC LIMIT 1", (release.task,)
            ).fetchone()
            if (live[0] if live else None) != expected:
                raise WorkspaceBusy(
                    f"Another process changed what '{release.task}' serves in the meantime.",
                    "Look at `windlass releases` and decide again.",
                )
            cursor = connection.execute(
                "INSERT INTO releases (task, variant, previous, action, reason, experiment, at) VALUES (?,?,?,?,?,?,?)",
                (
                    release.task,
                    release.variant,
                    expected,
                    release.action,
                    release.reason,
                    release.experiment,
                    release.at,
                ),
            )
            identifier = cursor.lastrowid
        return next(r for r in self.releases(release.task) if r.id == identifier)

    def releases(self, task: str | None = None) -> list[ReleaseRecord]:
        rows = self._read(
            "SELECT id, task, variant, previous, action, reason, experiment, at FROM releases"
            " WHERE (?1 IS NULL OR task = ?1) ORDER BY id DESC",
            (task,),
        )
        return [ReleaseRecord(*row) for row in rows]

    # small facts ------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        rows = self._read("SELECT value FROM facts WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def set(self, key: str, value: Any) -> None:
        with self._write() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (key, _dump(value)))


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


def _has_priced_child(span: SpanRecord, spans: Sequence[SpanRecord]) -> bool:
    return any(s.parent_id == span.span_id and _INPUT_TOKENS in s.attributes for s in spans)


def _summary(root: SpanRecord, spans: Sequence[SpanRecord], scores: Mapping[str, float]) -> TraceSummary:
    # Only model calls cost tokens; a parent that repeats its children's sum must not count twice.
    calls = [s for s in spans if _INPUT_TOKENS in s.attributes and not _has_priced_child(s, spans)]

    def total(key: str) -> int | None:
        known = [s.attributes[key] for s in calls if s.attributes.get(key) is not None]
        return sum(known) if known else None

    costs = [s.attributes.get(_COST) for s in calls]
    return TraceSummary(
        root=root,
        spans=len(spans),
        errors=sum(s.status == "error" for s in spans),
        input_tokens=total(_INPUT_TOKENS),
        output_tokens=total(_OUTPUT_TOKENS),
        cost_usd=None if not costs or None in costs else sum(c for c in costs if c is not None),
        scores=scores,
    )

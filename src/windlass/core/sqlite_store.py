"""The embedded store: one SQLite file that several processes may share. See `core.sqlite` for what it promises."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, NotFound, WorkspaceBusy
from windlass.core.jsontext import dump
from windlass.core.records import ArtifactRecord, MetricPoint, ReleaseRecord, RunRecord, RunStatus
from windlass.core.redact import Redactor
from windlass.core.schema import MIGRATIONS
from windlass.core.sqlite import Database
from windlass.core.sqlite_traces import SqliteTraces


class SqliteStore(SqliteTraces):
    """Implements `windlass.core.store.Store` on the file `path`, which is created when absent."""

    def __init__(self, path: Path, *, busy_timeout: float = 10.0, redact: Redactor | None = None) -> None:
        super().__init__(Database(path, MIGRATIONS, busy_timeout=busy_timeout), redact or Redactor())

    def close(self) -> None:
        """Closes the file. A later call opens it again."""
        self.database.close()

    # artifacts --------------------------------------------------------------------------------------------------

    def add_artifact(self, record: ArtifactRecord) -> ArtifactRecord:
        with self.database.write() as connection:
            inserted = connection.execute(
                "INSERT OR IGNORE INTO artifacts VALUES (?,?,?,?,?,?,?)",
                (
                    record.digest,
                    record.kind,
                    record.created,
                    record.size,
                    json.dumps(dict(record.files)),
                    dump(dict(record.card)),
                    record.run,
                ),
            ).rowcount
            if inserted:
                connection.executemany(
                    "INSERT INTO parents VALUES (?,?,?,?)",
                    [(record.digest, i, role, parent) for i, (role, parent) in enumerate(record.parents)],
                )
            connection.execute(
                "INSERT OR IGNORE INTO names SELECT ?1, coalesce(max(version), 0) + 1, ?2 FROM names WHERE name = ?1",
                (record.name, record.digest),
            )
        (stored,) = self._artifact_rows("WHERE digest = ? AND name = ?", (record.digest, record.name))
        return stored

    def artifact(self, ref: str) -> ArtifactRecord | None:
        name, at, version = ref.partition("@")
        if at and version != "latest":
            if not (version.isascii() and version.isdigit()):
                raise InputError(
                    f"'{ref}' is not an artifact: the version must be a number.", "Write name@3, or just the name."
                )
            rows = self._artifact_rows("WHERE name = ? AND version = ?", (name, min(int(version), 2**62)))
        else:
            rows = self._artifact_rows("WHERE name = ? ORDER BY version DESC LIMIT 1", (name,))
        if not rows and not at and len(ref) >= 8 and set(ref) <= set("0123456789abcdef"):
            rows = self._artifact_rows("WHERE digest >= ? AND digest < ? ORDER BY names.rowid", (ref, ref + "g"))
            if len({row.digest for row in rows}) > 1:
                raise InputError(f"The digest prefix '{ref}' fits more than one artifact.", "Give more digits.")
        return rows[0] if rows else None

    def artifacts(
        self, kind: str | None = None, name: str | None = None, limit: int = 1000, *, run: str | None = None
    ) -> list[ArtifactRecord]:
        return self._artifact_rows(
            "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) AND (?4 IS NULL OR run = ?4)"
            " ORDER BY created DESC, names.rowid DESC LIMIT ?3",
            (kind, name, limit, run),
        )

    def children(self, digest: str) -> list[tuple[str, ArtifactRecord]]:
        rows = self.database.read("SELECT child, role FROM parents WHERE parent = ? ORDER BY child, role", (digest,))
        children = self._artifact_rows(
            "WHERE digest IN (SELECT value FROM json_each(?))"
            " AND names.rowid = (SELECT min(rowid) FROM names AS n WHERE n.digest = names.digest)"
            " ORDER BY created, names.rowid",
            (json.dumps([child for child, _ in rows]),),
        )
        return [(role, record) for record in children for child, role in rows if child == record.digest]

    def _artifact_rows(self, where: str, parameters: Sequence[Any]) -> list[ArtifactRecord]:
        rows = self.database.read(
            "SELECT digest, kind, name, version, created, size, files, card, run"
            f" FROM names JOIN artifacts USING (digest) {where}",
            parameters,
        )
        parents: dict[str, list[tuple[str, str]]] = {}
        for child, role, parent in self.database.read(
            "SELECT child, role, parent FROM parents WHERE child IN (SELECT value FROM json_each(?))"
            " ORDER BY child, position",
            (json.dumps([row[0] for row in rows]),),
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
        with self.database.write() as connection:
            inserted = connection.execute(
                "INSERT OR IGNORE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    record.id,
                    record.kind,
                    record.name,
                    record.status,
                    record.started,
                    record.ended,
                    self.redact(dump(dict(record.config))),
                    self.redact(dump(dict(record.environment))),
                    record.seed,
                    self.redact(record.message),
                ),
            ).rowcount
        if not inserted:
            raise InputError(f"There is a run '{record.id}' already.", "Resume it, or start one with another id.")

    def end_run(
        self,
        run: str,
        status: RunStatus,
        ended: float | None,
        message: str = "",
        *,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        with self.database.write() as connection:
            changed = connection.execute(
                "UPDATE runs SET status = ?, ended = ?, message = ?, environment = coalesce(?, environment)"
                " WHERE id = ?",
                (
                    status,
                    ended,
                    self.redact(message),
                    None if environment is None else self.redact(dump(dict(environment))),
                    run,
                ),
            ).rowcount
        if not changed:
            raise _no_run(run)

    def run(self, run: str) -> RunRecord | None:
        rows = self._run_rows("WHERE id = ?", (run,))
        return rows[0] if rows else None

    def runs(self, kind: str | None = None, limit: int = 1000) -> list[RunRecord]:
        return self._run_rows(
            "WHERE (?1 IS NULL OR kind = ?1) ORDER BY started DESC, rowid DESC LIMIT ?2", (kind, limit)
        )

    def _run_rows(self, where: str, parameters: Sequence[Any]) -> list[RunRecord]:
        rows = self.database.read(
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
        with self.database.write() as connection:
            if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is None:
                raise _no_run(run)
            connection.executemany(  # SQLite turns NaN into NULL by itself
                "INSERT OR REPLACE INTO metrics VALUES (?,?,?,?,?)",
                [(run, p.name, p.step, p.value, p.at) for p in points],
            )

    def metrics(self, run: str, name: str | None = None) -> list[MetricPoint]:
        rows = self.database.read(
            "SELECT step, name, value, at FROM metrics WHERE run = ?1 AND (?2 IS NULL OR name = ?2)"
            " ORDER BY name, step",
            (run, name),
        )
        return [MetricPoint(step, name, math.nan if value is None else value, at) for step, name, value, at in rows]

    # releases ---------------------------------------------------------------------------------------------------

    def add_release(self, release: ReleaseRecord, *, expected: str | None) -> ReleaseRecord:
        with self.database.write() as connection:
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
        rows = self.database.read(
            "SELECT id, task, variant, previous, action, reason, experiment, at FROM releases"
            " WHERE (?1 IS NULL OR task = ?1) ORDER BY id DESC",
            (task,),
        )
        return [ReleaseRecord(*row) for row in rows]

    # what happened ----------------------------------------------------------------------------------------------

    def append(self, stream: str, value: Any, *, after: int, at: float) -> int:
        text = _json(f"An entry of '{stream}'", value)
        with self.database.write() as connection:
            (last,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM log WHERE stream = ?", (stream,)).fetchone()
            if last != after:
                raise WorkspaceBusy(
                    f"Another process wrote to '{stream}' in the meantime.", "Look at what it did and decide again."
                )
            connection.execute("INSERT INTO log VALUES (?,?,?,?)", (stream, after + 1, at, text))
        return after + 1

    def log(self, stream: str, after: int = 0) -> list[tuple[int, float, Any]]:
        rows = self.database.read(
            "SELECT id, at, value FROM log WHERE stream = ? AND id > ? ORDER BY id", (stream, after)
        )
        return [(identifier, at, json.loads(value)) for identifier, at, value in rows]

    # small facts ------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        rows = self.database.read("SELECT value FROM facts WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def set(self, key: str, value: Any) -> None:
        text = _json(f"The value of '{key}'", value)
        with self.database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (key, text))


def _json(what: str, value: Any) -> str:
    """Strictly: what comes back must be what went in."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is not JSON: {error}.", "Store plain values only.") from error


def _no_run(run: str) -> NotFound:
    return NotFound(f"There is no run '{run}' in this workspace.", "`windlass runs` lists them.")

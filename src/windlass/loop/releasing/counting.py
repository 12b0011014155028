"""What the calls of a trial add up to, brought up to date by what is new since the last look.

Kept in a file of its own beside the workspace's, together with the mark up to which the store was read: both change in
one transaction, so that a process that is killed leaves the count as it was before or after some calls, and the next
look goes on there. Nothing is lost with the file: a trial without one is counted anew, to the same figures.

A call that comes late, a score that is given after days, and one that replaces another, all count as if they had been
there from the start: a user's calls are added up again when one of them changes, and what the user stood for is taken
out of the sums of the arm, which are exact, before it is put in anew.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from windlass.core.records import Mark, TraceSummary
from windlass.core.sqlite import Database
from windlass.core.workspace import Workspace
from windlass.evaluate.moments import Moments
from windlass.loop.releasing.measuring import ARM, PROPENSITY, TRIAL, UNIT, Seen, values_of
from windlass.loop.releasing.trial import Trial

_MIGRATIONS = (
    (
        """CREATE TABLE calls (
            trace TEXT PRIMARY KEY, unit TEXT NOT NULL, arm TEXT NOT NULL, start INTEGER NOT NULL,
            propensity REAL NOT NULL, said TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX calls_unit ON calls (unit, start, trace)",
        # Where a unit was first, and the mean of each metric over its calls there.
        """CREATE TABLE units (
            unit TEXT PRIMARY KEY, arm TEXT NOT NULL, propensity REAL NOT NULL, means TEXT NOT NULL
        ) WITHOUT ROWID""",
        # Sums by metric, and how many units came by the share that the arm had.
        """CREATE TABLE arms (
            arm TEXT PRIMARY KEY, calls INTEGER NOT NULL, units INTEGER NOT NULL, sums TEXT NOT NULL,
            arrivals TEXT NOT NULL
        )""",
        "CREATE TABLE mark (spans INTEGER NOT NULL, scores INTEGER NOT NULL)",
    ),
)


def seen(ws: Workspace, trial: Trial) -> Seen:
    """What there is to see of a trial now."""
    with Count(ws, trial) as count:
        count.update()
        return count.seen()


class Count:
    """The count of one trial; several processes may keep it at the same time. Use as a context manager."""

    def __init__(self, ws: Workspace, trial: Trial) -> None:
        self._ws, self._trial = ws, trial
        self._metrics = frozenset([*trial.policy.metrics, *([trial.reward] if trial.reward else [])])
        folder = ws.root / "trials"
        folder.mkdir(exist_ok=True)
        self._db = Database(folder / f"{trial.id}.db", _MIGRATIONS, synced=False)

    def __enter__(self) -> Count:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def update(self) -> int:
        """Counts what is new, and says how many calls that touched."""
        self._ws.recorder.flush()
        touched = 0
        while (more := self._some()) is not None:
            touched += more
        return touched

    def seen(self) -> Seen:
        arms = _arms(self._db.read("SELECT arm, calls, units, sums, arrivals FROM arms"))
        return Seen(
            {arm: arms[arm].units for arm in self._trial.arms},
            {arm: arms[arm].calls for arm in self._trial.arms},
            {arm: arms[arm].sums for arm in self._trial.arms},
            {arm: dict(arms[arm].arrivals) for arm in self._trial.arms},
        )

    def column(self, arm: str, metric: str) -> dict[str, float]:
        """Unit -> value, of those of an arm that have one. Reads all of them."""
        rows = self._db.read("SELECT unit, means FROM units WHERE arm = ?", (arm,))
        found = {unit: json.loads(means) for unit, means in rows}
        return {unit: means[metric] for unit, means in found.items() if metric in means}

    def _some(self) -> int | None:
        """Counts the next calls; None: there are none."""
        with self._db.write() as db:
            mark = self._mark(db)
            ids, end = self._ws.store.touched(mark)
            traces = self._ws.store.traces(ids=ids, name=self._trial.task, limit=1 << 40)
            touched = 0
            units, new = set[str](), list[str]()
            for call in filter(None, map(self._call, traces)):
                before = db.execute("SELECT * FROM calls WHERE trace = ?", call[:1]).fetchone()
                if before != call:
                    db.execute("INSERT OR REPLACE INTO calls VALUES (?,?,?,?,?,?)", call)
                    units.add(call[1])
                    touched += 1
                    if before is None:
                        new.append(call[2])
            if units:
                _add_up(db, units, new)
            if end != mark:
                db.execute("DELETE FROM mark")
                db.execute("INSERT INTO mark VALUES (?,?)", (end.spans, end.scores))
        return touched if touched or end != mark else None

    def _mark(self, db: sqlite3.Connection) -> Mark:
        """Where the next call may be. Begins anew where the workspace is an older one than was counted: a copy."""
        row = db.execute("SELECT spans, scores FROM mark").fetchone()
        if row is None:
            return self._trial.after
        mark, end = Mark(*row), self._ws.store.mark()
        if mark.spans <= end.spans and mark.scores <= end.scores:
            return mark
        for table in ("calls", "units", "arms", "mark"):
            db.execute(f"DELETE FROM {table}")
        return self._trial.after

    def _call(self, trace: TraceSummary) -> _Call | None:
        """None for a call that is none of the trial's."""
        said = trace.root.attributes
        arm, unit = said.get(ARM), said.get(UNIT)
        if said.get(TRIAL) != self._trial.id or arm not in self._trial.arms or unit is None:
            return None
        values = {name: value for name, value in values_of(trace).items() if name in self._metrics}
        propensity = float(said.get(PROPENSITY, 1.0))
        text = json.dumps(values, sort_keys=True)
        return trace.root.trace_id, str(unit), str(arm), trace.root.start_ns, propensity, text


_Call = tuple[str, str, str, int, float, str]
"""A row of `calls`."""


def _add_up(db: sqlite3.Connection, units: Iterable[str], new: Iterable[str]) -> None:
    """Puts these units into the sums of their arms as their calls are now. `new`: the arm of each new call."""
    arms = _arms(db.execute("SELECT arm, calls, units, sums, arrivals FROM arms"))
    for arm in new:
        arms[arm].calls += 1
    for unit in units:
        stood = db.execute("SELECT arm, propensity, means FROM units WHERE unit = ?", (unit,)).fetchone()
        if stood is not None:
            arms[stood[0]].take(json.loads(stood[2]), stood[1])
        arm, propensity, means = _stands(db, unit)
        arms[arm].put(means, propensity)
        db.execute("INSERT OR REPLACE INTO units VALUES (?,?,?,?)", (unit, arm, propensity, json.dumps(means)))
    for arm, one in arms.items():
        sums = json.dumps({metric: found.to_json() for metric, found in one.sums.items()})
        row = (arm, one.calls, one.units, sums, json.dumps(+one.arrivals))
        db.execute("INSERT OR REPLACE INTO arms VALUES (?,?,?,?,?)", row)


def _stands(db: sqlite3.Connection, unit: str) -> tuple[str, float, dict[str, float]]:
    """The arm in which a unit was first, its propensity then, and its means there. What it sees after it was moved to
    another arm is coloured by what it saw before, and does not count."""
    rows = db.execute(
        "SELECT arm, propensity, said FROM calls WHERE unit = ? ORDER BY start, trace", (unit,)
    ).fetchall()
    arm, propensity, _ = rows[0]
    values: dict[str, list[float]] = {}
    for other, _, said in rows:
        if other == arm:
            for metric, value in json.loads(said).items():
                values.setdefault(metric, []).append(value)
    return arm, propensity, {metric: math.fsum(some) / len(some) for metric, some in values.items()}


@dataclass(slots=True)
class _Arm:
    """A row of `arms`."""

    calls: int = 0
    units: int = 0
    sums: dict[str, Moments] = field(default_factory=dict)
    arrivals: Counter[float] = field(default_factory=Counter)

    def put(self, means: Mapping[str, float], propensity: float) -> None:
        """A unit comes in."""
        self.units += 1
        self.arrivals[propensity] += 1
        for metric, value in means.items():
            self.sums[metric] = self.sums.get(metric, Moments()) + Moments.of(value, propensity)

    def take(self, means: Mapping[str, float], propensity: float) -> None:
        """What was put in goes out again."""
        self.units -= 1
        self.arrivals[propensity] -= 1
        for metric, value in means.items():
            self.sums[metric] -= Moments.of(value, propensity)


def _arms(rows: Iterable[tuple[str, int, int, str, str]]) -> defaultdict[str, _Arm]:
    found = defaultdict(_Arm)
    for arm, calls, units, sums, arrivals in rows:
        said = {metric: Moments.from_json(one) for metric, one in json.loads(sums).items()}
        found[arm] = _Arm(calls, units, said, Counter({float(share): n for share, n in json.loads(arrivals).items()}))
    return found

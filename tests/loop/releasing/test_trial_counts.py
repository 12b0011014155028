"""A trial's count is brought up to date by what is new, and is to the last bit what counting everything would give."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from traffic import BEGAN, TASK, serve, trial

from windlass.core.records import ScoreRecord, SpanRecord, TraceSummary
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Rule
from windlass.evaluate.policy import Policy
from windlass.loop.releasing.counting import Count, seen
from windlass.loop.releasing.measuring import UNIT, Seen, values_of
from windlass.loop.releasing.routing import assigned
from windlass.loop.releasing.trial import State, Trial, change_shares, must_run
from windlass.loop.releasing.watching import watch, with_shares

POLICY = Policy("feedback", guards={"failed": Rule("non-inferiority", 0.05, "lower")})


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


def anew(ws: Workspace, state: State) -> Seen:
    """From the beginning, as if the file had been lost."""
    for path in (ws.root / "trials").glob("*.db*"):
        path.unlink()
    return seen(ws, state.trial)


def by_hand(ws: Workspace, trial: Trial) -> dict[str, dict[str, dict[str, float]]]:
    """Arm -> unit -> metric -> mean, from all traces at once: the oracle."""
    first: dict[str, str] = {}
    sums: dict[str, dict[str, dict[str, list[float]]]] = {arm: {} for arm in trial.arms}
    traces = sorted(ws.store.traces(name=TASK, limit=1 << 30), key=lambda one: (one.root.start_ns, one.root.trace_id))
    for one in traces:
        said = one.root.attributes
        arm, unit = said.get("windlass.trial.arm"), said.get(UNIT)
        if said.get("windlass.trial.id") == trial.id and first.setdefault(unit, arm) == arm:
            for metric, value in values_of(one).items():
                if metric in ("feedback", "failed"):
                    sums[arm].setdefault(unit, {}).setdefault(metric, []).append(value)
    return {
        arm: {unit: {name: sum(some) / len(some) for name, some in said.items()} for unit, said in units.items()}
        for arm, units in sums.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_late_calls_late_scores_and_changed_minds_count_as_if_there_from_the_start(ws: Workspace, seed: int) -> None:
    state, chance = trial(ws, POLICY, share=0.2), random.Random(seed)
    (new,) = state.trial.candidates
    traces: list[str] = []
    for step in range(12):
        if step == 6:
            state = change_shares(ws, state, with_shares(state, {new: 0.6}), "more", BEGAN + 100)
        spans = []
        for _ in range(30):
            user = f"user-{chance.randrange(60)}"
            began, trace = int((BEGAN + chance.random() * 1000) * 1e9), f"{chance.getrandbits(128):032x}"
            said = {UNIT: user, **assigned(ws, TASK, user).marks}
            status = "error" if chance.random() < 0.1 else "ok"
            spans.append(SpanRecord(trace, "1" * 16, None, TASK, "chat", began, began + 10, status, None, said))  # type: ignore[arg-type]
            traces.append(trace)
        ws.store.add_spans(spans)
        for trace in chance.sample(traces, 20):  # some of them once more, with another value
            value = float(chance.random() < 0.5)
            ws.store.add_score(ScoreRecord(f"{chance.getrandbits(64)}", trace, "feedback", value, "user", "u", step))
        if chance.random() < 0.7:
            seen(ws, state.trial)
    found, whole, truth = seen(ws, state.trial), anew(ws, state), by_hand(ws, state.trial)
    assert found == whole, "to the last bit"
    assert found.units == {arm: len(units) for arm, units in truth.items()}
    with Count(ws, state.trial) as count:
        for arm in state.trial.arms:
            for metric in ("feedback", "failed"):
                said = {unit: row[metric] for unit, row in truth[arm].items() if metric in row}
                assert count.column(arm, metric) == pytest.approx(said)
                assert found.tallies(arm, (metric,))[metric].mean == pytest.approx(sum(said.values()) / len(said))


def test_a_look_reads_what_is_new(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read_by_a_look(ws, monkeypatch, calls=2_000, new=37)


@pytest.mark.slow
def test_a_look_at_a_hundred_thousand_calls_reads_what_is_new(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, one = read_by_a_look(ws, monkeypatch, calls=100_000, new=37)
    print(f"{whole:.1f} s for all calls, {1000 * one:.0f} ms for 37 new ones")


def read_by_a_look(ws: Workspace, monkeypatch: pytest.MonkeyPatch, calls: int, new: int) -> tuple[float, float]:
    """Seconds of the first look, and of the one after `new` further calls, of which one is by a user who was there."""
    trial(ws, POLICY)
    chance = random.Random(1)

    def outcome(arm: str, chance: random.Random) -> tuple[bool, float, float | None]:
        return False, 10.0, float(chance.random() < 0.5) if chance.random() < 0.05 else None

    for start in range(0, calls, 10_000):
        serve(ws, [f"user-{n}" for n in range(start, min(calls, start + 10_000))], outcome, chance)
    began = time.perf_counter()
    watch(ws, TASK)
    whole = time.perf_counter() - began
    serve(ws, [f"user-{n}" for n in range(calls - 1, calls - 1 + new)], outcome, chance, at=BEGAN + 20)
    asked: list[Sequence[str] | None] = []
    traces = ws.store.traces

    def watched(**filters: Any) -> list[TraceSummary]:
        asked.append(filters.get("ids"))
        return traces(**filters)

    monkeypatch.setattr(ws.store, "traces", watched)
    began = time.perf_counter()
    looked = watch(ws, TASK).looks[-1]
    took = time.perf_counter() - began
    assert sum(looked.units.values()) == calls + new - 1
    assert None not in asked and new <= sum(len(ids or ()) for ids in asked) <= new + 60, "and no other call"
    asked.clear()
    watch(ws, TASK)
    assert sum(len(ids or ()) for ids in asked) <= 1, "nothing is new"
    return whole, took


def test_calls_of_other_tasks_and_trials_do_not_count(ws: Workspace) -> None:
    state, chance = trial(ws, POLICY), random.Random(1)
    said = {UNIT: "ana", **assigned(ws, TASK, "ana").marks}
    for name, marks in (("another", said), (TASK, {**said, "windlass.trial.id": "gone"}), (TASK, {})):
        trace = f"{chance.getrandbits(128):032x}"
        ws.store.add_spans([SpanRecord(trace, "1" * 16, None, name, "chat", 1, 2, "ok", None, marks)])
    assert set(seen(ws, state.trial).calls.values()) == {0}


def test_a_workspace_that_was_put_back_is_counted_anew(ws: Workspace) -> None:
    """A copy from yesterday is older than what was counted of it."""
    state, chance = trial(ws, POLICY), random.Random(1)
    serve(ws, ["ana", "bo"], lambda arm, c: (False, 1, 1.0), chance)
    with ws.store.database.write() as db:
        db.execute("CREATE TABLE kept AS SELECT * FROM spans")
    serve(ws, ["cy", "di", "ed"], lambda arm, c: (False, 1, 1.0), chance)
    assert sum(seen(ws, state.trial).units.values()) == 5
    with ws.store.database.write() as db:
        db.execute("DELETE FROM spans")
        db.execute("INSERT INTO spans SELECT * FROM kept")
    assert sum(seen(ws, state.trial).units.values()) == 2


@pytest.mark.slow
def test_killed_at_any_moment_the_count_goes_on_exactly(ws: Workspace, tmp_path: Path) -> None:
    state = trial(ws, POLICY)
    code = (
        "import random, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from traffic import TASK, serve\nfrom windlass.core.workspace import Workspace\n"
        "from windlass.loop.releasing.watching import watch\n"
        "ws, chance = Workspace(Path(sys.argv[1])), random.Random()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    users = [f'user-{chance.randrange(200)}' for _ in range(20)]\n"
        "    serve(ws, users, lambda arm, c: (c.random() < 0.02, 10, float(c.random() < 0.5)), chance)\n"
        "    watch(ws, TASK)\n"
    )
    chance = random.Random(0)
    for _ in range(6):
        arguments = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.3 + chance.random())
        child.kill()
        child.wait()
        child.stdout.close()
        state = must_run(ws, TASK)
    found = seen(ws, state.trial)
    assert sum(found.calls.values()) > 100
    assert found == anew(ws, state)

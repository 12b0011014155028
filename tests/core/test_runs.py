"""Runs: how they end, how they are taken up again, and how a killed one is told from a living one."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.core.errors import InputError, NotFound, WorkspaceBusy
from windlass.core.runs import Runs
from windlass.core.sqlite_store import SqliteStore


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    store = SqliteStore(tmp_path / "windlass.db")
    yield Runs(tmp_path / "runs", store)
    store.close()


def child(home: Path, code: str) -> subprocess.Popen[str]:
    """Another process with `runs`; it waits for its standard input at the end."""
    preamble = """
import sys
from pathlib import Path
from windlass.core.runs import Runs
from windlass.core.sqlite_store import SqliteStore
home = Path(sys.argv[1])
runs = Runs(home / "runs", SqliteStore(home / "windlass.db"))
"""
    return subprocess.Popen(
        [sys.executable, "-c", preamble + code + "\nsys.stdin.read()", str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_run_records_its_settings_metrics_and_end(runs: Runs) -> None:
    with runs.start("train", "model", config={"depth": 4}, seed=7) as run:
        run.log(1, loss=2.0, lr=0.1)
        run.log(2, loss=math.nan)
        (run.folder / "checkpoint").write_text("x")
    record = runs.get(run.id)
    assert record is not None
    assert (record.status, record.config, record.seed) == ("done", {"depth": 4}, 7)
    assert record.ended is not None
    assert record.ended >= record.started
    assert {"windlass", "revision", "python", "platform", "host", "pid"} <= set(record.environment)
    assert [(p.name, p.step) for p in runs.store.metrics(run.id)] == [("loss", 1), ("loss", 2), ("lr", 1)]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("no luck"), "failed", "ValueError: no luck"),
        (KeyboardInterrupt(), "interrupted", "stopped by the user"),
    ],
)
def test_a_run_that_breaks_off_says_why_and_keeps_its_metrics(
    runs: Runs, error: BaseException, status: str, message: str
) -> None:
    with pytest.raises(type(error)), runs.start("train", "model") as run:
        run.log(1, loss=2.0)
        raise error
    record = runs.get(run.id)
    assert record is not None
    assert (record.status, record.message) == (status, message)
    assert len(runs.store.metrics(run.id)) == 1


def test_a_resumed_run_is_the_same_run_and_replaces_repeated_steps(runs: Runs) -> None:
    with pytest.raises(KeyboardInterrupt), runs.start("train", "model", config={"a": 1}) as run:
        run.log(1, loss=9.0)
        run.log(2, loss=8.0)
        (run.folder / "checkpoint").write_text("step 1")
        raise KeyboardInterrupt
    with runs.resume(run.id) as again:
        assert (again.id, again.folder, again.record.started) == (run.id, run.folder, run.record.started)
        assert again.record.environment["resumed"] == 1
        assert (again.folder / "checkpoint").read_text() == "step 1"
        again.log(2, loss=7.0)
        again.log(3, loss=6.0)
    assert [(p.step, p.value) for p in runs.store.metrics(run.id)] == [(1, 9.0), (2, 7.0), (3, 6.0)]
    with pytest.raises(InputError, match="is done"):
        runs.resume(run.id)
    with pytest.raises(NotFound, match="no run 'x'"):
        runs.resume("x")


def test_resume_or_start_takes_up_only_what_is_the_same(runs: Runs) -> None:
    def stopped(name: str = "model", **config: object) -> str:
        with pytest.raises(KeyboardInterrupt), runs.start("train", name, config=config, seed=1) as run:
            raise KeyboardInterrupt
        return run.id

    first = stopped(depth=(4, 5))
    others = {stopped(depth=(4, 6)), stopped("other", depth=(4, 5))}
    with runs.resume_or_start("train", "model", config={"depth": (4, 5)}, seed=1) as run:
        assert run.id == first
    with runs.resume_or_start("train", "model", config={"depth": (4, 5)}, seed=1) as run:
        assert run.id not in {first, *others}, "a run that is done is not done again"
    with runs.resume_or_start("train", "model", config={"depth": (4, 6)}, seed=2) as run:
        assert run.id not in {first, *others}


def test_a_living_run_is_running_and_cannot_be_taken_up(runs: Runs, tmp_path: Path) -> None:
    with child(tmp_path, "run = runs.start('train', 'model')\nprint(run.id, flush=True)\n") as process:
        identifier = first_line(process)
        assert [r.status for r in runs.list()] == ["running"]
        with pytest.raises(WorkspaceBusy, match=rf"pid {process.pid}\b.*run {identifier}"):
            runs.resume(identifier)
        process.kill()
    assert [r.status for r in runs.list()] == ["interrupted"]


def test_a_killed_run_is_interrupted_and_can_be_taken_up(runs: Runs, tmp_path: Path) -> None:
    code = "run = runs.start('train', 'model')\nrun.log(1, loss=2.0)\nrun.flush()\nprint(run.id, flush=True)\n"
    with child(tmp_path, code) as process:
        identifier = first_line(process)
        process.kill()
    raw = runs.store.run(identifier)
    assert raw is not None
    assert raw.status == "running", "nobody could say so at the time"
    record = runs.get(identifier)
    assert record is not None
    assert (record.status, record.ended) == ("interrupted", None)
    assert str(process.pid) in record.message
    with runs.resume(identifier) as run:
        assert run.record.environment["pid"] != process.pid
    assert len(runs.store.metrics(identifier)) == 1


def test_a_run_in_this_process_is_running(runs: Runs) -> None:
    with runs.start("train", "model") as run:
        assert [r.status for r in runs.list("train")] == ["running"]
        with pytest.raises(WorkspaceBusy):
            runs.resume(run.id)
    assert [r.status for r in runs.list()] == ["done"]
    assert runs.get("x") is None


def test_a_run_without_a_folder_on_this_machine_is_not_running(runs: Runs) -> None:
    run = runs.start("train", "model")
    run._lock.close()
    (run.folder / "lock").unlink()
    run.folder.rmdir()
    assert [r.status for r in runs.list()] == ["interrupted"]


def test_metrics_reach_the_store_about_once_a_second(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    written = []
    monkeypatch.setattr(runs.store, "add_metrics", lambda run, points: written.append(len(points)))
    run = runs.start("train", "model")
    for step in range(100):
        now += 0.1
        run.log(step, loss=1.0)
    assert 8 <= len(written) <= 10
    run.finish("done")
    assert sum(written) == 100

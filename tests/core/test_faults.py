"""Real processes are killed, disks filled, files damaged: nothing acknowledged is lost, and every message is clear."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from windlass.core.errors import DiskFull, WindlassError, WorkspaceBusy, WorkspaceCorrupt, WorkspaceError
from windlass.core.schema import MIGRATIONS
from windlass.core.sqlite import Database
from windlass.core.sqlite_store import SqliteStore
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace

OPEN = """
import sys, time
from pathlib import Path
from windlass.core.workspace import Workspace
ws = Workspace(Path(sys.argv[1]))
def say(text):
    sys.stdout.write(f"{text}\\n")
    sys.stdout.flush()
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN + code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_until_killed(code: str, home: Path, lines: int, pause: float) -> list[str]:
    """What the process said: it is killed `pause` seconds after its line number `lines`, wherever it then is."""
    with start(code, home) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(lines)]
        time.sleep(pause)
        process.kill()
        said += [line.strip() for line in process.stdout if line.endswith("\n")]
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert all(said)
    return said


def assert_sound(home: Path) -> None:
    with contextlib.closing(sqlite3.connect(home / ".windlass" / "windlass.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


# killed ---------------------------------------------------------------------------------------------------------

RECORD = """
number = 0
while True:
    for _ in range(37):
        with ws.recorder.span("assistant") as root:
            root.input = "x" * 500
            with ws.recorder.span("generate", "chat", number=number):
                number += 1
    ws.recorder.flush()
    say(number)
"""


def kill_recorders(home: Path, trials: int) -> None:
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(trials):
        said = said_until_killed(RECORD, home, chance.randint(1, 4), chance.random() * 0.05)
        acknowledged += int(said[-1])
        assert_sound(home)
        with Workspace(home) as ws:
            ((generated,),) = ws.store.database.read("SELECT count(*) FROM spans WHERE name = 'generate'")  # type: ignore[attr-defined]
            ((roots,),) = ws.store.database.read("SELECT count(*) FROM spans WHERE name = 'assistant'")  # type: ignore[attr-defined]
        assert generated >= acknowledged, "a flushed span is lost"
        assert roots <= generated <= roots + trials, "of a trace that ended everything is there, its children first"
        acknowledged = generated


def test_a_killed_recorder_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    kill_recorders(tmp_path, trials=6)


@pytest.mark.slow
def test_a_recorder_killed_many_times_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    kill_recorders(tmp_path, trials=60)


BUILD = """
import os
number = 0
while True:
    with ws.artifacts.build("corpus", "corpus") as draft:
        for part in range(5):
            (draft.path / f"part-{part}").write_bytes(os.urandom(50_000))
        draft.add_parent("seed", "0" * 64)
    say(draft.done.digest)
"""


def test_killed_in_the_middle_of_a_build_an_artifact_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    chance = random.Random(2)
    made: list[str] = []
    for _ in range(5):
        made += said_until_killed(BUILD, tmp_path, chance.randint(1, 3), chance.random() * 0.05)
        assert_sound(tmp_path)
        with Workspace(tmp_path) as ws:
            records = ws.store.artifacts()
            assert {r.digest for r in records} >= set(made)
            for record in records:
                ws.artifacts.verify(ws.artifacts.get(record.digest))
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("corpus", "last") as draft:
            (draft.path / "a").write_text("a")
        left = sorted(p.name for p in ws.artifacts.folder.iterdir())
        assert not [name for name in left if name.startswith(".draft")], "drafts of killed processes are gone"
        for name in left:  # a folder whose record did not get written in time is whole all the same
            assert len(list((ws.artifacts.folder / name).iterdir())) in (1, 5)


ADD = """
from windlass.core.records import MetricPoint, ReleaseRecord, ScoreRecord
import secrets
with ws.runs.start("train", "model") as run:
    number = 0
    while True:
        ws.store.add_metrics(run.id, [MetricPoint(number, name, 1.0, 0.0) for name in ("a", "b", "c")])
        ws.store.add_score(ScoreRecord(secrets.token_hex(8), run.id, "s", 1.0, "code", "me", time.time()))
        ws.store.set(f"{run.id}/{number}", number)
        live = ws.store.releases("assistant")
        ws.store.add_release(
            ReleaseRecord(0, "assistant", f"{run.id}/{number}", None, "promote", "", None, 0.0),
            expected=live[0].variant if live else None,
        )
        number += 1
        say(f"{run.id} {number}")
"""


def test_killed_between_writes_every_write_is_whole_and_every_acknowledged_one_there(tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(4):
        run, count = said_until_killed(ADD, tmp_path, chance.randint(1, 6), chance.random() * 0.03)[-1].split()
        assert_sound(tmp_path)
        with Workspace(tmp_path) as ws:
            points = ws.store.metrics(run)
            assert len(points) % 3 == 0
            assert int(count) <= len(points) // 3 <= int(count) + 1
            assert len(ws.store.scores(run)) in (int(count), int(count) + 1)
            assert [ws.store.get(f"{run}/{n}") for n in range(int(count))] == list(range(int(count)))
            log = ws.store.releases("assistant")
            assert [r.previous for r in log[:-1]] == [r.variant for r in log[1:]]
            record = ws.runs.get(run)
            assert record is not None
            assert record.status == "interrupted"


# several at once ------------------------------------------------------------------------------------------------


def test_many_processes_may_make_the_same_workspace_at_once(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = "ws.store.set(sys.argv[2], 1); say('done')"
    gate = f"import time, pathlib\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.001)\n"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", gate + OPEN + code, str(tmp_path / "home"), f"child {n}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(6)
    ]
    (tmp_path / "home").mkdir()
    time.sleep(0.3)
    go.touch()
    for child in children:
        out, err = child.communicate(timeout=60)
        assert (out, err, child.returncode) == ("done\n", "", 0)
    with Workspace(tmp_path / "home") as ws:
        assert [ws.store.get(f"child {n}") for n in range(6)] == [1] * 6
    assert_sound(tmp_path / "home")


def test_many_may_migrate_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    Database(path, MIGRATIONS).close()
    newer = [*MIGRATIONS, ["CREATE TABLE more (x)", "INSERT INTO more VALUES ('a; b')"]]
    start_together = threading.Barrier(6)
    failed: list[BaseException] = []

    def migrate() -> None:
        start_together.wait()
        try:
            Database(path, newer).close()
        except BaseException as error:  # noqa: BLE001 - reported below
            failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    database = Database(path, newer)
    assert database.read("SELECT x FROM more") == [("a; b",)]
    database.close()


def test_a_migration_that_breaks_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    Database(path, MIGRATIONS).close()
    with pytest.raises(WorkspaceError, match="no such table: elsewhere"):
        Database(path, [*MIGRATIONS, ["CREATE TABLE more (x)", "INSERT INTO elsewhere VALUES (1)"]])
    database = Database(path, MIGRATIONS)
    assert database.read("SELECT name FROM sqlite_master WHERE name = 'more'") == []
    database.close()


def test_a_file_of_a_newer_windlass_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    Database(path, [*MIGRATIONS, ["CREATE TABLE future (x)"]]).close()
    before = path.read_bytes()
    known = len(MIGRATIONS)
    with pytest.raises(
        WorkspaceError, match=rf"newer windlass \(schema {known + 1}; this one knows {known}\)"
    ) as caught:
        SqliteStore(path)
    assert "Upgrade" in caught.value.hint
    assert path.read_bytes() == before


def test_who_holds_the_lock_is_named(tmp_path: Path) -> None:
    Workspace(tmp_path).close()
    hold = "held = ws.store.database.write(); held.__enter__(); say('held'); sys.stdin.read()"
    with start(hold, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        store = SqliteStore(tmp_path / ".windlass" / "windlass.db", busy_timeout=0.2)
        who = rf"\(pid {process.pid}\)" if Path("/proc/locks").exists() else "Another process"
        with pytest.raises(WorkspaceBusy, match=who):
            store.set("k", 1)
        assert store.get("k") is None, "reading goes on"
        process.kill()
    store.set("k", 2)
    assert store.get("k") == 2
    store.close()


def test_forking_while_threads_write_is_safe(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "w.db")
    stop = threading.Event()

    def work(name: str) -> None:
        number = 0
        while not stop.is_set():
            store.set(name, number)
            assert store.get(name) == number
            number += 1

    threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            pid = os.fork()
            if pid == 0:
                try:
                    store.set(f"child {number}", number)
                    os._exit(0 if store.get(f"child {number}") == number else 1)
                finally:
                    os._exit(2)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [store.get(f"child {n}") for n in range(5)] == list(range(5))
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# the disk -------------------------------------------------------------------------------------------------------


def test_commits_are_synced(tmp_path: Path) -> None:
    database = Database(tmp_path / "w.db", MIGRATIONS)
    assert database.read("PRAGMA synchronous") == [(2,)], "FULL: every commit, not only checkpoints"
    assert database.read("PRAGMA journal_mode") == [("wal",)]
    database.close()


def test_on_a_full_disk_nothing_acknowledged_is_lost_and_work_goes_on_once_there_is_room(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = Workspace(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    recorder = Recorder(ws.store, interval=60)
    acknowledged = 0
    with pytest.raises(DiskFull, match="No space left on the disk that holds"):
        while True:
            for number in range(20):
                with recorder.span("assistant", number=number) as span:
                    span.input = random.Random(number).randbytes(2_000).hex()
            recorder.flush()
            acknowledged += 20
    assert acknowledged > 0
    with pytest.raises(DiskFull, match="No space left"), ws.artifacts.build("corpus", "big") as draft:
        (draft.path / "big").write_bytes(b"x" * 3_000_000)
    assert list(ws.artifacts.folder.iterdir()) == []
    assert len(ws.store.traces(limit=10_000)) == acknowledged
    ballast.unlink()
    recorder.close()
    assert recorder.dropped == 0
    assert len(ws.store.traces(limit=10_000)) == acknowledged + 20
    assert "traces are not being stored: No space left" in capsys.readouterr().err
    ws.close()
    assert_sound(small_disk)


def test_a_store_that_may_not_grow_says_that_the_disk_is_full(tmp_path: Path) -> None:
    """The same without being root: SQLite refuses to let the file grow."""
    store = SqliteStore(tmp_path / "w.db")
    store.set("k", "before")
    ((pages,),) = store.database.read("PRAGMA page_count")
    store.database.read(f"PRAGMA max_page_count = {pages}")  # of the one connection, which the next call uses too
    with pytest.raises(DiskFull, match=r"No space left on the disk that holds .*w\.db"):
        store.set("k", "x" * 100_000)
    assert store.get("k") == "before"
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "header", "pages", "truncated"])
def test_a_damaged_file_is_reported_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.db"
    store = SqliteStore(path)
    for number in range(200):
        store.set(f"k{number}", "x" * 500)
    store.close()
    whole = path.read_bytes()
    broken = {
        "garbage": random.Random(0).randbytes(len(whole)),
        "header": b"not a database at all" + whole[21:],
        "pages": whole[:4096] + b"\xaa" * (len(whole) - 4096),
        "truncated": whole[: 4096 * 3],
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(WorkspaceCorrupt, match=r"w\.db is damaged .* Nothing was changed\.") as caught:
        damaged = SqliteStore(path)
        try:
            for number in range(200):
                damaged.get(f"k{number}")
        finally:
            damaged.close()
    assert ".recover" in caught.value.hint
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(broken).digest()


def as_nobody(work: str, *args: object) -> str:
    """What `work` prints in a process that has no rights, if this one can make such a process."""
    code = "import os, sys\nfrom pathlib import Path\nfrom windlass.core.workspace import Workspace\n"
    drop = "os.setgid(65534); os.setuid(65534)\n" if os.geteuid() == 0 else ""
    done = subprocess.run(
        [sys.executable, "-c", code + drop + work, *map(str, args)], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_a_folder_that_may_not_be_written_is_named() -> None:
    work = """
from windlass.core.errors import WindlassError
try:
    Workspace(Path(sys.argv[1])).store.set("k", 1)
except WindlassError as error:
    print(type(error).__name__, error.message, error.hint)
"""
    with tempfile.TemporaryDirectory() as name:  # not `tmp_path`, which only its owner may enter
        home = Path(name)
        home.chmod(0o555)
        said = as_nobody(work, home)
        assert said == f"InputError Cannot write to {home}. Choose a folder of yours with --workspace.\n"
        home.chmod(0o755)
        Workspace(home).close()
        folder = home / ".windlass"
        for path in (folder, *folder.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        said = as_nobody(work, home)
        folder.chmod(0o755)
        assert said.startswith("WorkspaceError The workspace file ")
        assert "windlass.db cannot be used" in said
        assert "readable and writable" in said
        assert "Traceback" not in said


def test_errors_are_windlass_errors_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "w.db").mkdir()
    with pytest.raises(WindlassError, match=r"w\.db cannot be used: unable to open") as caught:
        SqliteStore(tmp_path / "w.db")
    assert caught.value.hint

"""What keys use: exact in a process, soon known to others, and on disk before a kill can take more than is promised."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from windlass.core.errors import WorkspaceBusy
from windlass.core.sqlite import Database
from windlass.serve import ledger as module
from windlass.serve.keys import Key, KeyLimits, Keys
from windlass.serve.ledger import BEHIND, INTERVAL, TABLE, Ledger, Used

NOON = 1_800_000_000.0 // 86400 * 86400 + 43200


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    with contextlib.closing(Keys(tmp_path / "keys.db")) as made:
        yield made


def stored(folder: Path, key: Key) -> Used:
    """What the file says of the key's month."""
    with contextlib.closing(sqlite3.connect(folder / "keys.db")) as connection:
        columns = "sum(requests), sum(tokens), sum(dollars), sum(unpriced)"
        row = connection.execute(f"SELECT {columns} FROM used WHERE key = ? AND period = 'month'", (key.id,)).fetchone()
    return Used(*(value or 0 for value in row))


def test_many_requests_share_a_commit_and_close_writes_the_last(tmp_path: Path, keys: Keys, monkeypatch: Any) -> None:
    key, _ = keys.add("ann", ["generate"], KeyLimits(tokens_per_day=10**9))
    commits, write = [], Database.write
    monkeypatch.setattr(Database, "write", lambda self: commits.append(1) or write(self))
    began = time.monotonic()
    for _ in range(1000):
        assert keys.admit(key) is None
        keys.charge(key, 3, 0.5)
    assert keys.used(key.id, "day") == Used(1000, 3000, 500.0)
    keys.close()
    assert len(commits) <= (time.monotonic() - began) / INTERVAL + 2
    assert stored(tmp_path, key) == Used(1000, 3000, 500.0)


def test_threads_get_exactly_what_the_limit_says(tmp_path: Path, keys: Keys, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.001)  # rounds of writing meanwhile, as many as can be
    key, _ = keys.add("ann", ["generate"], KeyLimits(requests_per_minute=700))
    admitted: list[int] = []

    def work() -> None:
        admitted.append(sum(keys.admit(key, NOON) is None for _ in range(200)))
        keys.charge(key, 1, None, NOON)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys.flush()
    assert sum(admitted) == 700 and stored(tmp_path, key) == Used(700, 8, 0.0, 8)


def test_a_restart_goes_on_where_it_was(tmp_path: Path, keys: Keys) -> None:
    key, _ = keys.add("ann", ["generate"], KeyLimits(requests_per_minute=3, dollars_per_day=1.0))
    assert keys.admit(key, NOON) is None
    keys.charge(key, 10, 0.4, NOON)
    keys.close()
    for _ in range(2):
        with contextlib.closing(Keys(tmp_path / "keys.db")) as again:
            assert again.admit(key, NOON) is None
            again.charge(key, 10, 0.2, NOON)
    with contextlib.closing(Keys(tmp_path / "keys.db")) as again:
        assert again.used(key.id, "day", NOON) == Used(3, 30, pytest.approx(0.8))
        assert again.admit(key, NOON) is not None
        assert again.admit(key, NOON + 600, dollars=0.3) is not None


def test_what_another_process_wrote_counts_an_interval_later(tmp_path: Path, keys: Keys) -> None:
    key, _ = keys.add("ann", ["generate"], KeyLimits(requests_per_minute=2))
    with contextlib.closing(Keys(tmp_path / "keys.db")) as other:
        assert keys.admit(key, NOON) is None and other.admit(key, NOON) is None
        keys.flush()
        other.flush()
        time.sleep(2 * INTERVAL)
        assert keys.admit(key, NOON) is not None and other.admit(key, NOON) is not None
        assert keys.used(key.id, "minute", NOON).requests == other.used(key.id, "minute", NOON).requests == 2


ASKING = """
import sys, time
from pathlib import Path
from windlass.serve.keys import Keys

keys = Keys(Path(sys.argv[1]))
(key,) = keys.all()
now, pause = float(sys.argv[2]), float(sys.argv[3])
keys.admit(key, now)
print("ready", flush=True)
sys.stdin.readline()
admitted, until = 1, time.monotonic() + 30
while time.monotonic() < until and keys.admit(key, now) is None:
    keys.charge(key, 1, None, now)
    admitted += 1
    print(time.monotonic(), flush=True)
    time.sleep(pause)
keys.close()
print(admitted, flush=True)
"""


def asking(folder: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASKING, str(folder / "keys.db"), str(NOON), str(pause)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_together_pass_a_limit_by_little(tmp_path: Path, keys: Keys) -> None:
    """Four at 10 requests a second each: apart they would be let in 160 times. A disk that stalls, as those of test
    machines do, may hide a second's requests from the others, 40."""
    key, _ = keys.add("ann", ["generate"], KeyLimits(requests_per_minute=40))
    processes = [asking(tmp_path, 0.1) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        admitted = [int(process.communicate(timeout=60)[0].split()[-1]) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert 40 <= sum(admitted) < 120 and stored(tmp_path, key).requests == sum(admitted), admitted


def test_a_kill_takes_no_more_than_is_promised(tmp_path: Path, keys: Keys) -> None:
    key, _ = keys.add("ann", ["generate"])
    process = asking(tmp_path, 0.001)
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(BEHIND + 1.0)
        process.send_signal(signal.SIGKILL)
        told, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    times = [float(line) for line in told.splitlines(keepends=True) if line.endswith("\n") and line != "ready\n"]
    promised = sum(moment < times[-1] - BEHIND for moment in times)
    found = stored(tmp_path, key)
    assert 0 < promised <= found.requests <= len(times) + 2 and promised <= found.tokens
    assert keys.admit(key, NOON) is None, "the file is sound"


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[tuple[Ledger, sqlite3.Connection]]:
    """A ledger, and a hand that can hold its file. The parameter: how many seconds a commit waits for the file."""
    monkeypatch.setattr(module, "BEHIND", 0.2)
    database = Database(
        tmp_path / "used.db", (("CREATE TABLE keys (id TEXT PRIMARY KEY)", TABLE),), busy_timeout=request.param
    )
    with database.write() as connection:
        connection.execute("INSERT INTO keys VALUES ('k')")
    hand = sqlite3.connect(tmp_path / "used.db", isolation_level=None, check_same_thread=False)
    ledger = Ledger(database)
    yield ledger, hand
    hand.close()
    ledger.close()
    database.close()


@pytest.mark.parametrize("slow", [10.0], indirect=True)
def test_while_the_disk_is_slow_requests_wait(slow: tuple[Ledger, sqlite3.Connection]) -> None:
    ledger, hand = slow
    hand.execute("BEGIN IMMEDIATE")
    ledger.admit("k", NOON, lambda used: None)
    ledger.charge("k", NOON, Used(tokens=5))
    time.sleep(0.3)
    assert not ledger.at_hand("k", NOON)
    threading.Timer(0.1, hand.execute, ("COMMIT",)).start()
    ledger.admit("k", NOON, lambda used: None)
    assert hand.execute("SELECT requests, tokens FROM used WHERE period = 'day'").fetchall() == [(1, 5)]
    assert ledger.used("k", "day", NOON) == Used(2, 5)


@pytest.mark.parametrize("slow", [0.3], indirect=True)
def test_what_cannot_be_written_is_kept_and_said(slow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ledger, hand = slow
    hand.execute("BEGIN IMMEDIATE")
    ledger.admit("k", NOON, lambda used: None)
    with pytest.raises(WorkspaceBusy):
        ledger.flush()
    time.sleep(0.3)
    with pytest.raises(WorkspaceBusy):
        ledger.admit("k", NOON, lambda used: None)
    ledger.charge("k", NOON, Used(tokens=5))
    hand.execute("COMMIT")
    ledger.flush()
    assert hand.execute("SELECT requests, tokens FROM used WHERE period = 'day'").fetchall() == [(1, 5)]
    assert ledger.admit("k", NOON, lambda used: None) is None
    assert capsys.readouterr().err.count("is not being stored") == 1


@pytest.mark.parametrize("slow", [10.0], indirect=True)
def test_what_is_counted_after_the_close_is_written_too(slow: tuple[Ledger, sqlite3.Connection]) -> None:
    ledger, hand = slow
    for _ in range(3):
        ledger.charge("k", NOON, Used(tokens=5))
        ledger.close()
    assert hand.execute("SELECT tokens FROM used WHERE period = 'day'").fetchall() == [(15,)]


@pytest.mark.parametrize(("month", "later", "said"), [((2026, 12), 1, (2027, 1)), ((2028, 2), 0, (2028, 2))])
def test_months(month: tuple[int, int], later: int, said: tuple[int, int]) -> None:
    day = time.struct_time((*month, 17, 3, 4, 5, 0, 0, 0))
    assert time.gmtime(module.month_start(day, later=later))[:6] == (*said, 1, 0, 0, 0)

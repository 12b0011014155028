"""A SQLite file that several processes open at once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from windlass.core.errors import WorkspaceBusy
from windlass.core.sqlite import Database

MADE = [["CREATE TABLE notes (text TEXT)"]]


def held(path: Path) -> sqlite3.Connection:
    """Another one that has begun to write to the file it is making, and has not changed it to WAL yet."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (text TEXT)")
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    other = held(tmp_path / "a.db")
    ends = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    ends.start()
    database = Database(tmp_path / "a.db", MADE)
    ends.join()
    assert database.read("SELECT count(*) FROM notes") == [(0,)]
    assert database.read("PRAGMA journal_mode") == [("wal",)]
    database.close()
    other.close()


def test_but_not_for_ever(tmp_path: Path) -> None:
    other = held(tmp_path / "a.db")
    with pytest.raises(WorkspaceBusy, match=r"locked for more than 0\.2 s"):
        Database(tmp_path / "a.db", MADE, busy_timeout=0.2)
    other.close()

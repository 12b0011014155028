"""A SQLite file as windlass uses it: synced WAL commits, numbered migrations, clear errors, threads and forks.

A transaction that has returned is on the disk: `kill -9` and a power cut leave the last committed state. With
`synced=False` a power cut may take the last transactions back, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from windlass.core.errors import DiskFull, WorkspaceBusy, WorkspaceCorrupt, WorkspaceError

Migrations = Sequence[Sequence[str]]
"""For each version of the schema, the statements that lead to it from the one before."""

_NEARLY_NOTHING = 1 << 20
"""Bytes free below which a failed write is put down to the full disk, whatever SQLite calls it."""


class Database:
    """The file `path`, created when absent and brought to the newest of `migrations`."""

    def __init__(self, path: Path, migrations: Migrations, *, busy_timeout: float = 10.0, synced: bool = True) -> None:
        self.path = path
        self._synced = synced
        self._busy_timeout = busy_timeout
        # Connections are lent for one operation each, so that threads that come and go leave none behind.
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._forking = False
        self._lock = threading.Condition(threading.Lock())
        _open.add(self)
        self._migrate(migrations)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query."""
        with self._connection() as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed and on disk when the block ends, undone when it raises."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                        connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes all connections. A later operation opens one again."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    # connections ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            while self._forking:
                self._lock.wait()
            self._lent += 1
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            with self._lock:
                self._lent -= 1
                if connection is not None:
                    self._idle.append(connection)
                self._lock.notify_all()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            patiently(connection, "PRAGMA journal_mode = WAL", self._busy_timeout)
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._synced else 'NORMAL'}")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, migrations: Migrations) -> None:
        ((version,),) = self.read("PRAGMA user_version")
        if version > len(migrations):
            raise WorkspaceError(
                f"{self.path} was written by a newer windlass (schema {version}; this one knows {len(migrations)}).",
                "Upgrade windlass, or use another workspace.",
            )
        while version < len(migrations):
            with self.write() as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version < len(migrations):  # else another process was faster
                    for statement in migrations[version]:
                        connection.execute(statement)
                    version += 1
                    connection.execute(f"PRAGMA user_version = {version}")

    # A connection must not cross a fork, and SQLite's bookkeeping of locks in this process must not either: the
    # child would believe that it holds its parent's locks. So the forking thread waits until no operation is under
    # way and closes them all; both sides open new ones when they need them.

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._forking = True  # or threads that keep on working might never all pause at once
        while self._lent:
            self._lock.wait()
        while self._idle:
            self._idle.pop().close()

    def _after_fork(self) -> None:
        self._forking = False
        self._lock.notify_all()
        self._lock.release()

    # errors -----------------------------------------------------------------------------------------------------

    def _translated(self, error: sqlite3.Error) -> WorkspaceError:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and self._space() < _NEARLY_NOTHING):
            return DiskFull(
                f"No space left on the disk that holds {self.path}.",
                "Free some space and run the same command again; what was acknowledged before is kept.",
            )
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            holder = lock_holder(self.path)
            who = "Another process" if holder is None else f"Another process (pid {holder})"
            return WorkspaceBusy(
                f"{who} kept {self.path} locked for more than {self._busy_timeout:g} s.",
                "Wait until it has finished, or stop it, and try again.",
            )
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return WorkspaceCorrupt(
                f"The workspace file {self.path} is damaged ({error}). Nothing was changed.",
                f"Restore it from a backup, or move it away and start anew; `sqlite3 {self.path} .recover` saves what"
                " can be read.",
            )
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return WorkspaceError(
            f"The workspace file {self.path} cannot be used: {error} ({name}).",
            "Check that the file and its folder are readable and writable.",
        )

    def _space(self) -> int:
        try:
            return shutil.disk_usage(self.path.parent).free
        except OSError:
            return _NEARLY_NOTHING


def patiently(connection: sqlite3.Connection, statement: str, seconds: float) -> None:
    """Runs `statement`, again and again while another process holds the lock, for `seconds`; then the error passes.

    SQLite's own waiting cannot be interrupted by Ctrl-C, and does not cover the change to WAL of a file that another
    process is making.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.005)


def lock_holder(path: Path) -> int | None:
    """Process id of another process that holds a lock on the SQLite file `path`; None when that cannot be told.

    From Linux' table of locks. In WAL mode a writer locks byte 120 of the `-shm` file (SQLite, "WAL-mode file
    format", 2.2), everyone else holds shared locks only.
    """
    try:
        inodes = {str(os.stat(file).st_ino) for file in (path, Path(f"{path}-shm")) if file.exists()}
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    for line in table.splitlines():  # 1: POSIX ADVISORY WRITE 4711 fd:01:1234567 120 120
        fields = line.split()
        if "WRITE" in fields and "->" not in fields:
            where = fields.index("WRITE")
            pid, inode = fields[where + 1], fields[where + 2].rpartition(":")[2]
            if inode in inodes and int(pid) != os.getpid():
                return int(pid)
    return None


_open: weakref.WeakSet[Database] = weakref.WeakSet()
_forking: list[Database] = []


def _before_fork() -> None:
    _forking[:] = list(_open)
    for database in _forking:
        database._before_fork()


def _after_fork() -> None:
    for database in _forking:
        database._after_fork()
    _forking.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)

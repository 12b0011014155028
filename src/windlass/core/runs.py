"""Runs: one execution that makes artifacts, with its configuration, environment, metrics and end."""

from __future__ import annotations

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

from windlass import __version__
from windlass.core.errors import NotFound
from windlass.core.records import MetricPoint, RunRecord, RunStatus
from windlass.core.store import Store


class Run:
    """A run in progress; a context manager that records how it ended.

    `folder` is the run's own place for checkpoints. Metrics are buffered and written at most about once a
    second, and at the end.
    """

    def __init__(self, store: Store, record: RunRecord, folder: Path) -> None:
        self.store = store
        self.record = record
        self.folder = folder
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
        folder.mkdir(parents=True)
        self.store.add_run(record)
        return Run(self.store, record, folder)

    def resume(self, identifier: str) -> Run:
        """Takes up a run that was interrupted or killed: same id, same folder."""
        record = self.store.run(identifier)
        if record is None:
            raise NotFound(f"There is no run '{identifier}' in this workspace.", "`windlass runs` lists them.")
        self.store.end_run(identifier, "running", None)
        return Run(self.store, record, self.folder / identifier)


def environment() -> dict[str, Any]:
    """What a result may depend on besides its inputs."""
    return {
        "windlass": __version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
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

"""Runs what a model wrote in a process of its own, locked in, and brings back what came of it.

What holds is set by the process itself before it reads anything a model wrote (`inside.py`):

- its time, memory, files and processes are limited by the kernel, its wall time by us: then it is killed
- on Linux (x86-64, ARM64) the kernel refuses it every call but those that computing needs (seccomp): no file can be
  opened, no process started, no signal sent, no network reached. It begins in an empty folder, without environment
- elsewhere only the limits hold: it could read files and reach the network with the rights of the user

What no sandbox of this kind protects from: faults of the kernel, and what the hardware gives away about its neighbours.
Nor does it make answers honest: one that runs beside its tests can rewrite what it is tested with.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from windlass.core.errors import InputError, WindlassError

Mode = Literal["calls", "tests", "patterns"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one process."""

    seconds: int = 5
    """Processor time; wall time twice as long, as there may be others at work."""
    memory: int = 512 << 20
    output: int = 1 << 20
    """Bytes that may come back."""

    def __post_init__(self) -> None:
        if self.seconds < 1 or self.memory < 1 << 26 or self.output < 1 << 12:
            raise InputError(f"No process can work within {self}.", "Give it 1 s, 64 MiB and 4 KiB at least.")


LIMITS = Limits()
AT_ONCE = min(4, os.cpu_count() or 1)
_INSIDE = Path(__file__).with_name("inside.py")


def run(mode: Mode, job: Mapping[str, Any], limits: Limits | None = None) -> list[str]:
    """Lines that the job wrote before it ended, or was ended. Whatever the job does, this returns; it raises
    `WindlassError` when no process could be started."""
    return _run(mode, job, limits or LIMITS)[1:]


def run_each(mode: Mode, jobs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What came of each job (JSON), many in one process; None for one that did not end in time, after which the others
    go on in a new process."""
    found: list[Any] = []
    while len(found) < len(jobs):
        lines = run(mode, {"jobs": jobs[len(found) :]})[: len(jobs) - len(found)]
        found += map(json.loads, lines)
        if len(found) < len(jobs):
            found.append(None)
    return found


@functools.cache
def confinement() -> str:
    """What holds on this machine, found out by trying."""
    if _run("patterns", {"jobs": []}, LIMITS) == ["locked"]:
        return "answers run as code in processes that can open no file, start no process and reach no network"
    return (
        "WARNING: answers run as code in processes whose time and memory are limited, but this system cannot keep them "
        "from the user's files and from the network"
    )


def _run(mode: Mode, job: Mapping[str, Any], limits: Limits) -> list[str]:
    with (
        tempfile.TemporaryDirectory(prefix="windlass-sandbox-") as empty,
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as said,  # a file: the kernel limits its size, and nobody waits for it to be read
        tempfile.TemporaryFile() as errors,  # of the start only: it gives them up when it locks itself in
    ):
        asked.write(json.dumps({"mode": mode, "limits": asdict(limits), **job}).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_INSIDE)],
            stdin=asked,
            stdout=said,
            stderr=errors,
            cwd=empty,
            env={},
            start_new_session=True,
        )
        try:
            process.wait(2 * limits.seconds)
        except subprocess.TimeoutExpired:
            pass  # what it has said by now counts
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        *lines, _ = (
            said.read(limits.output + 1).decode("utf-8", "replace").split("\n")
        )  # one that is not ended does not count
        if not lines:
            errors.seek(0)
            why = (
                errors.read(4096).decode("utf-8", "replace").strip() or f"nothing was heard for {2 * limits.seconds} s"
            )
            raise WindlassError(f"The sandbox for answers did not start: {why.splitlines()[-1]}.")
        return lines

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
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
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
_PATIENCE = 60
"""Seconds beyond a job's own until its process counts as lost."""


class Sandbox:
    """A process that has loaded what jobs may import, and forks for each: the next job costs milliseconds. One job at a
    time. Close it, or use it in a `with`."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_INSIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=tempfile.gettempdir(),
            env={},
            start_new_session=True,
        )

    def run(self, mode: Mode, job: Mapping[str, Any], limits: Limits | None = None) -> list[str]:
        """Lines that the job wrote before it ended, or was ended. Whatever the job does, this returns; it raises
        `WindlassError` when no process could be started."""
        return self._run(mode, job, limits)[1:]

    def confined(self) -> bool:
        """Whether jobs can open no file, start no process and reach no network."""
        return self._run("patterns", {"jobs": []}, None) == ["locked"]

    def _run(self, mode: Mode, job: Mapping[str, Any], limits: Limits | None) -> list[str]:
        limits = limits or LIMITS
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = json.dumps({"mode": mode, "limits": asdict(limits), **job})
        line = b""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(asked.encode() + b"\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as waiting:
                waiting.register(self._process.stdout, selectors.EVENT_READ)
                if waiting.select(2 * limits.seconds + _PATIENCE):
                    line = self._process.stdout.readline()
        *lines, _ = json.loads(line).split("\n") if line else [""]  # a line that is not ended does not count
        if not lines:
            self._process.kill()  # what it might say later belongs to no other job
            raise WindlassError(f"The sandbox for answers did not start: {self._why()}.")
        return lines

    def _why(self) -> str:
        self._errors.seek(0)
        said = self._errors.read(4096).decode("utf-8", "replace").strip()
        return said.splitlines()[-1] if said else "nothing was heard of it"

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # there are no more jobs
        for insist in (None, self._process.terminate, self._process.kill):
            if insist is not None:
                insist()
            try:
                self._process.wait(1)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.stdout.close()
        self._errors.close()

    def stop(self) -> None:
        """Ends a job that runs, and the process."""
        self._process.terminate()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(mode: Mode, job: Mapping[str, Any], limits: Limits | None = None) -> list[str]:
    """One job: see `Sandbox.run`."""
    with Sandbox() as sandbox:
        return sandbox.run(mode, job, limits)


def run_all(
    mode: Mode, jobs: Sequence[Mapping[str, Any]], limits: Limits | None = None, at_once: int = AT_ONCE
) -> list[list[str]]:
    """Jobs that know nothing of each other, each in a process of its own, `at_once` of them: see `Sandbox.run`."""
    from concurrent.futures import ThreadPoolExecutor

    at_once = max(1, min(at_once, len(jobs)))
    free: SimpleQueue[Sandbox] = SimpleQueue()

    def one(job: Mapping[str, Any]) -> list[str]:
        sandbox = free.get()
        try:
            return sandbox.run(mode, job, limits)
        finally:
            free.put(sandbox)

    with contextlib.ExitStack() as stack:
        sandboxes = [stack.enter_context(Sandbox()) for _ in range(at_once)]
        for sandbox in sandboxes:
            free.put(sandbox)
        with ThreadPoolExecutor(at_once) as pool:
            try:
                return list(pool.map(one, jobs))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for sandbox in sandboxes:
                    sandbox.stop()
                raise


def run_each(mode: Mode, jobs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What came of each job (JSON), many in one process; None for one that did not end in time, after which the others
    go on in a new process."""
    found: list[Any] = []
    with Sandbox() as sandbox:
        while len(found) < len(jobs):
            lines = sandbox.run(mode, {"jobs": jobs[len(found) :]})[: len(jobs) - len(found)]
            found += map(json.loads, lines)
            if len(found) < len(jobs):
                found.append(None)
    return found


@functools.cache
def confinement() -> str:
    """What holds on this machine, found out by trying."""
    with Sandbox() as sandbox:
        if sandbox.confined():
            return "answers run as code in processes that can open no file, start no process and reach no network"
    return (
        "WARNING: answers run as code in processes whose time and memory are limited, but this system cannot keep them "
        "from the user's files and from the network"
    )

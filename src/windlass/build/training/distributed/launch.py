"""Several workers on this machine without torchrun: the same command once per worker, and one clear end.

The workers find each other by the environment variables that torchrun sets too. When one ends badly, the others notice
and end by themselves; those that do not are stopped. The leader says what happened; it is said here only if the leader
was killed and could not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from windlass.core.errors import InputError

_LOOK_EVERY = 0.05
_GRACE_S = 30.0
"""For the workers that are left: to notice, to end a save, to say so."""
_LAST_GRACE_S = 10.0


def launch(count: int, command: Sequence[str]) -> int:
    """Runs `command` in `count` processes; returns the exit status of the first that failed, or 0.

    Ctrl-C and SIGTERM are passed on, and the workers end when they have saved.
    """
    if count < 1:
        raise InputError(f"--workers is {count}, but must be at least 1.")
    port = _free_port()
    processes = [subprocess.Popen(command, env=_environment(i, count, port)) for i in range(count)]
    with _passing_on_signals(processes):
        failed = _first_failure(processes)
        if failed is None:
            return 0
        _end(processes)
    status = processes[failed].wait()
    leader = processes[0].wait()
    if leader < 0:
        name = signal.Signals(-leader).name
        print(
            f"windlass: worker 0 (process {processes[0].pid}) was killed by {name}.\n"
            "          The last checkpoint is whole: the same command goes on from there.",
            file=sys.stderr,
        )
    return 1 if status < 0 else status


def _environment(number: int, count: int, port: int) -> Mapping[str, str]:
    return {
        # One thread per core on the whole machine, unless the person says otherwise.
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _first_failure(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Waits until all have ended well, or one has not: its number."""
    while True:
        statuses = [process.poll() for process in processes]
        failed = [i for i, status in enumerate(statuses) if status]
        if failed:
            return failed[0]
        if None not in statuses:
            return None
        time.sleep(_LOOK_EVERY)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Gives the others time to end, then asks them to, then kills them."""
    for grace, ask in ((_GRACE_S, None), (_LAST_GRACE_S, signal.SIGTERM), (_LAST_GRACE_S, signal.SIGKILL)):
        for process in processes:
            if ask is not None and process.poll() is None:
                process.send_signal(ask)
        deadline = time.monotonic() + grace
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_EVERY)
        else:
            return


@contextlib.contextmanager
def _passing_on_signals(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

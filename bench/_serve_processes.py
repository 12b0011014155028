"""Processes that `bench.serve` and `bench.soak` start: helpers that answer one task a line, and real servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
STALLED_SECONDS = 120.0
"""Without a word and without a second of processor time, after which a process that starts is given up."""


@dataclass
class Process:
    """One that reads a task a line and writes an answer a line."""

    name: str
    process: subprocess.Popen[str]
    said: IO[str]

    def last_words(self) -> str:
        self.said.seek(0)
        return (self.said.read().strip().splitlines() or ["nothing"])[-1]

    def ask(self, task: Mapping[str, int]) -> dict[str, Any] | None:
        """None when it has died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=60)


def start(name: str, command: Sequence[str], threads: int) -> Process | None:
    """A helper that is ready; None, and a line that says why, where it cannot start."""
    said = tempfile.TemporaryFile("w+")  # a pipe nobody reads would fill up  # noqa: SIM115
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=_environment(threads)
    )
    one = Process(name, process, said)
    assert process.stdout is not None
    if process.stdout.readline():
        return one
    print(f"{name} is missing: {one.last_words()}", flush=True)
    return None


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    def processor_seconds(self) -> float:
        """Of all its threads, since it began."""
        return _processor_seconds(self.process.pid)

    def resident(self) -> int:
        """Bytes of memory, without pages of files, which the kernel takes back when it likes."""
        return self._status("RssAnon") << 10

    def threads(self) -> int:
        """Those of PyTorch and of the libraries beneath it included."""
        return self._status("Threads")

    def _status(self, what: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{what}:"))


@contextlib.contextmanager
def windlass_serve(folder: Path, threads: int, *options: str) -> Iterator[Server]:
    """`windlass serve FOLDER` on a free port, in a workspace of its own."""
    with tempfile.TemporaryDirectory() as workspace:
        (Path(workspace) / ".windlass").mkdir()
        command = [sys.executable, "-m", "windlass", "serve", str(folder), "--workspace", workspace, "--port", "0"]
        with _running([*command, *options], threads) as (process, said):
            url = until(lambda: _address(_said(said)), process, said)
            yield Server(url, process)


@contextlib.contextmanager
def llama_server(program: str, model: Path, threads: int, context: int) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [program, "--model", str(model), "--threads", str(threads), "--ctx-size", str(context)]
    command += ["--parallel", "1", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, threads) as (process, said):
        until(lambda: _healthy(port) or None, process, said)
        yield Server(f"http://127.0.0.1:{port}", process)


@contextlib.contextmanager
def _running(command: Sequence[str], threads: int) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    with tempfile.NamedTemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True, env=_environment(threads))
        try:
            yield process, said
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def until(ready: Callable[[], T | None], process: subprocess.Popen[str], said: IO[str]) -> T:
    """What `ready` gives once it gives anything. Waits as long as the process lives and gets on, however slowly.

    Raises `RuntimeError` with its last words when it has ended, or does nothing any more.
    """
    seen, since = progress(process, said), time.monotonic()
    while (found := ready()) is None:
        if process.poll() is not None:
            raise RuntimeError(f"It ended (status {process.returncode}), not ready:\n{_said(said)[-2000:]}")
        if (now := progress(process, said)) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > STALLED_SECONDS:
            raise RuntimeError(f"It has done nothing for {STALLED_SECONDS:g} s, not ready:\n{_said(said)[-2000:]}")
        time.sleep(0.05)
    return found


def progress(process: subprocess.Popen[str], said: IO[str]) -> tuple[int, int]:
    """Bytes written and seconds computed: one that reads its model on a busy machine may say nothing for minutes."""
    computed = 0 if process.poll() is not None else int(_processor_seconds(process.pid))
    return Path(said.name).stat().st_size, computed


def _processor_seconds(pid: int) -> float:
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def _address(text: str) -> str | None:
    """Of a server of ours, once it has said all that it says."""
    found = re.search(r"OpenAI API\s+(http\S+)/v1", text) if "Ctrl-C stops" in text else None
    return None if found is None else found[1]


def _said(said: IO[str]) -> str:
    return Path(said.name).read_text()


def _healthy(port: int) -> bool:
    """llama-server listens before its model is loaded, and says so."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as link:
        link.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return b" 200 " in link.recv(64)
    return False


def _environment(threads: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
START_SECONDS = 120.0


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
        used = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

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
            url = _printed(process, said, r"OpenAI API\s+(http\S+)/v1")
            yield Server(url, process)


@contextlib.contextmanager
def llama_server(program: str, model: Path, threads: int, context: int) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [program, "--model", str(model), "--threads", str(threads), "--ctx-size", str(context)]
    command += ["--parallel", "1", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, threads) as (process, said):
        until = time.monotonic() + START_SECONDS
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{program} did not start:\n{_said(said)}")
            time.sleep(0.1)
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


def _printed(process: subprocess.Popen[str], said: IO[str], pattern: str) -> str:
    """What the process prints in place of the pattern's group, once it says "Ctrl-C stops"."""
    until = time.monotonic() + START_SECONDS
    while True:
        text = _said(said)
        if "Ctrl-C stops" in text and (found := re.search(pattern, text)):
            return found[1]
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the server did not start:\n{text[-2000:]}")
        time.sleep(0.05)


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

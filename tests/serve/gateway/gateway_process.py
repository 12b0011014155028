"""`windlass gateway` as a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gateway_fakes import Provider


class Process:
    def __init__(self, folder: Path, *options: str) -> None:
        (folder / ".windlass").mkdir(exist_ok=True)
        self._errors = folder / "errors.txt"
        self._config = folder / "gateway.toml"
        command = [sys.executable, "-m", "windlass", "gateway", "gateway.toml", "--port", "0", *options]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.url = self.said("OpenAI API").split()[-1]

    def said(self, begin: str) -> str:
        """The next line that begins so."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(begin):
                return line
        raise AssertionError(f"it ended: {self._errors.read_text()}")

    def complained(self, what: str) -> None:
        until = time.monotonic() + 20
        while what not in (said := self._errors.read_text()):
            assert time.monotonic() < until, said
            time.sleep(0.02)

    def reload(self, text: str) -> None:
        self._config.write_text(text)
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> str:
        self._process.send_signal(signal.SIGTERM)
        rest, _ = self._process.communicate(timeout=40)
        assert self._process.returncode == 0, self._errors.read_text()
        return rest

    def kill(self) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def gateway(folder: Path, config: str, *options: str) -> Iterator[Process]:
    (folder / "gateway.toml").write_text(config)
    process = Process(folder, *options)
    try:
        yield process
    finally:
        process.kill()


def leading_to(provider: Provider, model: str, more: str = "") -> str:
    return (
        f'{more}\n[providers.one]\nbase_url = "{provider.url}"\n'
        f'[routes.m]\ntargets = [{{ provider = "one", model = "{model}" }}]\n'
    )

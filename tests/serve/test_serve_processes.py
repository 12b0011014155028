"""Benchmarks wait for a server as long as it gets on, and no longer."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO

import pytest
from bench import _serve_processes
from bench._serve_processes import STALLED_SECONDS, progress, until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands still but while somebody sleeps: then a quarter of the patience goes by."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)

    def sleep(seconds: float) -> None:
        clock.now += STALLED_SECONDS / 4

    clock.sleep = sleep
    monkeypatch.setattr(_serve_processes, "time", clock)
    return clock


@pytest.fixture
def said() -> Iterator[IO[str]]:
    with tempfile.NamedTemporaryFile("w+") as file:
        yield file


def started(code: str, said: IO[str]) -> subprocess.Popen[str]:
    """At the block's end its input does, and so does one that waits for a line."""
    return subprocess.Popen([sys.executable, "-c", code], stdout=said, stderr=said, stdin=subprocess.PIPE, text=True)


def test_one_that_gets_on_is_waited_for(clock: SimpleNamespace, said: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(100))
    monkeypatch.setattr(_serve_processes, "progress", lambda process, said: next(looks) // 3)
    answers = iter([None] * 40 + ["ready"])
    with started("input()", said) as process:
        assert until(lambda: next(answers), process, said) == "ready" and clock.now == 40 * STALLED_SECONDS / 4


def test_one_that_does_nothing_any_more_is_given_up(
    clock: SimpleNamespace, said: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serve_processes, "progress", lambda process, said: 0)
    with started("input()", said) as process, pytest.raises(RuntimeError, match="has done nothing for 120 s"):
        until(lambda: None, process, said)
    assert clock.now == 5 * STALLED_SECONDS / 4


def test_one_that_has_ended_is_told_with_its_last_words(said: IO[str]) -> None:
    with started("import sys; sys.exit('no such model')", said) as process:
        process.wait()
    with pytest.raises(RuntimeError, match=r"status 1(.|\n)*no such model"):
        until(lambda: None, process, said)


def test_words_and_processor_time_are_progress(said: IO[str]) -> None:
    with started("print('x', flush=True); input()\nwhile True: pass", said) as process:
        try:
            while progress(process, said)[0] < 2:
                assert process.poll() is None
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            before = progress(process, said)[1]
            while progress(process, said)[1] == before:
                assert process.poll() is None
        finally:
            process.kill()

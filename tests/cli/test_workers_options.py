"""When a training command starts its workers, and when it is one of them or the only one."""

from __future__ import annotations

import argparse
import os
import sys

import pytest

from windlass.cli import workers


def parsed(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    workers.add_options(parser)
    parser.add_argument("--check", action="store_true")
    return parser.parse_args(given)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    pytest.importorskip("torch")
    found: list[tuple[int, list[str]]] = []

    def launch(count: int, command: list[str]) -> int:
        found.append((count, command))
        return 7

    monkeypatch.setattr("windlass.build.training.distributed.launch.launch", launch)
    monkeypatch.setattr(sys, "argv", ["windlass", "tune", "chat", "--workers", "3"])
    monkeypatch.delenv("RANK", raising=False)
    return found


def test_several_workers_run_the_same_command(started: list[tuple[int, list[str]]]) -> None:
    assert workers.launched(parsed("--workers", "3")) == 7
    ((count, command),) = started
    assert count == 3 and command[1:] == ["-m", "windlass", "tune", "chat", "--workers", "3"]


@pytest.mark.parametrize("given", [(), ("--workers", "1"), ("--workers", "3", "--check")])
def test_one_worker_or_a_check_starts_nobody(given: tuple[str, ...], started: list[tuple[int, list[str]]]) -> None:
    assert workers.launched(parsed(*given)) is None and not started


def test_a_worker_starts_nobody_and_is_quiet(
    started: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "")  # so that what is set below is taken back
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL")
    assert workers.launched(parsed("--workers", "3")) is None and not started
    workers.quieten()
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "ERROR"

"""The demo as its user meets it: real documents, Ctrl-C in the middle, the same command again, wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windlass.cli import main as cli
from windlass.core.files import exclusive
from windlass.core.workspace import Workspace

MODULES = (
    "argparse",
    "textwrap",
    "shutil",
    "tempfile",
    "pathlib",
    "statistics",
    "calendar",
    "random",
    "sched",
    "string",
)
PACKAGES = ("json", "email", "logging", "http")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real Python modules with docstrings: enough for every stage, small enough for a test."""
    folder = tmp_path_factory.mktemp("documents") / "library"
    folder.mkdir()
    stdlib = Path(json.__file__).parents[1]
    for module in MODULES:
        shutil.copy(stdlib / f"{module}.py", folder)
    for package in PACKAGES:
        shutil.copytree(stdlib / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def command(library: Path, workspace: Path) -> list[str]:
    parts = ["-m", "windlass", "demo", "--docs", str(library), "--minutes", "0.2", "--workspace", str(workspace)]
    return [sys.executable, *parts]


@pytest.mark.slow
def test_the_demo_stops_goes_on_and_repeats_quickly(library: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(
        command(library, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert started.stdout is not None
    for line in started.stdout:
        if "embedding and head fitted" in line or "compiled" in line:
            break
    time.sleep(3)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 130, errors
    assert "The same command goes on from here" in errors
    assert "Traceback" not in errors

    second = subprocess.run(command(library, tmp_path), capture_output=True, text=True, timeout=500, env=environment)
    assert second.returncode == 0, second.stderr
    assert "(made by an earlier run)" in second.stdout
    for told in (
        "bits per byte",
        "POST /v1/embeddings        2 texts, 384 dimensions",
        "The documents do not hold an answer",
        "nDCG@10",
        "A deliberately worse candidate",
        "REFUSED",
        "longest context read in training",
    ):
        assert told in second.stdout, told

    began = time.monotonic()
    third = subprocess.run(command(library, tmp_path), capture_output=True, text=True, timeout=200, env=environment)
    assert third.returncode == 0, third.stderr
    assert third.stdout.count("(made by an earlier run)") >= 5
    assert "pre-training" not in third.stderr, "nothing is trained again"
    assert time.monotonic() - began < 90

    with Workspace(tmp_path) as ws:
        kinds = {record.kind for record in ws.store.artifacts()}
        assert kinds >= {
            "corpus",
            "tokenizer",
            "model",
            "dataset",
            "index",
            "adapter",
            "variant",
            "experiment",
            "report",
        }
        statuses = {run.status for run in ws.runs.list("pretrain")}
        assert statuses == {"done"}, "the interrupted run was taken up, not begun anew"


def test_an_empty_folder_is_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing").mkdir()
    status = cli.main(["demo", "--docs", str(tmp_path / "nothing"), "--workspace", str(tmp_path)])
    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert "There is nothing to read in" in lines[0]
    assert len(lines) == 2


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--docs", str(tmp_path / "absent"), "--workspace", str(tmp_path)]) == 2
    assert "absent does not exist" in capsys.readouterr().err


def test_a_second_demo_in_the_same_workspace_waits_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(tmp_path) as ws, exclusive(ws.root / "demo.lock", "the demo"):
        assert cli.main(["demo", "--docs", str(tmp_path), "--workspace", str(tmp_path)]) == 1
    assert f"Another process (pid {os.getpid()}) is already busy with the demo" in capsys.readouterr().err

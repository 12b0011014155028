"""`windlass tune` as a person types it: a look before training, and learning from the workspace's own traces."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tuned_world import echoes, make_home, write_rows

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.loop.feedback import give_feedback

QUICK = ("--set", "run.compile=no", "--set", "run.precision=fp32", "--steps", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("home"))
    write_rows(home / "rows.jsonl", echoes(40))
    return home


def say(home: Path, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert (
        main(["tune", *words, "--workspace", str(home), *(["--device", "cpu"] if words[0] == "chat" else [])]) == status
    )
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_a_check_prints_the_report_and_stops(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = str(home / "rows.jsonl")
    exam = f'data.evaluation=["{write_rows(home / "exam.jsonl", echoes(40)[:1])}"]'
    shown = say(home, capsys, "chat", "--base", "base", "--data", rows, *QUICK, "--check", "--set", exam)
    leaks, kept = re.search(r"leakage into evaluation +(\d+)", shown), re.search(r"curated: (\d+) of 40 rows", shown)
    assert leaks is not None and kept is not None  # the report is of what was given, before curation
    assert int(leaks[1]) == 40 - int(kept[1]) > 0
    for told in ("tokens learned", "exact duplicates", "memory in all", "parameters trained", "ready to train", "█"):
        assert told in shown
    with Workspace(home) as ws:
        assert not ws.runs.list("tune")


def test_traces_are_learned_from(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(home) as ws:
        for number, row in enumerate(echoes(30, seed=5)):
            with ws.recorder.span("painter", "chat") as span:
                span.input = [{"role": "user", "content": f"{row['messages'][0]['content']} {number}"}]
                span.output = row["messages"][1]
            ws.recorder.flush()
            give_feedback(ws, span.trace_id, good=number % 3 > 0)
    shown = say(home, capsys, "chat", "--base", "base", "--from", "traces", "--task", "painter", *QUICK)
    assert "conversations@1: 20 examples from traces (20 approved)" in shown
    assert "left out: 10 rejected without a better answer" in shown
    with Workspace(home) as ws:
        tuned = ws.artifacts.get("tuned")
        assert tuned.parent("dataset") == ws.artifacts.get("conversations").digest


def test_options_that_contradict_each_other_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = say(home, capsys, "chat", "--data", "x.jsonl", "--from", "traces", status=2)
    assert "Both --data and --from traces are given" in both
    alone = say(home, capsys, "chat", "--data", "x.jsonl", "--minimum", "0", status=2)
    assert "Add --from traces" in alone
    several = say(home, capsys, "chat", "--data", "x.jsonl", "--search", "2", "--workers", "2", status=2)
    assert "A search trains with one worker" in several
    assert "RANK" not in os.environ

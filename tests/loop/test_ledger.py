"""The ledger: a long job that is stopped goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from windlass.core.artifacts import Artifact
from windlass.core.workspace import Workspace
from windlass.loop.ledger import Ledger


def make(ws: Workspace, text: str) -> Artifact:
    with ws.artifacts.build("dataset", "notes") as draft:
        (draft.path / "items.jsonl").write_text(text, encoding="utf-8")
    return draft.done


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        ledger = Ledger(ws, "job")
        first = ledger.artifact("notes", lambda: make(ws, "one"))
        assert ledger.fresh
        assert ledger.value("count", lambda: 1) == 1
    with Workspace(tmp_path) as ws:
        again = Ledger(ws, "job")
        assert again.artifact("notes", lambda: pytest.fail("made twice")).digest == first.digest
        assert not again.fresh
        assert again.value("count", lambda: 2) == 1
        assert Ledger(ws, "another job").value("count", lambda: 2) == 2


def test_a_step_that_failed_is_done_again(tmp_path: Path) -> None:
    def fail() -> int:
        raise KeyboardInterrupt

    with Workspace(tmp_path) as ws:
        ledger = Ledger(ws, "job")
        with pytest.raises(KeyboardInterrupt):
            ledger.value("count", fail)
        assert Ledger(ws, "job").value("count", lambda: 3) == 3


def test_an_artifact_whose_files_were_lost_is_reported(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        ledger = Ledger(ws, "job")
        lost = ledger.artifact("notes", lambda: make(ws, "one"))
        shutil.rmtree(lost.path)
        with pytest.raises(Exception, match="missing"):
            Ledger(ws, "job").artifact("notes", lambda: make(ws, "one"))

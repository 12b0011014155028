"""`windlass exam`: derives, shows, and refuses what is neither a corpus nor an exam."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.documents import Document, Section, write_documents
from windlass.core.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path) -> Path:
    pages = []
    for i in range(30):
        text = f"# Page {i}\n\nThe turbine number {i} lifts water into basin {i * 7} on the hill. "
        text += f"It runs at night, when demand is low, and basin {i * 7} is emptied again at noon.\n"
        pages.append(Document(f"p{i}.md", f"p{i}.md", f"Page {i}", text, "markdown", (Section(0, 1, f"Page {i}"),)))
    with Workspace(tmp_path) as ws, ws.artifacts.build("corpus", "notes") as draft:
        write_documents(draft.path / "documents.jsonl", pages)
    return tmp_path


def test_exam_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exam", "notes", "--workspace", str(home)]) == 0
    printed = capsys.readouterr().out
    assert "exam@1" in printed
    assert "30 questions" in printed
    assert "Warning: Only" in printed
    assert main(["exam", "exam", "--show", "2", "--workspace", str(home)]) == 0
    assert capsys.readouterr().out.count("The turbine number") == 2


def test_exam_command_refuses_other_artifacts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(home) as ws, ws.artifacts.build("model", "m") as draft:
        (draft.path / "f").write_text("x", encoding="utf-8")
    assert main(["exam", "m", "--workspace", str(home)]) == 2
    assert "neither a corpus nor an exam" in capsys.readouterr().err
    assert main(["exam", "nothing", "--workspace", str(home)]) == 2

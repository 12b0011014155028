"""`windlass prompt` from a file to a labelled version and back, and what it says about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.workspace import Workspace


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["prompt", *arguments]) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_from_a_file_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Workspace(tmp_path).close()
    monkeypatch.chdir(tmp_path)
    assert "No prompts yet" in said(capsys, "list")
    Path("tone.md").write_text("Say how the writer felt.\n")
    assert said(capsys, "add", "tone.md", "--label", "live").startswith("tone@1 ")
    Path("tone.md").write_text("+++\ntemperature = 0.5\n+++\nSay how the writer felt.\n")
    Path("tone.examples.jsonl").write_text('{"inputs": {"review": "Lovely!"}, "answer": "good"}\n')
    assert "+temperature = 0.5" in said(capsys, "diff", "tone:live", "tone.md")
    assert "1 examples" in said(capsys, "add", "tone.md")
    assert said(capsys, "diff", "tone", "tone.md") == "No difference.\n"
    assert said(capsys, "label", "tone@2", "staging") == "tone:staging is tone@2 now.\n"
    rows = said(capsys, "list", "tone").splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["tone@2", "tone@1"]
    assert "staging" in rows[0] and "live" in rows[1]
    assert len(said(capsys, "list").splitlines()) == 3, "the newest only"
    shown = said(capsys, "show", "tone:staging")
    assert "tone@2" in shown and "(staging)" in shown and "temperature = 0.5" in shown and "Lovely!" in shown
    said(capsys, "show", "tone:staging", "--out", "copy.md")
    for one, other in (("tone.md", "copy.md"), ("tone.examples.jsonl", "copy.examples.jsonl")):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    said(capsys, "label", "tone@2", "live", "--reason", "it reads better")
    assert main(["releases", "tone"]) == 0 and "it reads better" in capsys.readouterr().out
    assert main(["rollback", "tone"]) == 0
    assert "(live)" in said(capsys, "show", "tone@1")
    for wrong in (["show", "tone:nowhere"], ["add", "none.md"], ["label", "tone@9", "live"], ["label", "tone@1", "A"]):
        assert said(capsys, *wrong, status=2).startswith("windlass: ")

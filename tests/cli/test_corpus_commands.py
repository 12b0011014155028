"""`windlass corpus` and `windlass tokenizer`, as a person types them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from windlass.cli.main import main

PACKAGE = Path(__file__).parents[2] / "src" / "windlass" / "core"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    capsys.readouterr()
    return tmp_path


def test_from_a_folder_to_a_measured_tokenizer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "docs").mkdir()
    for file in PACKAGE.glob("*.py"):
        (home / "docs" / file.name).write_text(file.read_text())
    (home / "docs" / "picture.png").write_bytes(b"\x89PNG")
    (home / "docs" / "empty.md").write_text("")
    assert main(["corpus", "docs", "--name", "mine", "--heldout", "0.3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine@1 · ") and "the folder docs" in out
    assert "of a type that windlass does not read" in out and "empty.md" in out
    assert main(["corpus", "--show", "mine", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["read"]["files"] == len(list(PACKAGE.glob("*.py"))) + 1
    assert main(["tokenizer", "train", "mine", "--vocab", "512"]) == 0
    assert "512 of 512 tokens" in capsys.readouterr().out
    assert main(["tokenizer", "eval", "tokenizer", "mine"]) == 0
    assert "bytes/token" in capsys.readouterr().out


def test_files_of_rows_and_several_sources(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"body": f"Row {i} says something that no other row says: {i * 7919}.", "key": f"k{i}"} for i in range(4)]
    (home / "rows.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    (home / "page.md").write_text("# Page\n\nA page with text that is long enough to be kept by the corpus.\n")
    (home / "lib.rs").write_text("// A program in another language, long enough to be kept.\nfn main() {}\n")
    assert main(["corpus", "rows.jsonl.gz"]) == 2
    assert "4 row without a field 'text'. First: rows.jsonl.gz:1" in capsys.readouterr().err
    assert main(["corpus", "rows.jsonl.gz", "page.md", "lib.rs", "--text", "body", "--id", "key", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kept"]["page"]["documents"] == 5 and report["kept"]["source"]["documents"] == 1
    assert report["read"]["files"] == 3
    assert main(["corpus", "page.md", "page.md"]) == 2
    assert "2 sources of the recipe are called 'page.md'" in capsys.readouterr().err


def test_a_corpus_makes_its_workspace_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["corpus", "nowhere"]) == 2 and not (tmp_path / ".windlass").exists()
    (tmp_path / "play.txt").write_text("To be, or not to be, that is the question that he asked himself.\n" * 9)
    assert main(["corpus", "play.txt"]) == 0
    out, err = capsys.readouterr()
    assert "made one in" in err and "Next: windlass tokenizer train corpus" in out
    assert "Nothing is held out, so that no model trained on this can be scored." in out
    assert main(["corpus", "play.txt", "--heldout", "0", "--workspace", str(tmp_path)]) == 0
    assert "Nothing is held out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["corpus", "nowhere"], "nowhere does not exist."),
        (["corpus", "empty"], "There is nothing to read in empty: it is empty."),
        (["corpus", "--show", "nothing"], "There is no artifact 'nothing'"),
        (["tokenizer", "train", "nothing"], "There is no artifact 'nothing'"),
    ],
)
def test_errors_are_two_lines(home: Path, capsys: pytest.CaptureFixture[str], command: list[str], message: str) -> None:
    (home / "empty").mkdir()
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err
    assert len(captured.err.strip().split("\n")) == 2


def test_an_artifact_of_another_kind_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "docs").mkdir()
    (home / "docs" / "page.md").write_text("# Page\n\nA page with text that is long enough to be kept by the corpus.\n")
    assert main(["corpus", "docs"]) == 0
    capsys.readouterr()
    assert main(["tokenizer", "eval", "corpus", "corpus"]) == 2
    captured = capsys.readouterr()
    assert "corpus@1 (corpus) holds no tokenizer.json" in captured.err and captured.out == ""
    assert main(["tokenizer", "train", "corpus", "--vocab", "400"]) == 2
    assert "A vocabulary of 400 tokens is larger than the text supports" in capsys.readouterr().err
    assert main(["tokenizer", "train", "corpus", "--vocab", "400", "--allow-smaller"]) == 0
    assert "tokens from 0.00 MB" in capsys.readouterr().out
    assert main(["tokenizer", "eval", "tokenizer", "corpus"]) == 2
    assert "corpus@1 holds nothing out." in capsys.readouterr().err

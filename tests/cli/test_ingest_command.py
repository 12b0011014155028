"""`windlass ingest` and `windlass ask` as a person uses them: real files, and once a real process that watches."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windlass.apply.rag.indexes.live import EmbeddedIndex
from windlass.cli.main import main

pytest.importorskip("torch")

PUMP = "# Pump\n\nThe red pump moves nine litres of water in a minute.\n"
SALARY = "# Salaries\n\nThe salary of the miller is ninety crowns a month.\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "hr").mkdir(parents=True)
    (tmp_path / "docs" / "pump.md").write_text(PUMP)
    (tmp_path / "docs" / "hr" / "salary.md").write_text(SALARY)
    return tmp_path


def ingest(*more: str) -> int:
    return main(["ingest", *more, "--embedder", "hashing"])


def test_two_commands_in_an_empty_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest("docs/") == 0
    out = capsys.readouterr().out
    assert "docs holds 2 documents" in out and 'windlass ask "…"' in out
    assert main(["ask", "How much water does the red pump move?"]) == 0
    out = capsys.readouterr().out
    assert "nine litres of water" in out and "[1] Pump (docs/pump.md, characters " in out
    assert "from docs, 2 passages · trace " in out
    assert main(["ask", "How much water does the red pump move?", "--json", "--name", "docs", "-k", "1"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["from"] == "docs, 2 passages" and value["citations"][0]["document"] == "docs/pump.md"


def test_labels_decide_who_gets_an_answer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "access.toml").write_text('"hr/**" = ["hr"]\n')
    assert ingest("docs", "--access", "access.toml", "--label", "team=mills") == 0
    assert "for those with 'hr'" in capsys.readouterr().out
    question = "What is the salary of the miller?"
    for more, answered in (([], False), (["--as", "hr"], True), (["--as", "other"], False)):
        assert main(["ask", question, *more, "--json"]) == 0
        assert ("ninety crowns" in capsys.readouterr().out) is answered
    assert main(["ask", question, "--as", "hr", "--where", "team=mills"]) == 0
    assert "ninety crowns" in capsys.readouterr().out
    assert ingest("docs") == 0
    assert "access of docs as before" in capsys.readouterr().out
    assert main(["ask", question, "--json"]) == 0
    assert "ninety crowns" not in capsys.readouterr().out


def test_the_report_names_everything(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "docs" / "copy.md").write_text(PUMP)
    (home / "docs" / "picture.png").write_text("x")
    (home / "docs" / "rows.jsonl").write_text('{"text": "A row about water."}\n')
    assert ingest("docs", "--report", "report.json") == 0
    out = capsys.readouterr().out
    assert "docs/picture.png: of a type that windlass does not read" in out
    assert "docs/pump.md holds the same text as docs/copy.md" in out
    report = json.loads((home / "report.json").read_text())
    assert report["added"] == report["documents"] == 4 and report["parts"]["rows"] == 1
    assert [line["file"] for line in report["each"]] == [
        "docs/copy.md", "docs/hr/salary.md", "docs/pump.md", "docs/rows.jsonl"
    ]  # fmt: skip
    assert ingest("--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["files_as_before"] == 4 and again["embedded"] == 0 and set(again["stages"]) == {"read", "embed", "put"}


def test_living_indexes_from_their_making_to_their_end(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0 and main(["index", "list"]) == 0
    assert "No living index" in capsys.readouterr().out
    assert ingest("docs/hr", "--access", "hr", "--label", "team=mills") == 0
    capsys.readouterr()
    assert main(["index", "list"]) == 0
    assert "docs" in (out := capsys.readouterr().out) and "docs/hr" in out and "hashing" in out
    assert main(["index", "show", "docs"]) == 0
    assert "1 document, 1 passage " in (out := capsys.readouterr().out) and "** for hr" in out and "team=mills" in out
    assert main(["index", "search", "docs", "salary"]) == 0 and "0 of 1 passages" in capsys.readouterr().out
    assert main(["index", "search", "docs", "salary", "--as", "hr"]) == 0 and "miller" in capsys.readouterr().out
    assert main(["index", "snapshot", "docs", "--to", "frozen"]) == 0 and "frozen@1" in capsys.readouterr().out
    assert main(["index", "delete", "docs"]) == 0 and main(["ask", "x?"]) == 2
    assert main(["index", "show", "docs"]) == 2 and "no living index 'docs'" in capsys.readouterr().err


def test_a_search_that_looks_at_fewer_vectors(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ingest("docs", "--quantised", "int8") == 0 and main(["index", "ann", "docs"]) == 2
    assert "are for 10,000 and more" in capsys.readouterr().err
    monkeypatch.setitem(EmbeddedIndex.make_cells.__kwdefaults__, "least", 1)
    assert main(["index", "ann", "docs", "--recall", "1.5"]) == 2 and "cannot be reached" in capsys.readouterr().err
    assert main(["index", "show", "docs"]) == 0 and "vectors int8 · ann off" in capsys.readouterr().out
    assert main(["index", "ann", "docs"]) == 0 and "2 vectors" in capsys.readouterr().out
    assert main(["index", "show", "docs"]) == 0 and "of the ten nearest" in capsys.readouterr().out
    assert main(["index", "search", "docs", "salary of the miller"]) == 0 and "2 of 2" in capsys.readouterr().out
    assert main(["index", "ann", "docs", "--off"]) == 0 and "every vector" in capsys.readouterr().out
    assert main(["index", "show", "docs"]) == 0 and "ann off" in capsys.readouterr().out
    assert main(["index", "ann", "gone"]) == 2 and "no living index 'gone'" in capsys.readouterr().err


def test_which_of_several_indexes_answers_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest("docs") == 0 and ingest("docs/hr", "--name", "pay") == 0
    capsys.readouterr()
    assert main(["ask", "What is the salary of the miller?"]) == 0
    assert "from pay, 1 passage (the one ingested into last; --name docs asks the other)" in capsys.readouterr().out
    assert main(["ask", "What is the salary of the miller?", "--name", "docs"]) == 0
    assert "from docs, 2 passages · trace" in capsys.readouterr().out


def test_a_dry_run_says_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest("docs", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "would be added" in out and "Nothing was done" in out
    assert main(["ask", "pump?"]) == 2
    assert "No workspace in" in capsys.readouterr().err


def test_a_dry_run_leaves_nothing_behind(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest("docs", "--dry-run") == 0
    assert "docs: docs, " in capsys.readouterr().out
    assert [path.name for path in home.iterdir()] == ["docs"]
    assert ingest("docs", "--name", "one") == 0 and ingest("docs", "--dry-run") == 0
    capsys.readouterr()
    assert main(["index", "list"]) == 0
    assert "one" in (out := capsys.readouterr().out) and len(out.splitlines()) == 3


def test_the_list_tells_how_much_each_index_holds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest("docs") == 0 and ingest("docs/hr", "--name", "pay", "--index", "elsewhere/pay") == 0
    capsys.readouterr()
    assert main(["index", "list"]) == 0
    head, _, pay, docs = capsys.readouterr().out.splitlines()
    columns = ["name", "documents", "passages", "size", "last ingest", "embedder", "ingested from", "lies"]
    assert re.split(" {2,}", head) == columns
    assert docs.split()[:3] == ["docs", "2", "2"] and "kB" in docs and "s ago" in docs and docs.endswith("here")
    assert pay.split()[:3] == ["pay", "1", "1"] and pay.endswith("elsewhere/pay")
    (home / "elsewhere/pay/index.db").write_bytes(b"no database")
    assert main(["index", "list"]) == 1
    out, err = capsys.readouterr()
    assert "pay" in out and "docs" in out and err.startswith("pay: The index file ") and "damaged" in err


def test_an_index_that_lies_elsewhere_is_found_from_every_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest("docs", "--index", "elsewhere") == 0
    monkeypatch.chdir(home / "docs")
    assert main(["ask", "How much water does the red pump move?"]) == 0
    assert "nine litres" in capsys.readouterr().out
    assert not Path("elsewhere").exists()
    assert main(["ingest", "--index", "../elsewhere"]) == 0
    (home / "elsewhere/index.db").unlink()
    capsys.readouterr()
    assert main(["ask", "How much water does the red pump move?"]) == 2
    err = capsys.readouterr().err
    assert "and is there no more" in err and "windlass index delete docs" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Nothing to ingest was named"),
        (["gone"], "does not exist"),
        (["docs", "--label", "team"], "KEY=VALUE"),
        (["docs", "--label", "kind=x"], "cannot be labelled 'kind'"),
        (["docs", "--access", "gone.toml"], "cannot be read"),
        (["docs", "--access", "hr", "--public"], "--public"),
        (["docs", "--name", "../up"], "cannot be called"),
        (["docs", "--watch", "--every", "0"], "no time to wait"),
        (["docs", "--chunks", "jigsaw"], "jigsaw"),
        (["docs", "--chunks", "contextual"], "--budget"),
        (["docs", "--chunks", "contextual", "--budget", "9"], "has no base_url"),
        (["--urls", "docs/pump.md", "--chunks", "fixed"], "nothing to read"),
    ],
)
def test_mistakes_are_said_plainly(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest(*arguments) == 2
    assert says in capsys.readouterr().err


def test_a_path_that_is_misspelt_leaves_no_workspace_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert ingest("gone") == 2 and "gone does not exist" in capsys.readouterr().err
    assert ingest() == 2 and "Nothing to ingest was named" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_ctrl_c_ends_after_the_running_batch_with_a_clear_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        (home / "docs" / f"{number:02}.md").write_text(f"# Page {number}\n\nPump number {number} is red.\n")
    monkeypatch.setattr("windlass.apply.rag.ingest.ingesting._BATCH", 1)
    put = EmbeddedIndex.put

    def interrupted(index: EmbeddedIndex, entries: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        put(index, entries)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddedIndex, "put", interrupted)
    assert ingest("docs") == 130
    out = capsys.readouterr().out
    assert "Stopped after the batch that was under way. The same command goes on from here." in out
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert ingest("docs", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["holds_documents"] == 14 and 0 < report["added"] < 14


def waited(process: subprocess.Popen[str], words: str, lines: list[str]) -> None:
    """Reads what the process says until these words come."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return
    raise AssertionError(f"'{words}' did not come:\n{''.join(lines)}")


def answer(question: str) -> str:
    command = [sys.executable, "-m", "windlass", "ask", question]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_process_that_watches_follows_the_folder(home: Path) -> None:
    command = [sys.executable, "-m", "windlass", "ingest", "docs", "--watch", "--every", "0.1", "--embedder", "hashing"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    )
    lines: list[str] = []
    try:
        waited(process, "Watching docs", lines)
        assert "nine litres" in answer("How much water does the red pump move?")
        (home / "docs" / "pump.md").write_text(PUMP.replace("nine", "twelve"))
        (home / "docs" / "hr" / "salary.md").unlink()
        waited(process, "Watching docs", lines)
        said = "".join(lines)
        while "documents removed" not in said or "changed" not in said:  # the two may be seen apart
            waited(process, "Watching docs", lines)
            said = "".join(lines)
        assert "twelve litres" in answer("How much water does the red pump move?")
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        process.communicate(timeout=60)
        assert process.returncode == 130 and time.monotonic() - started < 30
    finally:
        process.kill()
        process.wait()

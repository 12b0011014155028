"""The two tasks from practice, end to end against a provider on this machine; and for real where one is set up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apply.provider_world import Loopback, reply

from windlass.apply.providers import known
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.tasks import Surroundings, surrounded
from windlass.apply.tasks.loading import load_task
from windlass.cli.main import main
from windlass.core.workspace import Workspace

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTES = "Met Ana of Acme (ana@acme.example) at the fair. Wants 20 seats, asked us for an offer by May 5."
RECORD = {
    "company": "Acme", "contact": "Ana", "email": "ana@acme.example", "seats": 20, "stage": "qualified",
    "next_step": "send an offer", "due": "2026-05-05", "evidence": "asked us for an offer",
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.chdir(tmp_path)
    with Loopback() as loopback, Workspace(tmp_path) as ws:
        around = Surroundings(ws, resolve=lambda name: known.at(loopback.url, "m"))
        with surrounded(around):
            yield loopback


def said(*values: Any) -> list[tuple[int, dict[str, str], bytes]]:
    return [reply(json.dumps(value, ensure_ascii=False)) for value in values]


def test_each_is_short() -> None:
    for path in (EXAMPLES / "crm.py", EXAMPLES / "crossword.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 40


def test_a_record_whose_evidence_is_made_up_is_asked_for_again(server: Loopback) -> None:
    server.answer(*said(RECORD | {"evidence": "wants an offer"}, RECORD))
    outcome = load_task(f"{EXAMPLES}/crm.py").using(model="ollama:m").run(NOTES, "2026-04-01")
    assert outcome.value.due.isoformat() == "2026-05-05" and outcome.value.evidence in NOTES
    assert len(outcome.attempts) == 2 and "does not stand in the notes" in outcome.attempts[0].problems[0]
    assert server.bodies()[1]["messages"][-1]["content"].count("copy it letter by letter") == 1


def entry(word: str, picture: str) -> dict[str, str]:
    return {"word": word, "hint": "It keeps the ship in place.", "picture": picture}


@pytest.mark.parametrize("wrong", ["⚓ ship", "⚓", "⚓2", "1️⃣a", ":)", "⚓" * 6])
def test_a_picture_that_is_not_emoji_is_asked_for_again(server: Loopback, wrong: str) -> None:
    right = entry("ANCHOR", "⚓🚢")
    server.answer(*said({"value": [entry("ANCHOR", wrong)]}, {"value": [right]}))
    outcome = load_task(f"{EXAMPLES}/crossword.py").using(model="ollama:m").run("harbour", 1)
    assert [one.picture for one in outcome.value] == ["⚓🚢"] and len(outcome.attempts) == 2


@pytest.mark.parametrize("picture", ["👩‍🚀🚀", "🏳️‍🌈👍🏽", "🇫🇷1️⃣", "👨‍👩‍👧‍👦❤️"])  # joined, tinted, flags, keycaps
def test_sequences_of_emoji_are_known(server: Loopback, picture: str) -> None:
    server.answer(*said({"value": [entry("ANCHOR", picture)]}))
    outcome = load_task(f"{EXAMPLES}/crossword.py").using(model="ollama:m").run("harbour", 1)
    assert len(outcome.attempts) == 1


def test_on_the_command_line(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "windlass.toml").write_text(f'[model]\nbase_url = "{server.url}"\nmodel = "m"\n')
    server.answer(*said(RECORD))
    place = f"{EXAMPLES}/crm.py"
    assert main(["run", place, "--input", f"notes={NOTES}", "--input", "today=2026-04-01"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["seats"] == 20 and "29 tokens, cost not known" in err
    assert main(["task", "list", place]) == 0 and "crm_record" in capsys.readouterr().out
    assert main(["task", "show", place]) == 0 and "Fill in a CRM record" in capsys.readouterr().out
    items = tmp_path / "items.jsonl"
    inputs = {"notes": NOTES, "today": "2026-04-01"}
    other = {**inputs, "today": "2026-04-02"}
    rows = [{"inputs": inputs, "expected": RECORD}, {"inputs": other, "expected": RECORD | {"seats": 2}}]
    items.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["eval", place, str(items)]) == 0
    out = capsys.readouterr().out
    assert "equal" in out and "0.500" in out and '"seats": 2' in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["run", "none.py"], "no file none.py"),
        (["run", "{crm}:none"], "no task 'none'"),
        (["run", "{crm}", "--input", "hello"], "names no input"),
        (["run", "{crm}", "--input", "notes=x"], "missing a required argument: 'today'"),
        (["run", "{crm}", "--input", "notes=x", "--input", "today=soon"], "'today' is not of its type"),
        (["run", "{crm}", "--input", "notes=x", "--input", "today=2026-01-01", "--set", "temprature=1"], "no setting"),
        (["run", "{crm}", "--input", "notes=x", "--input", "today=2026-01-01", "--model", "acme:x"], "no provider"),
        (["run", "{broken}"], "cannot be run: SyntaxError"),
        (["run", "{empty}"], "holds 0 tasks"),
        (["eval", "{crm}", "{empty}"], "no items"),
        (["eval", "{crm}", "{broken}"], "line 1 is not JSON"),
    ],
)
def test_bad_input_is_one_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "empty.py").write_text("")
    places = {"crm": f"{EXAMPLES}/crm.py", "broken": "broken.py", "empty": "empty.py"}
    assert main([argument.format(**places) for argument in arguments]) != 0
    err = capsys.readouterr().err
    assert why in err and "Traceback" not in err


@pytest.fixture
def real() -> Iterator[RemoteChat]:
    """See docs/testing.md."""
    if not (name := os.environ.get("WINDLASS_TEST_MODEL")):
        pytest.skip("WINDLASS_TEST_MODEL names no model (provider:name) to ask for real")
    with contextlib.closing(known.model(name)) as chat:
        yield chat


def test_a_record_for_real(real: RemoteChat) -> None:
    outcome = load_task(f"{EXAMPLES}/crm.py").using(model=real).run(NOTES, "2026-04-01")
    assert outcome.value.seats == 20 and outcome.value.evidence in NOTES and outcome.usage.total


def test_a_crossword_for_real(real: RemoteChat) -> None:
    outcome = load_task(f"{EXAMPLES}/crossword.py").using(model=real, attempts=5).run("harbour", 3)
    assert len({entry.word for entry in outcome.value}) == 3

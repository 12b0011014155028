"""The support bot and the knowledge bot, as their pages say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.loop.assistants.assemble import load_models
from windlass.loop.chatting import chat_model
from windlass.loop.slack.access import Access

EXAMPLES = Path(__file__).parents[2] / "examples"
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    monkeypatch.chdir(tmp_path)

    def asked(question: str, *options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["ask", question, "--json", *options]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return asked


def ingest(example: str, folder: str, *options: str) -> None:
    for path in (EXAMPLES / example).iterdir():
        if path.is_dir():
            shutil.copytree(path, path.name)
        else:
            shutil.copy(path, path.name)
    assert main(["ingest", folder, *options]) == 0


def test_the_support_bot_answers_with_its_sources(ask: Ask) -> None:
    ingest("support_bot", "docs/", "--name", "support")
    answer = ask("The screen shows E5, what now?")
    assert answer["citations"][0]["source"] == "docs/network.md" and "E5" in answer["answer"]
    answer = ask("How long does the warranty of the mast last?")
    assert answer["citations"][0]["source"] == "docs/returns.md" and "two years for the mast" in answer["answer"]
    with Workspace(Path()) as ws:
        assert list(load_models(ws, ["support"])) == ["support"]
        with chat_model(ws, "support") as model:
            assert model.name == "assistant"


def test_two_people_get_two_answers(ask: Ask) -> None:
    ingest("knowledge_bot", "documents/", "--name", "company", "--access", "access.toml")
    question = "How much is the budget for new people?"
    board, nobody, hr = (ask(question, *labels) for labels in (("--as", "board"), (), ("--as", "hr")))
    assert "640,000 euros" in board["answer"] and board["citations"][0]["source"].endswith("finance/plan.md")
    for other in (nobody, hr):
        assert not any("finance" in citation["source"] for citation in other["citations"])
        assert "640,000" not in json.dumps(other)
    public = ask("How many days of holiday are there?")
    assert "28 days" in public["answer"]
    assert Access.read(Path("slack-access.toml")).channels["C0ONCALL"] == ("engineering",)

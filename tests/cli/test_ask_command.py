from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import build_index
from windlass.cli.main import main
from windlass.core.documents import Document, Section, write_documents
from windlass.core.workspace import Workspace

pytest.importorskip("torch")
from windlass.loop.assistants.variant import VariantSpec, make_variant

TEXT = "# Pump\n\nThe red pump moves nine litres of water in a minute."


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("windlass.serve.encoders.embedder.MiniLM.load", lambda **_: HashingEmbedder())
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("corpus", "corpus") as draft:
            page = Document("pump", "pump.md", "Manual", TEXT, "markdown", [Section(0, 1, "Pump")])
            write_documents(draft.path / "documents.jsonl", [page])
        index = build_index(ws, draft.done, HashingEmbedder())
        for name, threshold in (("bold", 0.0), ("shy", 1.0)):
            settings = AssistantSettings(abstention=AbstentionRule(threshold=threshold))
            make_variant(ws, VariantSpec(settings=settings), index, name=name)
    yield tmp_path


def test_an_answer_has_citations_and_a_trace(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "How much water does the red pump move?", "--variant", "bold"]) == 0
    out = capsys.readouterr().out
    assert "nine litres of water" in out and "[1] Manual > Pump (pump.md, characters " in out
    trace = out.strip().split()[-1]
    with Workspace(home) as ws:
        assert {span.name for span in ws.store.trace(trace)} == {"assistant", "embed", "retrieve", "quote"}


def test_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "red pump water", "--variant", "bold", "--k", "1", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    first = value["citations"][0]
    assert TEXT[first["start"] : first["end"]] == first["quote"] and value["abstained"] is False
    assert value["cost_usd"] is None and len(value["trace"]) == 32


def test_an_abstention_is_said_plainly_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "red pump water", "--variant", "shy"]) == 0
    assert capsys.readouterr().out.startswith("I abstain. The documents do not hold an answer")


def test_mistakes_are_said_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (["ask", "x"], "windlass"),  # nothing is released yet
        (["ask", " ", "--variant", "bold"], "no question"),
        (["ask", "x", "--variant", "bold", "-k", "0"], "k is 0"),
        (["ask", "x", "--variant", "corpus"], "not a variant"),
    ):
        assert main(arguments) == 2
        assert says in capsys.readouterr().err

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.cli.main import main
from windlass.core.documents import Document, write_documents
from windlass.core.workspace import Workspace

pytest.importorskip("torch")
DOCUMENTS = [
    Document("pump", "pump.md", "Pump", "The pump moves water uphill.", metadata={"kind": "page"}),
    Document("oven", "oven.md", "Oven", "Bread rises in the oven.", metadata={"kind": "note"}),
]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("windlass.serve.encoders.embedder.MiniLM.load", lambda **_: HashingEmbedder())
    with Workspace(tmp_path) as ws, ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", DOCUMENTS)
    return tmp_path


def test_build_then_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "build", "corpus"]) == 0
    out = capsys.readouterr().out
    assert "index@1" in out and "documents" in out and "passages" in out
    assert main(["index", "search", "index", "where does bread rise?", "-k", "1"]) == 0
    out = capsys.readouterr().out
    assert "oven" in out and "0-24" in out and "1 of 2 passages" in out


def test_documents_are_cut_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "build", "corpus", "--chunks", "fixed:target=15,overlap=0"]) == 0
    capsys.readouterr()
    assert main(["index", "search", "index", "where does bread rise?", "-k", "1"]) == 0
    assert "1 of 4 passages" in capsys.readouterr().out


def test_hits_as_json_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    main(["index", "build", "corpus"])
    capsys.readouterr()
    assert main(["index", "search", "index", "bread", "--where", "kind=page", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert [hit["citation"]["quote"] for hit in hits] == ["The pump moves water uphill."]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "nothing"], "no artifact 'nothing'"),
        (["build", "corpus", "--kinds", "api"], "Nothing to index"),
        (["build", "corpus", "--chunks", "jigsaw"], "named 'jigsaw'"),
        (["build", "corpus", "--chunks", "contextual"], "windlass ingest"),
        (["search", "corpus", "x"], "no index"),
        (["search", "index", "x", "--where", "kind"], "KEY=VALUE"),
        (["search", "index", "x", "--where", "colour=red"], "has 'colour'"),
        (["search", "index", " "], "empty"),
    ],
)
def test_mistakes_are_said_plainly(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["index", "build", "corpus"])
    assert main(["index", *arguments]) == 2
    assert says in capsys.readouterr().err

"""Rows for a reranker out of an index: of users' questions first, never of what is measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import build_index
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, write_documents
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.ranking import ranking_dataset

TEXTS = {
    "pump": "The red pump moves nine litres of water. It must be oiled by hand each Monday morning.",
    "bread": "Bread rises in the oven for forty minutes. Salt goes into the dough before the yeast does.",
    "violin": "A violin has four strings made of steel. The bow is drawn across them by the right hand.",
    "secret": "The safe opens with the number of the house. Nobody but the staff may ever know that.",
}


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


def indexed(ws: Workspace, names: list[str]) -> Artifact:
    documents = [
        Document(name, f"{name}.txt", "", TEXTS[name], metadata={"access": ["staff"]} if name == "secret" else {})
        for name in names
    ]
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", documents)
    return build_index(ws, draft.done, HashingEmbedder())


def asked(ws: Workspace, *items: dict[str, Any]) -> Artifact:
    with ws.artifacts.build("dataset", "harvest") as draft:
        (draft.path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return draft.done


def rows_in(dataset: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dataset.path / "items.jsonl").read_text().splitlines()]


def test_users_questions_and_the_documents_own(ws: Workspace) -> None:
    index = indexed(ws, list(TEXTS))
    harvest = asked(
        ws,
        {"question": "how often is the pump oiled?", "document": "pump", "split": "harvest"},
        {"question": "when is the violin tuned?", "document": "violin", "split": "test"},
        {"question": "what is the weather?", "document": None},
        {"question": "who has the key?", "document": "gone"},
    )
    dataset = ranking_dataset(ws, index, HashingEmbedder(), questions=harvest)
    found = rows_in(dataset)
    assert found[0]["query"] == "how often is the pump oiled?" and "oiled by hand" in found[0]["positive"][0]
    assert len(found) == 4 and dataset.card["from_users"] == 1 and dataset.card["asked_by_the_documents"] == 3
    assert dataset.card["without_a_passage"] == 1
    assert not any("violin tuned" in row["query"] for row in found)
    said = json.dumps(found)
    assert "safe opens" not in said and "Nobody but" not in said, "what only some may see is not learned from"
    assert dataset.digest == ranking_dataset(ws, index, HashingEmbedder(), questions=harvest).digest
    assert len(rows_in(ranking_dataset(ws, index, HashingEmbedder(), questions=harvest, most=2))) == 1


def test_what_teaches_nothing_is_refused(ws: Workspace) -> None:
    with pytest.raises(InputError, match="nothing to learn ranking from"):
        ranking_dataset(ws, indexed(ws, ["pump"]), HashingEmbedder())
    with pytest.raises(InputError, match="line 1: not a question"):
        ranking_dataset(ws, indexed(ws, ["pump", "bread"]), HashingEmbedder(), questions=asked(ws, {"answer": "x"}))

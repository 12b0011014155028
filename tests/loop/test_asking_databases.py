"""Living indexes in PostgreSQL and in Qdrant are ingested into and asked like one in a folder."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import _postgres_server

from windlass.apply.assistant import Assistant
from windlass.apply.rag.ingest.access import AccessRules
from windlass.core.errors import Unsupported
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.core.workspace import Workspace
from windlass.loop import living
from windlass.loop.assistants.assemble import load_living
from windlass.loop.ingesting import Wishes, opened_for_ingest

if (why := _postgres_server.missing()) is not None:
    pytest.skip(why, allow_module_level=True)

DOCUMENTS = {
    "manual/pump.md": "# Pump\n\nThe red pump moves nine litres of water in a minute. It must be oiled each week.",
    "manual/care.md": "# Care\n\nStore the pump dry. Never let the tank freeze, and empty it before winter.",
    "bread.txt": "Bread rises in the oven for forty minutes. The dough rests for an hour before.",
    "hr/pay.md": "# Pay\n\nPay day is the last Friday of a month. Overtime of the night shift is paid double.",
}
QUESTIONS = [
    "How many litres of water does the red pump move?",
    "How long does bread rise in the oven?",
    "When is pay day?",
    "Who painted the ceiling of the chapel?",
]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    for name, text in DOCUMENTS.items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text(text)
    with Workspace(tmp_path) as workspace:
        yield workspace


def answers(assistant: Assistant) -> list[ChatResponse]:
    return [
        assistant.complete(ChatRequest([Message("user", question)], extra={"access": labels}))
        for question in QUESTIONS
        for labels in ([], ["staff"])
    ]


def test_it_answers_as_an_index_in_a_folder_does(ws: Workspace) -> None:
    dsn = f"{_postgres_server.shared().dsn}#{uuid.uuid4().hex}"
    said = {}
    for name, where in (("folder", ""), ("database", dsn)):
        wishes = Wishes(
            [ws.home / "docs"], embedder="hashing", access=AccessRules((("hr/**", ("staff",)),)), where=where or None
        )
        with opened_for_ingest(ws, name, wishes) as into:
            into.ingest()
        with opened_for_ingest(ws, name, wishes) as into:
            assert into.ingest().changed == 0, "what is there already costs nothing"
        assistant = load_living(ws, name)
        said[name] = answers(assistant)
        assistant.index.close()  # type: ignore[attr-defined]
    for ours, theirs in zip(said["database"], said["folder"], strict=True):
        assert (ours.message.text, ours.citations) == (theirs.message.text, theirs.citations)
    right(said["database"])


def test_a_database_makes_no_cells(ws: Workspace) -> None:
    where = f"{_postgres_server.shared().dsn}#{uuid.uuid4().hex}"
    with opened_for_ingest(ws, "database", Wishes([ws.home / "docs"], embedder="hashing", where=where)) as into:
        into.ingest()
    with pytest.raises(Unsupported, match="lies in a database"):
        living.open_embedded(ws, "database")


def right(said: list[ChatResponse]) -> None:
    texts = [answer.message.text for answer in said]
    assert "nine litres" in texts[0] and "Friday" not in texts[4] and "Friday" in texts[5]


def test_one_in_qdrant_answers_as_well(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client")
    from windlass.apply.rag.embedding.hashing import HashingEmbedder
    from windlass.apply.rag.indexes.qdrant import MEMORY, QdrantIndex

    index = QdrantIndex(MEMORY, HashingEmbedder())
    monkeypatch.setattr(index, "close", lambda: None)  # in memory it would be gone
    monkeypatch.setattr(living, "open_index", lambda *_, **__: index)
    rules = AccessRules((("hr/**", ("staff",)),))
    wishes = Wishes([ws.home / "docs"], embedder="hashing", access=rules, where="qdrant+http://127.0.0.1:6333")
    with opened_for_ingest(ws, "docs", wishes) as into:
        assert into.ingest().added == len(DOCUMENTS)
    assistant = load_living(ws)
    right(answers(assistant))
    everything = assistant.index.passages(access=["staff"])
    assert {c.source for c in everything} == {f"docs/{name}" for name in DOCUMENTS}
    assert assistant.index.characters == sum(len(c.quote) for c in everything)
    ids = [hit.passage for hit in index.search("red pump", 1)]
    assert index.coverage("red pump", ids) == 1.0 and 0 < index.coverage("red violin", ids) < 0.6
    assert index.coverage("how does the", ids) == index.coverage("violin", []) == 0.0

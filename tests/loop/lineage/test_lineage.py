"""The chain from answers, tokens and artifacts back to documents, on a small workspace that holds the real things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import build_index
from windlass.apply.rag.indexes.live import EmbeddedIndex
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.cli.main import main
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound
from windlass.core.readers import Folder
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.loop.ingesting import Wishes, opened_for_ingest
from windlass.loop.lineage.following import lineage
from windlass.loop.lineage.graph import LineageGraph
from windlass.loop.lineage.tokens import training_text
from windlass.loop.lineage.tree import render_tree
from windlass.loop.living import open_living
from windlass.loop.releasing import releases

PAGES = {
    "rope.md": "# Rope\n\nA rope of hemp holds a load of two tonnes when it is dry. Wet, it holds less.\n",
    "drum.md": "# Drum\n\nThe drum winds the rope. It turns on an axle of oak, greased once a week.\n",
    "pawl.md": "# Pawl\n\nThe pawl keeps the drum from turning back. It falls into the ratchet by its own weight.\n",
}


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    home = tmp_path_factory.mktemp("lineage")
    (home / "docs").mkdir()
    for name, text in PAGES.items():
        (home / "docs" / name).write_text(text)
    with Workspace(home) as workspace:
        corpus = build_corpus(workspace, Folder(home / "docs"), CorpusSettings(heldout=0.0))
        build_index(workspace, corpus, HashingEmbedder())
        yield workspace


@pytest.fixture(scope="module")
def variant(ws: Workspace) -> Artifact:
    with ws.artifacts.build("variant", "assistant") as draft:
        (draft.path / "variant.json").write_text("{}")
        draft.add_parent("index", ws.artifacts.get("index"))
    releases.promote(ws, "assistant", draft.done, None, "the first")
    return draft.done


@pytest.fixture(scope="module")
def answer(ws: Workspace, variant: Artifact) -> str:
    """A trace as the assistant records it, with a true citation and one whose quote was tampered with."""
    index = ws.artifacts.get("index")
    cited = [hit.citation for hit in HybridIndex.open(index, HashingEmbedder()).search("What does the pawl do?", 2)]
    citations = [asdict(cited[0]), {**asdict(cited[1]), "quote": "something else"}]
    with ws.recorder.span("assistant") as span:
        span.input = [{"role": "user", "content": "What does the pawl do?"}]
        span["windlass.variant.digest"] = variant.digest
        span["windlass.index.digest"] = index.digest
        span["gen_ai.response.id"] = "chatcmpl-abc"
        span.output = {"role": "assistant", "content": "It holds the drum.", "citations": citations}
    ws.recorder.flush()
    return span.trace_id


def kinds(graph: LineageGraph) -> set[str]:
    return {node.kind for node in graph.nodes}


def reachable(graph: LineageGraph) -> set[str]:
    found, waiting = set(), [graph.root]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += [target for source, target, _ in graph.edges if source == here]
    return found


def test_answer_leads_to_documents_and_everything_is_reachable(ws: Workspace, answer: str) -> None:
    graph = lineage(ws, answer)
    expected = {"answer", "citation", "document", "corpus", "sources", "variant", "index", "embedder", "release", "run"}
    assert kinds(graph) == expected
    assert reachable(graph) == {node.id for node in graph.nodes}
    first, second = (node for node in graph.nodes if node.kind == "citation")
    assert "pawl" in first.detail["quote"]
    assert (first.detail["verbatim"], second.detail["verbatim"]) == (True, False)
    (document,) = (t for s, t, role in graph.edges if s == first.id and role == "from")
    assert graph.node(document).detail["source"] == "pawl.md"


def test_found_by_prefix_response_and_artifact_name(ws: Workspace, answer: str) -> None:
    assert lineage(ws, answer[:10]).root == answer
    assert lineage(ws, "chatcmpl-abc").root == answer
    assert kinds(lineage(ws, "index")) == {"index", "run", "corpus", "sources", "embedder"}
    for unknown in ("chatcmpl-nothing", "nothing", "0123456789ab"):
        with pytest.raises(NotFound, match=unknown):
            lineage(ws, unknown)


def test_text_and_json(ws: Workspace, answer: str) -> None:
    graph = lineage(ws, answer)
    text = render_tree(graph)
    assert text.startswith("answer What does the pawl do?")
    assert text.count("NOT equal to the document's text") == 1
    assert "source: pawl.md" in text
    assert "└─" in text
    rows = json.loads(json.dumps(graph.to_json()))
    assert {edge["from"] for edge in rows["edges"]} <= {node["id"] for node in rows["nodes"]}


def test_an_answer_of_a_living_index_is_compared_with_what_that_holds(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text)
    with Workspace(tmp_path) as ws:

        def ingest() -> None:
            wishes = Wishes([tmp_path / "docs"], embedder="hashing", allow_empty=True)
            with opened_for_ingest(ws, "docs", wishes) as into:
                into.ingest()

        ingest()
        index = open_living(ws, "docs")
        answer = Assistant(index, AssistantSettings(abstention=AbstentionRule(threshold=0.0)), ws.recorder).complete(
            ChatRequest([Message("user", "How many tonnes does a rope of hemp hold?")])
        )
        index.close()
        ws.recorder.flush()
        assert answer.trace_id is not None and answer.citations[0].document == "docs/rope.md"
        text = render_tree(lineage(ws, answer.trace_id))
        assert "NOT equal" not in text and "missing" not in text and text.count("equal to the document's text") >= 1
        assert "from: document Rope" in text and "source: docs/rope.md" in text and "index docs, living" in text
        graph = lineage(ws, answer.trace_id)
        assert reachable(graph) == {node.id for node in graph.nodes}

        (tmp_path / "docs" / "drum.md").write_text("# Drum\n\nThere is no drum.\n")
        ingest()
        text = render_tree(lineage(ws, answer.trace_id))
        assert "docs, living, which has changed since" in text and "[1] Rope" in text
        assert text.split("[1] Rope")[1].split("equal to")[0].rstrip().endswith("NOT") is False
        (tmp_path / "docs" / "rope.md").write_text("# Rope\n\nIt was sold.\n")
        ingest()
        assert "NOT equal to the document's text" in render_tree(lineage(ws, answer.trace_id))
        (tmp_path / "docs" / "rope.md").unlink()
        ingest()
        assert "not compared: the document is not here any more" in render_tree(lineage(ws, answer.trace_id))
        assert main(["lineage", answer.trace_id, "--workspace", str(tmp_path)]) == 0


def test_an_answer_of_a_frozen_index_without_a_corpus_is_compared_too(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "rope.md").write_text(PAGES["rope.md"])
    with Workspace(tmp_path) as ws:
        with opened_for_ingest(ws, "docs", Wishes([tmp_path / "docs"], embedder="hashing")) as into:
            into.ingest()
            assert isinstance(into.index, EmbeddedIndex)
            frozen = into.index.snapshot(ws, "docs")
        cited = [hit.citation for hit in HybridIndex.open(frozen, HashingEmbedder()).search("hemp", 1)]
        with ws.recorder.span("assistant") as span:
            span["windlass.index.digest"] = frozen.digest
            span.output = {"content": "Two tonnes.", "citations": [asdict(cited[0])]}
        ws.recorder.flush()
        text = render_tree(lineage(ws, span.trace_id))
        assert "  equal to the document's text" in text and "held by: index docs@1" in text


def test_a_lost_parent_is_shown_as_missing(ws: Workspace) -> None:
    with ws.artifacts.build("report", "orphan") as draft:
        (draft.path / "a.txt").write_text("a")
        draft.add_parent("base", "f" * 64)
    assert "missing" in kinds(lineage(ws, "orphan"))


# a generated token --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(ws: Workspace) -> str:
    """A trace of a model whose tokenizer knows single bytes only."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    with ws.runs.start("pretrain", "tiny", seed=3) as run, ws.artifacts.build("model", "tiny", run=run.id) as draft:
        tokenizer.save(str(draft.path / "tokenizer.json"))
        draft.add_parent("corpus", ws.artifacts.get("corpus"))
    with ws.recorder.span("chat", "chat") as span:
        span["windlass.model.digest"] = draft.done.digest
        span.input = [{"role": "user", "content": "Say it: The pawl keeps"}]
        span.output = {"role": "assistant", "content": " the drum from falling"}
    ws.recorder.flush()
    return span.trace_id


def test_token_leads_to_the_training_text(ws: Workspace, written: str) -> None:
    graph = lineage(ws, written, token=13)
    assert graph.node(graph.root).label == "'m', token 13 of 22"
    (place,) = (node for node in graph.nodes if node.kind == "verbatim")
    assert place.detail["matched"] == "The pawl keeps the drum from"
    assert {"token", "model", "run", "corpus", "verbatim", "document"} <= kinds(graph)
    (document,) = {t for s, t, role in graph.edges if s == place.id}
    assert graph.node(document).detail["source"] == "pawl.md"
    late = lineage(ws, written, token=21)  # ends in "falling", which no page says
    assert {n.detail["matched"] for n in late.nodes if n.kind == "verbatim"} == {"ing"}


def test_token_out_of_range_or_not_of_a_model(ws: Workspace, written: str, answer: str) -> None:
    for token in (-1, 22):
        with pytest.raises(InputError, match="22 generated tokens"):
            lineage(ws, written, token=token)
    with pytest.raises(InputError, match="quotes documents"):
        lineage(ws, answer, token=0)
    with pytest.raises(NotFound):
        lineage(ws, "ffffffff", token=0)


def trained_on(ws: Workspace, kinds: list[str] | None) -> Artifact:
    config = {"settings": {"kinds": kinds}}
    with (
        ws.runs.start("pretrain", "picky", config=config) as run,
        ws.artifacts.build("model", "picky", run=run.id) as draft,
    ):
        (draft.path / "note.txt").write_text(str(kinds))
        draft.add_parent("corpus", ws.artifacts.get("corpus"))
    return draft.done


def test_only_the_kinds_that_were_trained_on_are_searched(ws: Workspace) -> None:
    for kinds in (None, ["page"]):
        assert training_text(ws, trained_on(ws, kinds)).longest_suffix("x: The pawl keeps").text == "The pawl keeps"
    with pytest.raises(InputError, match="no documents of kind source"):
        training_text(ws, trained_on(ws, ["source"]))

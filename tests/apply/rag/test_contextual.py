"""A model's sentence above each passage: what it is shown, what is used of it, what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from chunk_world import Words

from windlass.apply.prompts import prompt
from windlass.apply.rag.chunking import ChunkSettings, chunk, embedding_text
from windlass.apply.rag.chunking.cheapest import pieces_in
from windlass.apply.rag.chunking.contextual import ContextWriter
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.wrappers.budget import Budget, OverBudget
from windlass.core.documents import Document, write_documents
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.testing import Scripted

SMALL = ChunkSettings(target=40, limit=80)
TEXT = """The pump moves water from the well up to the house.

It needs oil once a week, says the manual.

Bread rises at night and is baked at four."""


class Model(Scripted):
    """Answers each request by what it asks; `digest` tells it from others."""

    def __init__(self, *answers: str, cost_usd: float | None = 0.25) -> None:
        super().__init__(*answers, cost_usd=cost_usd, usage=Usage(input=1_000, output=20))
        self.digest = "a" * 64


def passage_of(request: ChatRequest) -> str:
    return request.messages[1].text.partition("<<passage ")[2].partition("\n")[2].partition("\n<<end ")[0]


def test_each_passage_is_embedded_below_what_was_written() -> None:
    document = Document("d", "d.md", "Manual", TEXT)
    passages = list(chunk(document, (), SMALL))
    model = Model(*(f"Context\n {i} " for i in range(len(passages))))
    writer = ContextWriter(model, parallel=1)
    written = writer.write(document, passages)
    assert [p.text for p in written] == [p.text for p in passages]
    assert embedding_text(written[1]) == f"Manual\nContext 1\n{passages[1].text}"
    assert [passage_of(request) for request in model.requests] == [p.text for p in passages]
    assert (writer.asked, writer.kept, writer.silent, writer.cost_usd) == (len(passages), 0, 0, 0.25 * len(passages))
    heads = {request.messages[1].text.partition("<<passage ")[0] for request in model.requests}
    (head,) = heads  # alike to the byte: a provider reads the document once
    assert TEXT in head
    assert {request.messages[0].text for request in model.requests} == {prompt("contextual")[0]}


def test_what_is_masked_is_not_shown() -> None:
    start = TEXT.index("oil")
    document = Document("d", "d.md", "Manual", TEXT)
    passages = list(chunk(document, [(start, start + len("oil once"))], SMALL))
    model = Model(*(["x"] * len(passages)))
    ContextWriter(model, parallel=1).write(document, passages)
    for request in model.requests:
        assert "oil" not in request.messages[1].text and "[...]" in request.messages[1].text


def test_a_long_document_is_shown_in_few_parts_around_the_passage() -> None:
    text = "".join(f"Line {i} of the book tells of pump {i}.\n\n" for i in range(2_500))
    document = Document("d", "d.md", "", text)
    passages = list(chunk(document))
    model = Model(*(["x"] * len(passages)))
    ContextWriter(model, parallel=1).write(document, passages)
    heads = [request.messages[1].text.partition("<<passage ")[0] for request in model.requests]
    assert len(set(heads)) <= len(text) // 12_000 and all(len(head) < 25_000 for head in heads)
    for passage, head in zip(passages, heads, strict=True):
        assert passage.text in head
    inner = [(p, head) for p, head in zip(passages, heads, strict=True) if 6_000 < p.start < len(text) - 6_000]
    assert all(head.index(p.text) > 4_000 and head.rindex(p.text) < len(head) - 4_000 for p, head in inner)


def test_paid_for_once_and_within_the_budget(tmp_path: Path) -> None:
    document = Document("d", "d.md", "Manual", TEXT)
    passages = list(chunk(document, (), SMALL))
    assert len(passages) == 3
    with Workspace(tmp_path) as ws:
        model = Model("one", "two", "three")
        small = ContextWriter.within(ws, model, Budget(tokens=1_500, per="ever"), parallel=1)
        with pytest.raises(OverBudget, match="budget 'contexts'"):
            small.write(document, passages)
        small.close()
        asked = len(model.requests)
        assert 0 < asked < 3
        large = ContextWriter.within(ws, model, Budget("other", tokens=100_000, per="ever"), parallel=1)
        assert [p.context for p in large.write(document, passages)] == ["one", "two", "three"]
        assert len(model.requests) == 3 and large.kept == asked and large.cost_usd == 0.25 * (3 - asked)
        large.close()


def test_refusals_and_silence_are_counted_and_unknown_cost_is_none() -> None:
    document = Document("d", "d.md", "", TEXT)
    passages = list(chunk(document, (), SMALL))
    refused = ChatResponse("1", "m", Message("assistant", "No."), "content_filter", Usage(), refused=True)
    writer = ContextWriter(Scripted(refused, " \n ", "word " * 200), parallel=1)
    written = writer.write(document, passages)
    assert [p.context for p in written[:2]] == ["", ""] and len(written[2].context) == 300
    assert writer.silent == 2 and writer.cost_usd is None


def test_an_index_finds_a_passage_by_what_was_written_and_by_its_whole_document(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("corpus", "docs") as draft:
            write_documents(draft.path / "documents.jsonl", [Document("d", "d.md", "Manual", TEXT)])
        writer = ContextWriter(Model("Of wells.", "Of walruses.", "Of ovens."), parallel=1)
        both = ChunkSettings(target=40, limit=80, late=True, written=True)
        made = build_index(ws, draft.done, Words(), settings=both, writer=writer)
        assert made.card["contexts_written"] == 3 and made.card["passages_without_context"] == 0
        found = HybridIndex.open(made, Words()).search("walruses", 1)[0]
        assert found.citation.quote.startswith("It needs oil") and found.parts["bm25"] > 0


def test_passages_leave_room_for_what_is_written() -> None:
    document = Document("d", "d.md", "", "A pump, a well; an oven. " * 400)
    sizes = [pieces_in(p.text) for p in chunk(document, (), ChunkSettings(written=True))]
    assert max(sizes) <= 225 - 75 < max(pieces_in(p.text) for p in chunk(document))


def test_many_calls_at_once_keep_their_order() -> None:
    text = "".join(f"Pump number {i} was built by hand in the year {i}.\n\n" for i in range(40))
    document = Document("d", "d.md", "", text)
    passages = list(chunk(document, (), SMALL))
    model = Model(*([passage_of] * len(passages)))  # type: ignore[list-item]
    written = ContextWriter(model, parallel=4).write(document, passages)
    assert [p.context for p in written] == [" ".join(p.text.split()) for p in passages]

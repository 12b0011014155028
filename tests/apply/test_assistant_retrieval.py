"""Steps of retrieval as part of an assistant: what they find is answered from, what they take is paid for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.rag.retrieving import RetrieveSettings
from windlass.core import semconv
from windlass.core.documents import Document, write_documents
from windlass.core.errors import ConfigError, ProviderError
from windlass.core.protocols import Relevance
from windlass.core.values import ChatRequest, Message, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem
from windlass.loop.assistants.measure import measure
from windlass.testing import Scripted

DOCUMENTS = [
    Document("pump", "pump.md", "Pump", "The red pump moves nine litres of water a minute.", metadata={"year": 2021}),
    Document("new", "new.md", "Pump", "The red pump moves twelve litres of water a minute.", metadata={"year": 2025}),
    Document("bread", "bread.md", "Bread", "Bread rises in the oven for forty minutes."),
    Document("plan", "plan.md", "Plan", "The red pump moves to Rome in May.", metadata={"access": ["staff"]}),
]


class Prefers:
    """A reranker that likes texts with a word."""

    name, digest = "prefers", "d" * 64

    def __init__(self, word: str) -> None:
        self.word = word
        self.read: list[str] = []

    def rank(self, query: str, documents: Sequence[str]) -> Relevance:
        self.read = list(documents)
        return Relevance([float(self.word in text) for text in documents], 11)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


@pytest.fixture
def index(ws: Workspace) -> HybridIndex:
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", DOCUMENTS)
    embedder = HashingEmbedder()
    return HybridIndex.open(build_index(ws, draft.done, embedder), embedder)


def settings(**retrieve: object) -> AssistantSettings:
    return AssistantSettings(abstention=AbstentionRule(threshold=0.0), retrieve=RetrieveSettings(**retrieve))  # type: ignore[arg-type]


def ask(*texts: str) -> ChatRequest:
    roles = ["user", "assistant"] * len(texts)
    return ChatRequest([Message(role, text) for role, text in zip(roles, texts, strict=False)])  # type: ignore[arg-type]


def test_what_the_reranker_prefers_is_quoted_first(ws: Workspace, index: HybridIndex) -> None:
    question = ask("How many litres of water does the red pump move?")
    for word, first in (("nine", "pump"), ("twelve", "new")):
        reranker = Prefers(word)
        said = Assistant(index, settings(reranker="prefers"), ws.recorder, reranker=reranker).complete(question)
        assert said.citations[0].document == first and said.cost_usd is None
        assert not any("Rome" in text for text in reranker.read), "nobody reads what the asker may not see"
    ws.recorder.flush()
    spans = {span.name: span for span in ws.store.trace(str(said.trace_id))}
    assert spans["rerank"].parent_id == spans["retrieve"].span_id
    assert spans["rerank"].attributes[semconv.INPUT_TOKENS] == 11


def test_an_exam_measures_the_search_with_its_steps(index: HybridIndex) -> None:
    asked = "How many litres of water does the red pump move?"
    items = [ExamItem(name, asked, name, "test", name, name, 0, 1, "", "page") for name in ("pump", "new", "bread")]
    for word, ranks in (("nine", [1, 2, 3]), ("twelve", [2, 1, 3])):
        assistant = Assistant(index, settings(reranker="prefers"), reranker=Prefers(word))
        assert [outcome.rank for outcome in measure(assistant, items)] == ranks


def test_newer_documents_come_first_where_age_matters(index: HybridIndex) -> None:
    question = ask("How many litres of water does the red pump move?")
    said = Assistant(index, settings(half_life=200.0, date_key="year")).complete(question)
    assert said.citations[0].document == "new"


def test_a_helper_is_paid_for_with_the_answer(ws: Workspace, index: HybridIndex) -> None:
    helper = Scripted("nine litres a minute\nthe pump's flow", cost_usd=0.25, usage=Usage(input=7, output=3))
    writer = Scripted('It moves nine [1: "moves nine litres of water"].', cost_usd=0.5, usage=Usage(input=90, output=9))
    question = ask("nine litres red pump")
    said = Assistant(index, settings(variants=2), ws.recorder, writer, helper=helper).complete(question)
    assert said.cost_usd == 0.75 and said.usage == Usage(input=97, output=12)
    quoting = Scripted("nine litres a minute", cost_usd=0.25)
    said = Assistant(index, settings(variants=1), helper=quoting).complete(question)
    assert said.cost_usd == 0.25 and said.usage.output == 5
    unpriced = Scripted("nine litres a minute")
    assert Assistant(index, settings(variants=1), helper=unpriced).complete(question).cost_usd is None


def helping(request: ChatRequest) -> str:
    told = request.messages[0].text
    if "JSON" in told:
        return '{"query": "litres of water", "where": {"year": [2025]}}'
    return "ENOUGH" if "ENOUGH" in told else "The pump moves litres of water."


def test_all_steps_together_search_a_real_index(ws: Workspace, index: HybridIndex) -> None:
    every = settings(
        self_query=True, again=1, variants=1, imagined=1, feedback=1, reranker="prefers", half_life=99.0,
        date_key="year", diversity=0.3,
    )  # fmt: skip
    assistant = Assistant(index, every, ws.recorder, helper=Scripted(*[helping] * 9), reranker=Prefers("litres"))
    said = assistant.complete(ask("What did notes of 2025 say of litres of water?"))
    assert {citation.document for citation in said.citations} == {"new"}
    ws.recorder.flush()
    spans = ws.store.trace(str(said.trace_id))
    steps = ["self_query", "multi_hop", "mmr", "decay", "rerank", "hyde", "multi_query", "feedback"]
    assert [span.name for span in spans if span.name in steps][:8] == steps, "nested from the outside in"
    assert not [span.name for span in spans if semconv.FALLBACK in span.attributes]


def test_a_conversation_is_understood_by_the_model(ws: Workspace, index: HybridIndex) -> None:
    helper = Scripted("How many litres of water does the red pump move?")
    assistant = Assistant(index, settings(rewrite=True), ws.recorder, helper=helper)
    said = assistant.complete(ask("Tell me of the red pump.", "It is red.", "And how many?"))
    ws.recorder.flush()
    spans = {span.name: span for span in ws.store.trace(str(said.trace_id))}
    assert spans["retrieve"].input == spans["rewrite"].output == "How many litres of water does the red pump move?"
    assert spans["assistant"].attributes["windlass.question"] == spans["rewrite"].output
    assert assistant.complete(ask("How many litres of water?")) and len(helper.requests) == 1, "nothing was said before"


def test_a_helper_that_is_away_leaves_the_plain_answer(ws: Workspace, index: HybridIndex) -> None:
    question = ask("How many litres of water does the red pump move?")
    helper = Scripted(*[ProviderError("The endpoint is away.")] * 9)
    every = settings(rewrite=True, self_query=True, again=1, variants=1, imagined=1)
    said = Assistant(index, every, ws.recorder, helper=helper).complete(question)
    plain = Assistant(index, settings()).complete(question)
    assert said.citations == plain.citations and said.message == plain.message
    ws.recorder.flush()
    noted = [span.name for span in ws.store.trace(str(said.trace_id)) if semconv.FALLBACK in span.attributes]
    assert set(noted) == {"self_query", "multi_hop", "multi_query", "hyde"}


def test_what_a_step_lacks_is_named_before_anybody_asks(index: HybridIndex) -> None:
    for lacking in ({"variants": 1}, {"rewrite": True}, {"reranker": "somewhere"}):
        with pytest.raises(ConfigError, match=rf"retrieve\.{next(iter(lacking))} needs"):
            Assistant(index, settings(**lacking))

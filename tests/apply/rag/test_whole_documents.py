"""All documents or the passages found: which fits, which costs less, and what the assistant then reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.answers.grounded import grounded_request
from windlass.apply.rag.answers.whole import route
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.tasks import task
from windlass.core.documents import Document, write_documents
from windlass.core.errors import InputError
from windlass.core.pricing import Price
from windlass.core.values import ChatRequest, Citation, Message, Usage
from windlass.core.windows import Window
from windlass.core.workspace import Workspace
from windlass.testing import Scripted

CACHED, PLAIN = Price(input=1.0, output=4.0, cache_read=0.1), Price(input=1.0, output=4.0)
SMALL, LARGE = {"priced": Window(1500)}, {"priced": Window(100_000)}


class Priced(Scripted):
    """A scripted model with a price."""

    def __init__(self, *answers: Any, price: Price | None = None) -> None:
        super().__init__(*answers, name="priced")
        self.price = price

    def costs(self, usage: Usage, request: ChatRequest) -> float | None:
        return None if self.price is None else self.price.of(usage)


def passages(count: int) -> list[Citation]:
    return [Citation(f"d{n}", "", "", 0, 400, f"{n} ".ljust(400, "x")) for n in range(count)]


def build(question: str, given: Sequence[Citation]) -> ChatRequest:
    return grounded_request(question, given, ChatRequest([], max_tokens=100))


def asked_last(question: str, given: Sequence[Citation]) -> ChatRequest:
    return ChatRequest([Message("user", f"{question}\n" + "".join(one.quote for one in given))], max_tokens=100)


@pytest.mark.parametrize(
    ("price", "windows", "questions", "whole", "reason"),
    [
        (PLAIN, LARGE, 1, False, r"^\$0\.00\d+ a question, \$0\.00\d+ for passages$"),
        (PLAIN, LARGE, 100, False, r"^\$"),  # nothing is sold from a cache
        (CACHED, LARGE, 1, False, r"^\$"),
        (CACHED, LARGE, 100, True, r"^\$"),
        (None, LARGE, 1, False, r"^\d,\d+ tokens a question, \d+ for passages$"),
        (None, LARGE, 100, True, "tokens a question"),
        (CACHED, SMALL, 100, False, r"^\d,\d+ tokens do not fit the room of 1,400$"),
        (CACHED, {}, 100, False, "^nobody knows the window of 'priced'$"),
    ],
)
def test_the_cheaper_one_that_fits(
    price: Price | None, windows: dict[str, Window], questions: int, whole: bool, reason: str
) -> None:
    everything = passages(20)
    found = route(Priced(price=price), build, "Why?", everything, everything[:6], windows=windows, questions=questions)
    assert found.whole == whole
    assert re.search(reason, found.reason), found.reason
    assert (found.usd[0] is None) == (price is None)


def test_few_documents_are_always_whole() -> None:
    few = passages(4)
    assert route(Priced(price=PLAIN), build, "Why?", few, few, windows=LARGE).whole


def test_the_numbers_are_those_of_the_price_list() -> None:
    everything, price = passages(20), CACHED
    found = route(Priced(price=price), build, "Why?", everything, everything[:6], windows=LARGE, questions=10)
    once = route(Priced(price=price), build, "Why?", everything, everything[:6], windows=LARGE)
    read, searched = once.tokens
    assert once.usd == (price.of(Usage(input=read, output=100)), price.of(Usage(input=searched, output=100)))
    fresh = found.tokens[0]
    assert found.usd[0] is not None and found.usd[0] == pytest.approx(
        (fresh + 0.1 * (read - fresh) + 400) / 1e6, rel=0.01
    )
    assert 0.1 * read < fresh < 0.12 * read, "nine of ten questions read the documents from the cache"


def test_a_prompt_that_differs_early_shares_nothing() -> None:
    everything = passages(20)
    found = route(Priced(price=CACHED), asked_last, "Why?", everything, everything[:6], windows=LARGE, questions=100)
    assert not found.whole and found.tokens[0] > 1900
    with pytest.raises(InputError, match="0 questions"):
        route(Priced(), build, "Why?", everything, everything, questions=0)


def test_tasks_can_be_routed_too() -> None:
    @task(max_tokens=100)
    def answer(passages: Sequence[Citation], question: str) -> Literal["yes", "no"]:
        """Answer from the passages."""
        raise NotImplementedError

    model, everything = Priced(price=CACHED), passages(20)

    def request(question: str, given: Sequence[Citation]) -> ChatRequest:
        return answer.request(model, passages=given, question=question)

    assert route(model, request, "Is it?", everything, everything[:6], windows=LARGE, questions=100).whole


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HybridIndex]:
    documents = [
        Document("pump", "pump.md", "Pump", "The pump moves nine litres of water.", metadata={"team": "water"}),
        Document("oven", "oven.md", "Oven", "The oven is heated by wood alone.", metadata={"team": "food"}),
    ]
    with Workspace(tmp_path_factory.mktemp("whole")) as ws:
        with ws.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", documents)
        embedder = HashingEmbedder()
        yield HybridIndex.open(build_index(ws, draft.done, embedder), embedder)


def asked(text: str, **more: Any) -> ChatRequest:
    return ChatRequest([Message("user", text)], **more)


def test_the_assistant_reads_everything_and_still_checks_what_it_quotes(index: HybridIndex) -> None:
    never = AssistantSettings(abstention=AbstentionRule(threshold=1.0), whole=1)
    said = 'By wood [2: "The oven is heated by wood alone."]. Made up [1: "The pump is red and new."].'
    model = Priced(said, said, said, price=PLAIN)
    assistant = Assistant(index, never, model=model, windows=LARGE)
    response = assistant.complete(asked("How is the oven heated?"))
    (citation,) = response.citations
    assert citation.document == "oven" and "Made up" not in response.message.text
    assert "nine litres" in model.last.messages[1].text and "heated by wood" in model.last.messages[1].text
    filtered = assistant.complete(asked("How is the oven heated?", extra={"where": {"team": "water"}}))
    assert filtered.abstained and "wood alone" not in model.last.messages[1].text, "filters hold for whole documents"
    unknown = Assistant(index, never, model=model).complete(asked("How is the oven heated?"))
    assert unknown.abstained and len(model.requests) == 2, "without a window it searches, and the rule decides"


def test_all_passages_in_their_order(index: HybridIndex) -> None:
    assert [one.document for one in index.passages()] == ["pump", "oven"]
    assert [one.document for one in index.passages({"team": ["food"]})] == ["oven"]
    assert index.characters == sum(len(one.quote) for one in index.passages())
    with pytest.raises(InputError, match="whole and memory of at least 0"):
        AssistantSettings(whole=-1)

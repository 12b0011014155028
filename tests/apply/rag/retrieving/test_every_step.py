"""What holds for each step of retrieval: it is an index, it loosens no filter and no label, and it says what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apply.rag.retrieving.small_index import SmallIndex, named

from windlass.apply.rag.retrieving import (
    Decayed,
    Diverse,
    Feedback,
    Helpers,
    Hyde,
    MultiHop,
    MultiQuery,
    Reranked,
    RetrieveSettings,
    Rewritten,
    SelfQuery,
    composed,
)
from windlass.apply.rag.retrieving.decay import dated
from windlass.core import semconv
from windlass.core.errors import ConfigError, InputError, NotFound, ProviderError
from windlass.core.protocols import Index, Relevance
from windlass.core.records import SpanRecord
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.testing import Scripted


class ByLength:
    """A reranker that likes long documents."""

    name, digest = "by-length", "c" * 64

    def rank(self, query: str, documents: Any) -> Relevance:
        return Relevance([float(len(document)) for document in documents], tokens=sum(map(len, documents)))


class Away:
    """A reranker that cannot be reached."""

    name, digest = "away", None

    def rank(self, query: str, documents: Any) -> Relevance:
        raise ProviderError("The endpoint is away.", status=503)


def answering(request: ChatRequest) -> str:
    """A helper for each of the prompts."""
    told = request.messages[0].text
    if "wordings" in told:
        return "1. red machine for water\n- who oils it\n"
    if "hold everything" in told:
        return "SEARCH: who lives by the river"
    if "JSON" in told:
        return '{"query": "red pump", "where": {"author": ["Ada"]}}'
    return "Ada oils the red pump."


def without_filters(request: ChatRequest) -> str:
    return '{"where": {}}' if "JSON" in request.messages[0].text else answering(request)


HISTORY = [Message("user", "Tell me of the pump."), Message("assistant", "It is red.")]
STEPS: dict[str, Callable[[SmallIndex, Any, Recorder | None], Index]] = {
    "multi_query": lambda index, model, recorder: MultiQuery(index, model, recorder=recorder),
    "hyde": lambda index, model, recorder: Hyde(index, model, index.embedder, 2, recorder=recorder),
    "rewrite": lambda index, model, recorder: Rewritten(index, model, HISTORY, recorder=recorder),
    "multi_hop": lambda index, model, recorder: MultiHop(index, model, recorder=recorder),
    "self_query": lambda index, model, recorder: SelfQuery(index, model, index.facets, recorder=recorder),
    "mmr": lambda index, model, recorder: Diverse(index, index.embedder, 0.3, recorder=recorder),
    "feedback": lambda index, model, recorder: Feedback(index, index.embedder, recorder=recorder),
    "decay": lambda index, model, recorder: Decayed(index, dated(index, "year"), 365, recorder=recorder),
    "rerank": lambda index, model, recorder: Reranked(index, ByLength(), recorder=recorder),
}
ASKING = ("multi_query", "hyde", "rewrite", "multi_hop", "self_query")
EVERYTHING = RetrieveSettings(
    rewrite=True,
    self_query=True,
    again=2,
    variants=2,
    imagined=1,
    feedback=2,
    reranker="by-length",
    half_life=300.0,
    diversity=0.3,
)


def helpers(index: SmallIndex, model: Any) -> Helpers:
    return Helpers(model, ByLength(), index.embedder, index.facets, dated(index, "year"), history=HISTORY)


def willing(answers: int = 20) -> Scripted:
    return Scripted(*[answering] * answers)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


def spans(ws: Workspace) -> list[SpanRecord]:
    ws.recorder.flush()
    (trace,) = ws.store.traces(limit=10)
    return list(ws.store.trace(trace.root.trace_id))


@pytest.fixture(params=[*STEPS, "everything"])
def step(request: pytest.FixtureRequest) -> Callable[..., Index]:
    if request.param != "everything":
        return STEPS[request.param]
    return lambda index, model, recorder: composed(index, EVERYTHING, helpers(index, model), recorder)


def test_it_is_an_index(step: Callable[..., Index]) -> None:
    inner = SmallIndex()
    outer = step(inner, Scripted(*[without_filters] * 20), None)
    assert isinstance(outer, Index) and len(outer) == len(inner) and outer.digest == inner.digest
    hits = outer.search("who oils the red pump", 3)
    assert len(hits) == 3 and len({hit.passage for hit in hits}) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True) or outer.name == "mmr"  # type: ignore[attr-defined]


def test_no_step_loosens_a_filter_or_a_label(step: Callable[..., Index]) -> None:
    where = {"year": [2021, 2023]}
    for access in ((), ("staff",)):
        inner = SmallIndex()
        hits = step(inner, willing(), None).search("who oils the red pump", 10, where, access=access)
        assert inner.searches
        for search in inner.searches:
            assert search.access == access and search.where is not None and search.where["year"] == [2021, 2023]
        facts = inner.metadata_of(named(hits))
        assert all(one["year"] in (2021, 2023) and set(one.get("access", ())) <= set(access) for one in facts)
        assert ("oil" in named(hits)) == bool(access)


def test_without_labels_only_public_documents_are_found(step: Callable[..., Index]) -> None:
    assert not {"oil", "stars"} & set(named(step(SmallIndex(), willing(), None).search("red pump stars Ada", 10)))


def test_k_hits_come_back_whenever_so_many_match(step: Callable[..., Index]) -> None:
    inner = SmallIndex()
    everyone = ("staff", "astronomers")
    model = Scripted(*[without_filters] * 40)
    for k in (1, 4, len(inner)):
        assert len(step(inner, model, None).search("red pump", k, access=everyone)) == k


@pytest.mark.parametrize("name", ASKING)
def test_a_model_that_fails_leaves_the_plain_search_and_a_note(ws: Workspace, name: str) -> None:
    plain = SmallIndex().search("who oils the red pump", 3)
    for failure in (ProviderError("The endpoint is away.", status=503), "", "  \n"):
        outer = STEPS[name](SmallIndex(), Scripted(*[failure] * 3), ws.recorder)
        with ws.recorder.span("turn") as turn:
            hits = outer.search("who oils the red pump", 3)
        assert named(hits) == named(plain)
        ws.recorder.flush()
        said = {span.name: span for span in ws.store.trace(turn.trace_id)}
        noted = said[name].attributes[semconv.FALLBACK]
        assert noted.startswith("ProviderError: ")
        assert "away" in noted if isinstance(failure, Exception) else "without a word" in noted
        assert said[name].status == "ok"
        assert (said["ask"].status == "error") == isinstance(failure, Exception)


def test_a_reranker_that_fails_leaves_the_plain_search_and_a_note(ws: Workspace) -> None:
    hits = Reranked(SmallIndex(), Away(), recorder=ws.recorder).search("who oils the red pump", 3)
    assert hits == SmallIndex().search("who oils the red pump", 3)
    (span,) = spans(ws)
    assert span.attributes[semconv.FALLBACK] == "ProviderError: The endpoint is away."


def gone(*_: Any) -> Any:
    raise NotFound("The index holds no document 'oil'.")


@pytest.mark.parametrize("step", [Diverse(SmallIndex(), gone), Decayed(SmallIndex(), gone, 30)], ids=["mmr", "decay"])
def test_a_document_that_is_removed_meanwhile_leaves_the_plain_search_and_a_note(ws: Workspace, step: Any) -> None:
    step.recorder = ws.recorder
    assert step.search("red pump", 3) == SmallIndex().search("red pump", 3)
    (span,) = spans(ws)
    assert span.attributes[semconv.FALLBACK] == "NotFound: The index holds no document 'oil'."


def test_each_call_of_a_helper_is_a_span_with_its_cost(ws: Workspace) -> None:
    index, model = SmallIndex(), Scripted(*[answering] * 20, cost_usd=0.25)
    composed(index, EVERYTHING, helpers(index, model), ws.recorder).search("and who oils it?", 3)
    found = spans(ws)
    calls = [span for span in found if span.name == "ask"]
    assert len(calls) == len(model.requests)
    assert {span.attributes[semconv.COST_USD] for span in calls} == {0.25}
    assert {span.attributes[semconv.PROMPT_NAME] for span in calls} == {
        "retrieve-rewrite", "retrieve-filter", "retrieve-hop", "retrieve-variants", "retrieve-passage",
    }  # fmt: skip
    assert all(len(span.attributes[semconv.PROMPT_DIGEST]) == 64 for span in calls)
    assert {span.name for span in found} == {*STEPS, "hop", "ask"}
    (rewrite,) = [span for span in found if span.name == "rewrite"]
    assert rewrite.parent_id is None and rewrite.attributes["windlass.queries"] == ["Ada oils the red pump."]


def test_no_settings_are_no_steps() -> None:
    index = SmallIndex()
    assert composed(index, RetrieveSettings(), Helpers()) is index
    assert EVERYTHING.asks and not RetrieveSettings().asks
    assert not RetrieveSettings(reranker="x").asks


@pytest.mark.parametrize("name", ["rewrite", "self_query", "again", "variants", "imagined", "reranker", "half_life"])
def test_a_step_that_lacks_its_helper_is_named(name: str) -> None:
    settings = RetrieveSettings(**{name: "x" if name == "reranker" else 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"retrieve\.{name} needs"):
        composed(SmallIndex(), settings, Helpers())


@pytest.mark.parametrize(
    "wrong",
    [{"again": -1}, {"variants": -1}, {"imagined": -2}, {"rerank_weight": 1.5}, {"diversity": -0.1}, {"half_life": -1}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RetrieveSettings(**wrong)

"""Steps that change what is searched for: other wordings, imagined passages, conversations, further hops."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.apply.rag.retrieving.small_index import SmallIndex, named

from windlass.apply.rag.retrieving import Feedback, Hyde, MultiHop, MultiQuery, Rewritten
from windlass.apply.rag.retrieving.feedback import telling
from windlass.apply.rag.retrieving.step import Asked, fused
from windlass.core import semconv
from windlass.core.protocols import Hit
from windlass.core.records import SpanRecord
from windlass.core.values import Citation, Message
from windlass.core.workspace import Workspace
from windlass.testing import Scripted


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


def only(ws: Workspace, name: str) -> SpanRecord:
    ws.recorder.flush()
    (found,) = [
        span for trace in ws.store.traces(limit=9) for span in ws.store.trace(trace.root.trace_id) if span.name == name
    ]
    return found


def test_other_wordings_are_searched_beside_the_question_and_fused() -> None:
    index = SmallIndex()
    said = '1. strings of instruments\n2) strings of instruments\n- "four strings"\n\nviolin?\na violin\nmore'
    model = Scripted(said)
    hits = MultiQuery(index, model, 3).search("violin?", 2)
    assert [search.query for search in index.searches] == [
        "violin?",
        "strings of instruments",
        "four strings",
        "a violin",
    ]
    assert named(hits)[0] == "violin" and "3 other wordings" in model.last.messages[1].text


class Batched(SmallIndex):
    """Also searches several at once."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[Asked] = []

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        found = [SmallIndex().search(query, k, where, access=access) for query in queries]
        self.together += [Asked(query, k, where, access) for query in queries]
        return found


@pytest.mark.parametrize("known", [False, True])
def test_other_wordings_are_searched_at_once_where_the_index_can(known: bool) -> None:
    index, model = Batched(), Scripted("strings of instruments\na violin")
    vector = index.embedder.embed(["violin?"], "query").vectors[0] if known else None
    hits = MultiQuery(index, model, 3, depth=4).search("violin?", 2, {"author": "Cy"}, access=["staff"], vector=vector)
    others = ["strings of instruments", "a violin"]
    assert [search.query for search in index.together] == (others if known else ["violin?", *others])
    assert [search.query for search in index.searches] == (["violin?"] if known else [])
    for search in (*index.together, *index.searches):
        assert (search.k, search.where, search.access) == (4, {"author": "Cy"}, ["staff"])
    assert named(hits)[0] == "violin"


def test_ranks_are_fused_as_the_paper_says() -> None:
    index = SmallIndex()
    a, b, c = (index.hit(n, 1.0) for n in range(3))
    found = fused([[a, b], [b, c]], 3, rrf_k=60)
    assert [hit.passage for hit in found] == [2, 1, 3]
    assert [hit.score for hit in found] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert fused([], 3) == fused([[]], 3) == []


def test_a_single_ranking_keeps_its_order() -> None:
    index = SmallIndex()
    hits = index.search("red pump", 5)
    assert [hit.passage for hit in fused([hits], 5)] == [hit.passage for hit in hits]


def test_the_mean_of_question_and_imagined_passages_is_searched() -> None:
    index = SmallIndex()
    passages = ["A violin has four strings.", "Violins are played with a bow."]
    hits = Hyde(index, Scripted(*passages), index.embedder, 2).search("instrument", 3)
    (search,) = index.searches
    asked, imagined = index.embedder.embed(["instrument"], "query"), index.embedder.embed(passages)
    mean = (asked.vectors[0] + imagined.vectors.sum(0)) / 3
    assert search.query == "instrument" and search.vector is not None
    np.testing.assert_allclose(search.vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert named(hits)[0] == "violin"


def test_a_vector_that_is_known_stands_for_the_question() -> None:
    index = SmallIndex()
    own = index.embedder.embed(["bread"]).vectors[0]
    Hyde(index, Scripted("bread"), index.embedder).search("instrument", 3, vector=own)
    np.testing.assert_allclose(index.searches[0].vector, own, atol=1e-6)  # type: ignore[arg-type]


def test_the_question_is_moved_towards_the_best_passages() -> None:
    index = SmallIndex()
    step = Feedback(index, index.embedder, lambda hits: index.vectors[[hit.passage - 1 for hit in hits]], 2)
    hits = step.search("pump", 4)
    first, second = index.searches
    own = index.embedder.embed(["pump"]).vectors[0]
    believed = [hit.passage - 1 for hit in SmallIndex().search("pump", 2, vector=own)]
    moved = own + 0.3 * index.vectors[believed].mean(0)
    assert first.k == 50 and second.k == 4 and first.query == "pump"
    np.testing.assert_allclose(first.vector, own, atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(second.vector, moved / np.linalg.norm(moved), atol=1e-6)  # type: ignore[arg-type]
    assert len(hits) == 4 and {hit.passage - 1 for hit in hits} >= set(believed)


def test_words_that_tell_the_best_passages_from_the_others_are_added() -> None:
    index = SmallIndex()
    Feedback(index, index.embedder, count=1, words=1.0).search("red pump", 3)
    asked = index.searches[1].query.split()
    assert asked[:16] == ["red", "pump"] * 8
    added = Counter(asked[16:])
    first = index.search("red pump", 1, vector=index.searches[0].vector)[0].citation
    believed = set(re.findall("[a-z]{3,}", f"{first.title} {first.quote}".lower()))
    assert added and set(added) <= believed and not {"the", "of", "in"} & set(added)
    assert 12 <= added.total() <= 20, "as much as the question's two words, each said eight times, but for rounding"
    for question, words in (("red pump", 0.0), ("red pump " * 51, 1.0)):  # not asked for; too long already
        index = SmallIndex()
        Feedback(index, index.embedder, count=1, words=words).search(question, 3)
        assert index.searches[1].query == question


@given(st.lists(st.text("abc de", max_size=40), min_size=1, max_size=6), st.integers(1, 6), st.integers(1, 5))
def test_shares_of_words_add_up(texts: list[str], believed: int, most: int) -> None:
    hits = [Hit(n, 0.0, Citation(str(n), "", "", 0, len(text), text)) for n, text in enumerate(texts)]
    shares = telling(hits, believed, most)
    assert len(shares) <= most and list(shares.values()) == sorted(shares.values(), reverse=True)
    assert not shares or sum(shares.values()) == pytest.approx(1.0)
    assert all(any(word in text for text in texts[:believed]) for word in shares)
    assert bool(shares) == any(re.search("[a-e]{3}", text) for text in texts[:believed])


def test_a_word_that_fewer_passages_hold_weighs_more() -> None:
    texts = ["common rare", "common", "common", "other"]
    hits = [Hit(n, 0.0, Citation(str(n), "", "", 0, len(text), text)) for n, text in enumerate(texts)]
    shares = telling(hits, 1)
    assert list(shares) == ["rare", "common"]
    assert shares["rare"] / shares["common"] == pytest.approx(math.log(5 / 1) / math.log(5 / 3))


def test_where_nothing_was_found_nothing_is_believed() -> None:
    index = SmallIndex()
    assert Feedback(index, index.embedder).search("pump", 3, {"year": 1900}) == []


def test_a_question_of_a_conversation_stands_alone() -> None:
    said = {"system": "Be brief.", "user": "Tell me of the violin.", "assistant": "It has strings."}
    history = [Message(role, text) for role, text in said.items()]  # type: ignore[arg-type]
    index, model = SmallIndex(), Scripted("How many strings has a violin?\nI hope this helps.")
    step = Rewritten(index, model, history)
    hits = step.search("How many?", 1, vector=index.embedder.embed(["How many?"]).vectors[0])
    assert index.searches[0].query == "How many strings has a violin?" and named(hits) == ["violin"]
    assert index.searches[0].vector is None, "the vector was of the question as it was asked"
    told = model.last.messages[1].text
    assert (
        "user: Tell me of the violin." in told and "Be brief" not in told and told.endswith("Last question: How many?")
    )


def test_the_first_question_of_a_conversation_is_not_rewritten() -> None:
    index, model = SmallIndex(), Scripted()
    assert Rewritten(index, model, []).alone("How many?") == "How many?"
    assert Rewritten(index, model, [Message("system", "Be brief.")]).search("How many?", 1)
    assert model.requests == []


def test_a_second_hop_finds_what_only_the_first_leads_to(ws: Workspace) -> None:
    index = SmallIndex()
    model = Scripted("SEARCH: where does Ada live, house by the river", "ENOUGH")
    step = MultiHop(index, model, 3, recorder=ws.recorder)
    hits = step.search("who oils the red pump, and in which colour of house", 3, access=["staff"])
    assert [search.query for search in index.searches][1:] == ["where does Ada live, house by the river"]
    assert {"oil", "ada"} <= set(named(hits))
    assert "Ada oils the red pump" in model.requests[0].messages[1].text
    assert "- where does Ada live" in model.requests[1].messages[1].text
    span = only(ws, "multi_hop")
    assert span.attributes["windlass.stopped"] == "enough was found"
    assert span.attributes["windlass.queries"] == ["where does Ada live, house by the river"]
    assert only(ws, "hop").attributes["windlass.new"] >= 1


@pytest.mark.parametrize(
    ("answers", "searches", "stopped"),
    [
        (["ENOUGH"], 1, "enough was found"),
        (["SEARCH: red PUMP"], 1, "the model asked the same again"),
        (["SEARCH: pump red"], 2, "nothing new was found"),
        (["SEARCH: violin", "SEARCH: bread oven"], 3, "searched as often as allowed"),
        (["SEARCH: violin", "What a nice pump!"], 2, "the model failed"),
        (["SEARCH:\n"], 1, "the model failed"),
    ],
)
def test_why_a_search_in_hops_ends(ws: Workspace, answers: list[str], searches: int, stopped: str) -> None:
    index = SmallIndex()
    assert len(MultiHop(index, Scripted(*answers), 2, recorder=ws.recorder).search("red pump", 2)) == 2
    assert len(index.searches) == searches
    span = only(ws, "multi_hop")
    assert span.attributes["windlass.stopped"] == stopped
    assert (semconv.FALLBACK in span.attributes) == (stopped == "the model failed")


def test_a_passage_cannot_write_the_mark_that_ends_it() -> None:
    model = Scripted("ENOUGH")
    MultiHop(SmallIndex(), model).search("red pump", 2)
    told = model.last.messages[1].text
    code = told.split("<<passage ")[1].split(">>")[0]
    assert len(code) == 12 and told.count(f"<<end {code}>>") == 2

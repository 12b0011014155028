"""Filters read out of questions: what the index has is applied, all else is dropped, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apply.rag.retrieving.small_index import SmallIndex, named

from windlass.apply.rag.retrieving import SelfQuery
from windlass.core import semconv
from windlass.core.records import SpanRecord
from windlass.core.workspace import Workspace
from windlass.testing import Scripted

QUESTION = "notes of 2021 by Ada about the pump"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


def span(ws: Workspace) -> SpanRecord:
    ws.recorder.flush()
    (trace,) = ws.store.traces(limit=9)
    return next(one for one in ws.store.trace(trace.root.trace_id) if one.name == "self_query")


def test_a_filter_that_the_question_names_is_applied(ws: Workspace) -> None:
    index = SmallIndex()
    model = Scripted('Here it is: {"query": "pump", "where": {"year": "2021", "author": ["ada"]}}')
    hits = SelfQuery(index, model, index.facets, recorder=ws.recorder).search(QUESTION, 5)
    (search,) = index.searches
    assert search.query == "pump" and search.where == {"year": [2021], "author": ["Ada"]}
    assert named(hits) == ["pump"]
    assert span(ws).attributes["windlass.where"] == {"year": [2021], "author": ["Ada"]}
    assert semconv.FALLBACK not in span(ws).attributes
    assert 'author: "Ada", "Bo", "Cy"' in model.last.messages[1].text
    assert "year: 2021, 2019, 2023" in model.last.messages[1].text


@pytest.mark.parametrize(
    ("where", "applied", "dropped"),
    [
        ({"colour": "red", "year": 2021}, {"year": [2021]}, ["colour: no document has it"]),
        ({"year": [2021, 1999]}, {"year": [2021]}, ["year = 1999: no document holds it"]),
        ({"author": "Eve"}, {}, ["author = Eve: no document holds it"]),
        ({"author": {"name": "Ada"}}, {}, ["author = {'name': 'Ada'}: no document holds it"]),
    ],
)
def test_a_filter_that_cannot_be_is_dropped_visibly(
    ws: Workspace, where: dict[str, Any], applied: dict[str, Any], dropped: list[str]
) -> None:
    index = SmallIndex()
    model = Scripted({"query": "pump", "where": where})
    assert SelfQuery(index, model, index.facets, recorder=ws.recorder).search(QUESTION, 5)
    assert index.searches[0].where == (applied or None)
    assert index.searches[0].query == QUESTION, "the words that named what fell may still find something"
    assert span(ws).attributes["windlass.dropped"] == dropped
    assert dropped[0] in span(ws).attributes[semconv.FALLBACK]


def test_a_filter_that_nothing_passes_is_dropped_visibly(ws: Workspace) -> None:
    index = SmallIndex()
    model = Scripted({"query": "pump", "where": {"year": 2019, "author": "Cy"}})
    hits = SelfQuery(index, model, index.facets, recorder=ws.recorder).search(QUESTION, 3)
    assert [search.where for search in index.searches] == [{"year": [2019], "author": ["Cy"]}, None]
    assert len(hits) == 3 and "no document passes" in span(ws).attributes[semconv.FALLBACK]


def test_a_filter_of_the_callers_is_never_loosened() -> None:
    index = SmallIndex()
    model = Scripted(*[{"query": "pump", "where": {"year": 2023, "author": "Ada"}}] * 2)
    step = SelfQuery(index, model, index.facets)
    assert named(step.search(QUESTION, 5, {"year": 2021})) == ["pump"]
    assert index.searches[0].where == {"year": 2021, "author": ["Ada"]}
    assert step.search(QUESTION, 5, {"year": 1999, "author": "Cy"}) == []
    assert all(search.where["year"] == 1999 for search in index.searches[1:] if search.where is not None)


def test_what_the_asker_may_not_see_stands_in_no_prompt() -> None:
    index, model = SmallIndex(), Scripted(*['{"where": {"author": "Di"}}'] * 2)
    step = SelfQuery(index, model, index.facets)
    step.search("about stars by Di", 5)
    assert '"Di"' not in model.last.messages[1].text and index.searches[-1].where is None
    step.search("about stars by Di", 5, access=["astronomers"])
    assert '"Di"' in model.last.messages[1].text and index.searches[-1].where == {"author": ["Di"]}


def test_many_values_are_shown_in_part_and_believed_all() -> None:
    index, model = SmallIndex(), Scripted({"where": {"year": 2023}})
    SelfQuery(index, model, index.facets, shown=2).search("what happened in 2023", 5)
    assert "year: 2021, 2019, and 1 more" in model.last.messages[1].text
    assert index.searches[-1].where == {"year": [2023]}


def test_without_metadata_nobody_is_asked() -> None:
    index, model = SmallIndex(), Scripted()
    assert SelfQuery(index, model, lambda access: {}).search("red pump", 2) == index.search("red pump", 2)
    assert model.requests == []


@pytest.mark.parametrize("said", ["no filter", '{"where": [1]}', '["year"]', "{" * 9000])
def test_an_answer_that_is_no_filter_leaves_the_plain_search(ws: Workspace, said: str) -> None:
    index = SmallIndex()
    hits = SelfQuery(index, Scripted(said), index.facets, recorder=ws.recorder).search("red pump", 2)
    assert hits == index.search("red pump", 2)
    assert "did not answer with a filter" in span(ws).attributes[semconv.FALLBACK]

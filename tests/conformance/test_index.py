"""What every `Index` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.apply.rag.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.core.documents import Document, write_documents
from windlass.core.errors import InputError
from windlass.core.protocols import Index
from windlass.core.workspace import Workspace

TOPICS = ["pumps move water uphill", "bread rises in the oven", "stars burn hydrogen", "violins have four strings"]
DOCUMENTS = [
    Document(
        f"doc-{i}",
        f"folder/doc-{i}.txt",
        f"Note {i}",
        f"{TOPICS[i % 4].capitalize()}. Remark number {i} about {TOPICS[i % 4].split()[0]}.",
        metadata={"kind": "rare" if i % 50 == 0 else "common", "tags": ["even" if i % 2 == 0 else "odd", "all"]},
    )
    for i in range(400)
]


def hybrid(ws: Workspace) -> HybridIndex:
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", DOCUMENTS)
    embedder = HashingEmbedder()
    return HybridIndex.open(build_index(ws, draft.done, embedder), embedder)


MAKERS: dict[str, Callable[[Workspace], Index]] = {"hybrid": hybrid}


@pytest.fixture(scope="module", params=list(MAKERS))
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Workspace(tmp_path_factory.mktemp("index")) as ws:
        yield MAKERS[request.param](ws)


def test_it_is_an_index(index: Index) -> None:
    assert isinstance(index, Index)
    assert len(index) == len(DOCUMENTS)
    assert len(index.digest) == 64


def test_the_passage_that_was_asked_for_comes_first(index: Index) -> None:
    hits = index.search("remark number 123 about violins", k=5)
    assert hits[0].citation.document == "doc-123"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.passage for hit in hits}) == 5


def test_citations_are_verbatim(index: Index) -> None:
    texts = {document.id: document.text for document in DOCUMENTS}
    for hit in index.search("bread", k=50):
        c = hit.citation
        assert c.quote == texts[c.document][c.start : c.end]
        assert c.source == f"folder/{c.document}.txt" and c.title.startswith("Note")


@pytest.mark.parametrize("query", ["violins", "zzzz qqqq", "the", "?!"])
def test_a_filter_never_under_returns(index: Index, query: str) -> None:
    rare = {d.id for d in DOCUMENTS if d.metadata["kind"] == "rare"}
    hits = index.search(query, k=len(rare), where={"kind": "rare"})
    assert {hit.citation.document for hit in hits} == rare
    assert len(index.search(query, k=1000)) == len(DOCUMENTS)
    assert len(index.search(query, k=10, where={"kind": ["rare", "common"], "tags": "odd"})) == 10
    assert {h.citation.document for h in index.search(query, 9, where={"document": ["doc-3"]})} == {"doc-3"}
    assert index.search(query, k=10, where={"kind": "nothing"}) == []


def test_a_filter_on_what_no_document_has_is_an_error(index: Index) -> None:
    with pytest.raises(InputError, match="No document of the index has 'colour'"):
        index.search("bread", where={"colour": "red"})


SYNTAX = ['"', "AND OR NOT", "a* NEAR(b c, 2)", "a: x", "'; DROP TABLE words; --", "^(", "\0", "\ud800", "日", "-x +y"]


@pytest.mark.parametrize("query", SYNTAX)
def test_no_query_is_syntax(index: Index, query: str) -> None:
    assert len(index.search(query, k=3)) == 3


@given(st.text(min_size=1).filter(str.strip))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_query(index: Index, query: str) -> None:
    assert len(index.search(query, k=2)) == 2


@pytest.mark.parametrize(("query", "k"), [("", 1), ("  \n", 1), ("bread", 0), ("bread", -1)])
def test_nothing_asked_is_refused(index: Index, query: str, k: int) -> None:
    with pytest.raises(InputError):
        index.search(query, k=k)


def test_many_threads_read_the_same(index: Index) -> None:
    queries = [f"remark number {i} about {TOPICS[i % 4]}" for i in range(24)]
    alone = [[(h.passage, round(h.score, 5)) for h in index.search(q, 5)] for q in queries]
    found: dict[int, object] = {}

    def ask(i: int) -> None:
        found[i] = [(h.passage, round(h.score, 5)) for h in index.search(queries[i], 5)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(queries))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(queries))] == alone


def test_hits_say_what_each_retriever_said(index: Index) -> None:
    hit = index.search("violins have strings", k=1)[0]
    assert json.loads(json.dumps(dict(hit.parts))) == hit.parts
    assert hit.parts["dense_rank"] >= 1

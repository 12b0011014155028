"""What every `Index` must do, and every `LiveIndex`. A new implementation adds itself to `MAKERS` and `LIVE`."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench import _postgres_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.apply.rag.chunking import chunk, embedding_text
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.rag.indexes.embedded import cells
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.live import open_live
from windlass.core.documents import Document, Entry, document_digest, write_documents
from windlass.core.errors import InputError, NotFound
from windlass.core.protocols import BatchIndex, Embedder, Index, LiveIndex
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

LABELLED = {
    name: Document(
        name,
        f"{name}.txt",
        name,
        f"A secret about {name} pumps.",
        metadata={"kind": "secret", "access": access} | ({"secrecy": "high"} if name == "red" else {}),
    )
    for name, access in [("red", ["red"]), ("both", ["red", "blue"])]
}


def hybrid(ws: Workspace) -> HybridIndex:
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", [*DOCUMENTS, *LABELLED.values()])
    embedder = HashingEmbedder()
    return HybridIndex.open(build_index(ws, draft.done, embedder), embedder)


def entries(documents: Iterable[Document], embedder: Embedder, how: str = "") -> list[Entry]:
    """As ingesting makes them."""
    made = []
    for document in documents:
        passages = list(chunk(document))
        texts = [embedding_text(passage) for passage in passages]
        vectors = embedder.embed(texts).vectors if texts else np.zeros((0, embedder.dimension), np.float32)
        made.append(Entry(document, document_digest(document, {"how": how}), passages, vectors))
    return made


def embedded(ws: Workspace) -> LiveIndex:
    return open_live(ws.root / "indexes" / "docs", HashingEmbedder())


def written(index: LiveIndex) -> LiveIndex:
    """With the documents in it, in a few transactions and with a past."""
    everything = [*DOCUMENTS, *LABELLED.values()]
    old = [replace(d, text=f"What {d.id} said once.", metadata={"kind": "old"}) for d in everything[::7]]
    index.put(entries([*old, Document("gone", "gone.txt", "Gone", "Remark number 123 about violins.")], index.embedder))
    for first in range(0, len(everything), 150):
        index.put(entries(everything[first : first + 150], index.embedder))
    assert index.delete(["gone", "never there"]) == 1
    return index


def snapshot(ws: Workspace) -> HybridIndex:
    return HybridIndex.open(written(embedded(ws)).snapshot(ws, "frozen"), HashingEmbedder())


def celled(ws: Workspace) -> LiveIndex:
    """Searched by cells of a part of its vectors, though there be few: some came later, some are gone."""
    settings = SearchSettings(depth=1)
    index = written(open_live(ws.root / "indexes" / "celled", HashingEmbedder(), settings))
    index.delete([f"doc-{i}" for i in range(0, 400, 5)])
    index.make_cells(least=1, recall=0.4)  # type: ignore[attr-defined]
    index.put(entries(DOCUMENTS[::5], index.embedder))
    assert index.cells is not None  # type: ignore[attr-defined]
    return index


def postgres(ws: Workspace) -> LiveIndex:
    if (why := _postgres_server.missing()) is not None:
        pytest.skip(why)
    from windlass.apply.rag.indexes.postgres import PostgresIndex

    return PostgresIndex(_postgres_server.shared().dsn, HashingEmbedder(), name=uuid.uuid4().hex)


def qdrant(ws: Workspace) -> LiveIndex:
    pytest.importorskip("qdrant_client")
    from windlass.apply.rag.indexes.qdrant import MEMORY, QdrantIndex

    return QdrantIndex(MEMORY, HashingEmbedder())


LIVE: dict[str, Callable[[Workspace], LiveIndex]] = {"embedded": embedded, "postgres": postgres, "qdrant": qdrant}
"""New and empty ones."""

MAKERS: dict[str, Callable[[Workspace], Index]] = {
    "hybrid": hybrid,
    "snapshot": snapshot,
    "celled": celled,
    **{name: lambda ws, make=make: written(make(ws)) for name, make in LIVE.items()},  # type: ignore[misc]
}


@pytest.fixture(scope="module", params=list(MAKERS))
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Workspace(tmp_path_factory.mktemp("index")) as ws, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "WORTH", 0)  # cells are used wherever they are
        made = MAKERS[request.param](ws)
        yield made
        made.close()  # type: ignore[attr-defined]


@pytest.fixture(params=list(LIVE))
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveIndex]:
    with Workspace(tmp_path) as ws:
        index = LIVE[request.param](ws)
        yield index
        index.close()


def test_it_is_an_index(index: Index) -> None:
    assert isinstance(index, Index)
    assert len(index) == len(DOCUMENTS) + len(LABELLED)
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


def test_several_queries_at_once_find_what_each_finds(index: Index) -> None:
    if not isinstance(index, BatchIndex):
        pytest.skip("searches one query at a time")
    queries = ["remark number 123 about violins", "bread", "stars"]
    alone = [index.search(query, 7, {"kind": "common"}) for query in queries]
    for vectors in (None, HashingEmbedder().embed(queries, "query").vectors):
        together = index.search_many(queries, 7, {"kind": "common"}, vectors=vectors)
        for found, expected in zip(together, alone, strict=True):
            assert [hit.passage for hit in found] == [hit.passage for hit in expected]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


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


def test_labelled_documents_are_seen_by_those_who_hold_a_label(index: Index) -> None:
    """What anybody may see comes from `DOCUMENTS`; `labelled` documents are in the index beside them."""
    assert all(hit.citation.document not in LABELLED for hit in index.search("secret pumps", k=1000))
    for held, seen in [(["red"], {"red", "both"}), (["blue", "none"], {"both"}), (["green"], set())]:
        hits = index.search("secret pumps", k=1000, access=held)
        assert {hit.citation.document for hit in hits} & set(LABELLED) == seen
        assert len(hits) == len(DOCUMENTS) + len(seen)
    assert [h.citation.document for h in index.search("secret", 9, {"kind": "secret"}, access=["blue"])] == ["both"]
    assert index.search("secret", 9, {"kind": "secret"}) == []


def test_a_known_vector_is_taken_for_the_querys_own(index: Index) -> None:
    other = HashingEmbedder().embed(["violins have four strings"], "query").vectors[0]
    own, given = index.search("remark", 5), index.search("remark", 5, vector=other)
    assert own[0].parts["dense"] != given[0].parts["dense"]
    assert given[0].parts["dense"] == pytest.approx(index.search("violins have four strings", 1)[0].parts["dense"])


def test_a_word_weighs_as_often_as_it_is_said(index: Index) -> None:
    """What feedback asks with (`rag.retrieving.feedback`)."""
    question, vector = "remark number 123 about bread", HashingEmbedder().embed(["violins"], "query").vectors[0]
    once = index.search(question, 30, vector=vector)
    often = index.search(" ".join([question] * 8), 30, vector=vector)
    assert [hit.score for hit in often] == pytest.approx([hit.score for hit in once], rel=1e-3)
    for hit in often:
        same = next((one for one in once if one.passage == hit.passage), None)
        assert same is None or hit.parts["bm25"] == pytest.approx(8 * same.parts["bm25"], rel=1e-3)
    (light,) = index.search("bread bread bread 123", 1, {"document": "doc-123"}, vector=vector)
    (heavy,) = index.search("bread 123 123 123", 1, {"document": "doc-123"}, vector=vector)
    assert heavy.parts["bm25"] > light.parts["bm25"] > 0, "a rare word counts for more the more often it is said"


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


def test_a_filter_of_private_documents_is_not_told_to_others(index: Index) -> None:
    with pytest.raises(InputError, match="No document of the index has 'secrecy'") as refused:
        index.search("pumps", where={"secrecy": "high"})
    assert "access" not in refused.value.hint and "kind" in refused.value.hint
    assert len(index.search("pumps", 9, {"secrecy": "high"}, access=["red"])) == 1


# what is written to while it is searched ----------------------------------------------------------------------------

LONG = Document(
    "long",
    "book.md",
    "A book",
    "\n\n".join(f"Part {i}. " + " ".join(f"word{i}x{j} flows along the river." for j in range(25)) for i in range(6)),
    "markdown",
    metadata={"kind": "book", "year": 1999, "nested": {"a": [1]}},
)


def found(index: Index, query: str, k: int = 100, **more: object) -> list[tuple[str, int]]:
    return [(h.citation.document, h.citation.start) for h in index.search(query, k, **more)]  # type: ignore[arg-type]


def test_an_empty_index_finds_nothing(live: LiveIndex) -> None:
    assert isinstance(live, LiveIndex)
    assert len(live) == 0 and live.held() == {} and live.search("anything") == []
    assert live.search("anything", where={"kind": "note"}) == []
    live.put([])
    assert live.delete(["nothing"]) == 0


def test_what_is_put_again_takes_the_place_of_what_was_there(live: LiveIndex) -> None:
    embedder = live.embedder
    live.put(entries(DOCUMENTS[:20], embedder))
    one = live.digest
    assert live.held() == {d.id: document_digest(d, {"how": ""}) for d in DOCUMENTS[:20]}
    changed = replace(DOCUMENTS[3], text="Nothing but umbrellas.", metadata={"kind": "wet"})
    live.put(entries([changed, LONG], embedder))
    assert found(live, "umbrellas", 1) == [("doc-3", 0)] and found(live, "umbrellas", 99, where={"kind": "wet"}) == [
        ("doc-3", 0)
    ]
    assert "doc-3" not in {name for name, _ in found(live, "violins strings", where={"kind": "common"})}
    assert live.digest != one and len(live) == 20 + len(entries([LONG], embedder)[0].passages)
    assert live.delete(["long"]) == 1
    live.put(entries([DOCUMENTS[3]], embedder))
    assert live.digest == one and len(live) == 20 and "long" not in live.held()
    with pytest.raises(InputError, match="No document of the index has 'year'"):
        live.search("river", where={"year": 1999})


def test_what_stands_above_a_passage_is_searched_and_not_quoted(live: LiveIndex) -> None:
    live.put(entries(DOCUMENTS[:20], live.embedder))
    (entry,) = entries([DOCUMENTS[7]], live.embedder)
    above = [replace(passage, context="Of the walrus.") for passage in entry.passages]
    live.put([replace(entry, passages=above)])
    best = live.search("walrus", 1)[0]
    assert best.citation.document == DOCUMENTS[7].id and best.parts["bm25"] > 0 and "walrus" not in best.citation.quote
    live.put([entry])
    assert not any(hit.parts.get("bm25") for hit in live.search("walrus", 20))


def test_a_passage_leads_to_its_neighbours_and_to_the_whole_document(live: LiveIndex) -> None:
    (entry,) = entries([LONG], live.embedder)
    live.put(entries(DOCUMENTS[:3], live.embedder))
    live.put([entry, *entries(DOCUMENTS[4:6], live.embedder)])
    assert len(entry.passages) > 5
    middle = next(h for h in live.search("river", 99) if h.citation.start == entry.passages[3].start)
    around = live.passages_around(middle.passage, 2, 1)
    assert [c.start for c in around] == [p.start for p in entry.passages[1:5]] and around[2] == middle.citation
    assert [c.start for c in live.passages_around(middle.passage, 99, 99)] == [p.start for p in entry.passages]
    assert live.passages_around(middle.passage, 0, 0) == [middle.citation]
    assert live.document_of(middle.passage) == replace(LONG, sections=())
    assert np.array_equal(live.vectors_of([middle.passage, middle.passage]), entry.vectors[[3, 3]])
    live.delete(["long"])
    for look in (live.passages_around, live.document_of, lambda passage: live.vectors_of([passage])):
        with pytest.raises(NotFound, match=str(middle.passage)):
            look(middle.passage)


def test_a_document_without_passages_is_held(live: LiveIndex) -> None:
    live.put(entries([Document("empty", "empty.txt", "Empty", " \n ", metadata={"kind": "nothing"})], live.embedder))
    assert list(live.held()) == ["empty"] and len(live) == 0
    assert live.search("anything", where={"kind": "nothing"}) == []
    assert live.delete(["empty"]) == 1 and live.held() == {}


def test_labels_follow_the_document(live: LiveIndex) -> None:
    secret = replace(LONG, metadata={"access": ["team"]})
    live.put(entries([DOCUMENTS[0], secret], live.embedder))
    assert {name for name, _ in found(live, "river")} == {"doc-0"}
    assert {name for name, _ in found(live, "river", access=["team"])} == {"doc-0", "long"}
    live.put(entries([LONG], live.embedder))
    assert {name for name, _ in found(live, "river")} == {"doc-0", "long"}
    live.put(entries([secret], live.embedder))
    assert {name for name, _ in found(live, "river", access=["other"])} == {"doc-0"}
    for wrong in ([], "team", [""], [1]):
        with pytest.raises(InputError, match="access"):
            live.put(entries([replace(LONG, metadata={"access": wrong})], live.embedder))
    assert {name for name, _ in found(live, "river")} == {"doc-0"}


def test_what_cannot_be_put_changes_nothing(live: LiveIndex) -> None:
    live.put(entries(DOCUMENTS[:4], live.embedder))
    before = live.digest
    good, bad = entries([LONG, DOCUMENTS[7]], live.embedder)
    for broken in (
        replace(bad, vectors=bad.vectors[:, :-1]),
        replace(bad, vectors=np.zeros((9, live.embedder.dimension), np.float32)),
        replace(bad, vectors=np.full_like(bad.vectors, np.nan)),
        replace(bad, passages=[replace(bad.passages[0], text="other words")]),
        replace(bad, embedder="f" * 64),
        good,
    ):
        with pytest.raises(InputError):
            live.put([good, broken])
    assert live.digest == before and "long" not in live.held() and len(live) == 4


def test_any_text_can_be_put(live: LiveIndex) -> None:
    odd = [
        Document(f"d\ud800{i}", f"s{i}\udfff", f"t{i}\0", text, metadata={"key\ud801": "a\udc00", "b": True})
        for i, text in enumerate(["nul \0 here", "lone \ud800 half", "日本語 のテキスト", "e\u0301" * 40, "🏴" * 30])
    ]
    live.put(entries(odd, live.embedder))
    assert len(live.search("here half text", 99)) == len(live) == len(odd)
    assert len(live.search("here half text", 99, {"b": True})) == len(odd)
    for hit in live.search("x", 99):
        text = live.document_of(hit.passage).text
        assert text[hit.citation.start : hit.citation.end] == hit.citation.quote
    assert live.delete([d.id for d in odd]) == len(odd) and len(live) == 0


def test_threads_search_while_one_writes(live: LiveIndex) -> None:
    made = entries(DOCUMENTS[:40], live.embedder)
    live.put(made[:20])
    wrong: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            hits = live.search("remark about pumps", 100, where={"tags": "all"})
            if len({h.citation.document for h in hits}) != len(hits) or len(hits) not in (20, 25):
                wrong.append(len(hits))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(12):  # five come and go at once: nobody sees some of them
        live.put(made[20:25]) if i % 2 == 0 else live.delete([e.document.id for e in made[20:25]])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong

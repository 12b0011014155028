"""An index in PostgreSQL, on a real server: it ranks as the embedded one, and its sums stay true. What every index
must do is in `tests/conformance/test_index.py`; what it does when the server dies in `test_postgres_faults.py`."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bench import _postgres_server
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.core.documents import Document, Entry, Passage, write_documents
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

if (why := _postgres_server.missing()) is not None:
    pytest.skip(why, allow_module_level=True)

from windlass.apply.rag.indexes.postgres import PostgresIndex, PostgresSettings, searching
from windlass.apply.rag.indexes.postgres.schema import dropped
from windlass.apply.rag.indexes.postgres.writing import storable

WORDS = [
    f"{a}{b}" for a in ("pump", "oven", "star", "string", "river", "stone") for b in ("", "ed", "house", "maker", "x")
]
SMALL = HashingEmbedder(32)
Maker = Callable[..., PostgresIndex]


def entry(id: str, text: str, *, embedder: HashingEmbedder = SMALL, size: int = 60, **metadata: object) -> Entry:
    document = Document(id, f"{id}.txt", id.title(), text, metadata=metadata)
    passages = [
        Passage(id, document.title, "", at, min(at + size, len(text)), text[at : at + size])
        for at in range(0, len(text), size)
    ]
    vectors = embedder.embed([f"{p.title}\n{p.text}" for p in passages]).vectors
    return Entry(document, f"{hash((text, str(metadata)))}", passages, vectors)


def some_text(draw: random.Random, words: int) -> str:
    """Few words are common and most are rare, as in any language."""
    return " ".join(WORDS[min(int(draw.paretovariate(0.6)), len(WORDS)) - 1] for _ in range(words))


@pytest.fixture
def make() -> Iterator[Maker]:
    made: list[PostgresIndex] = []

    def maker(embedder: HashingEmbedder = SMALL, name: str | None = None, **settings: object) -> PostgresIndex:
        name = name or f"t{uuid.uuid4().hex}"
        made.append(
            PostgresIndex(_postgres_server.shared().dsn, embedder, name=name, settings=PostgresSettings(**settings))  # type: ignore[arg-type]
        )
        return made[-1]

    yield maker
    for index in made:
        dropped(index._database, index.name)
        index.close()


def found(index: PostgresIndex | HybridIndex, query: str, k: int = 10, **how: object) -> list[tuple[str, int, float]]:
    return [(h.citation.document, h.citation.start, round(h.score, 4)) for h in index.search(query, k, **how)]  # type: ignore[arg-type]


QUERIES = [
    "pumphouse",
    "star stone river",
    "oven ovened ovenhouse stringmaker stringmaker",
    "nothing of that",
    "stonex",
]


@pytest.mark.parametrize("cheap", [0, 1_000_000], ids=["rare words first", "all words"])
@pytest.mark.parametrize(
    "search",
    [
        SearchSettings(depth=20),
        SearchSettings("rrf", depth=20),
        SearchSettings(dense=0.0, context_weight=3.0, depth=15),
    ],
    ids=["weighted", "rrf", "words"],
)
def test_it_ranks_as_the_embedded_index(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    make: Maker,
    search: SearchSettings,
    cheap: int,
) -> None:
    monkeypatch.setattr(searching, "_CHEAP", cheap)
    draw = random.Random(5)
    documents = [
        Document(f"d{i}", f"d{i}.txt", f"Title {WORDS[i % 7]} {i}", some_text(draw, 12), metadata={"part": i % 3})
        for i in range(300)
    ]
    with Workspace(tmp_path_factory.mktemp("ws")) as ws:
        with ws.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", documents)
        embedded = HybridIndex.open(build_index(ws, draft.done, SMALL), SMALL, settings=search)
        index = make()
        index.settings = search
        passages = embedded.passages()
        vectors = dict(zip(((c.document, c.start) for c in passages), embedded.vectors, strict=True))
        for at in range(0, 300, 90):
            index.put(
                Entry(
                    document,
                    "1",
                    [
                        Passage(c.document, c.title, c.heading, c.start, c.end, c.quote)
                        for c in passages
                        if c.document == document.id
                    ],
                    np.stack([vectors[c.document, c.start] for c in passages if c.document == document.id]),
                )
                for document in documents[at : at + 90]
            )
        assert len(index) == len(embedded) == len(passages)
        for query in QUERIES:
            for where in (None, {"part": 1}, {"part": [0, 2], "document": [f"d{i}" for i in range(40)]}):
                ours, theirs = index.search(query, 12, where), embedded.search(query, 12, where)
                assert [round(h.score, 4) for h in ours] == [round(h.score, 4) for h in theirs]
                for one, other in zip(ours, theirs, strict=True):
                    if one.citation.document == other.citation.document:
                        assert one.citation == other.citation
                        assert one.parts == pytest.approx(other.parts, abs=1e-3)
                ids = [h.passage for h in ours]
                assert (
                    embedded.coverage(query, [h.passage for h in theirs[:1]])
                    == pytest.approx(index.coverage(query, ids[:1]))
                    or ours[0].citation != theirs[0].citation
                )
                assert len({h.citation.document for h in ours} & {h.citation.document for h in theirs}) >= 11
        embedded.close()


def sums(index: PostgresIndex) -> dict[str, object]:
    """The sums that BM25 lives on, as they are kept and as they are when counted."""

    async def ask(db: object) -> dict[str, object]:
        fetch = db.fetch  # type: ignore[attr-defined]
        kept = tuple((await fetch("SELECT documents, passages, tokens, labelled FROM meta"))[0])
        counted = tuple(
            (
                await fetch(
                    "SELECT (SELECT count(*) FROM documents), count(*), coalesce(sum(tokens), 0),"
                    " (SELECT count(*) FROM documents WHERE access <> '{\"\"}') FROM passages"
                )
            )[0]
        )
        words = await fetch("SELECT id, passages FROM words WHERE passages <> 0 ORDER BY id")
        held = await fetch("SELECT word, count(*) FROM postings GROUP BY word ORDER BY word")
        lost = await fetch("SELECT 1 FROM postings WHERE passage NOT IN (SELECT id FROM passages)")
        lengths = await fetch(
            "SELECT p.id FROM passages p LEFT JOIN postings o ON o.passage = p.id GROUP BY p.id"
            " HAVING p.tokens <> coalesce(sum(o.above + o.inside), 0)"
        )
        return {
            "meta": (kept, counted),
            "words": ([tuple(r) for r in words], [tuple(r) for r in held]),
            "lost": (lost, []),
            "lengths": (lengths, []),
        }

    return index._database.run(ask)  # type: ignore[arg-type]


def test_the_sums_stay_true_through_puts_and_deletes(make: Maker) -> None:
    draw = random.Random(11)
    index, fresh = make(), make()
    state: dict[str, Entry] = {}
    for step in range(12):
        ids = draw.sample([f"d{i}" for i in range(25)], 6)
        if step % 3 == 2:
            assert index.delete([*ids, "unknown"]) == len(state.keys() & set(ids))
            for id in ids:
                state.pop(id, None)
        else:
            labels = {"access": ["red"]} if step % 2 else {}
            put = [entry(id, some_text(draw, draw.randrange(0, 40)), step=step, **labels) for id in ids]
            index.put(put)
            state |= {one.document.id: one for one in put}
        assert index.held() == {id: one.digest for id, one in state.items()}
        for what, (kept, counted) in sums(index).items():  # type: ignore[misc]
            assert kept == counted, what
    fresh.put(state.values())
    for query in QUERIES:
        ours, theirs = found(index, query, access=["red"]), found(fresh, query, access=["red"])
        assert [score for *_, score in ours] == [score for *_, score in theirs]
    assert index.digest == fresh.digest != make().digest


def test_a_put_that_fails_changes_nothing(make: Maker) -> None:
    index = make()
    index.put([entry("a", "pumps move water"), entry("b", "bread rises")])
    before = index.held(), index.digest, found(index, "pumps")
    many = [entry(f"n{i}", "a note of no weight") for i in range(300)]
    broken = Entry(many[0].document, "x", many[0].passages, many[0].vectors[:, :5])
    twice = [entry("a", "other text"), *many, entry("a", "yet another")]
    numbers = entry("c", "text")
    for entries, said in [
        ([entry("a", "other text"), *many[1:], broken], "shape"),
        (twice, "twice"),
        ([Entry(numbers.document, "x", numbers.passages, numbers.vectors * np.nan)], "not finite"),
        ([entry("c", "text", day={1, 2}.__iter__())], "metadata"),
        ([entry("c", "text", access=[""])], "access"),
        ([entry("i" * 3000, "text")], "longer than"),
    ]:
        with pytest.raises(InputError, match=said):
            index.put(entries)
        assert (index.held(), index.digest, found(index, "pumps")) == before
    with pytest.raises(ZeroDivisionError):
        index.put(entry("c", str(1 // i)) for i in (1, 0))
    assert (index.held(), index.digest, found(index, "pumps")) == before
    index.put([entry("c", "another one")])
    assert len(index.held()) == 3


def test_odd_texts_are_stored_and_found(make: Maker) -> None:
    index = make()
    text = "zero\0 and half \ud800 and " + "x" * 5000 + " pump"
    index.put([entry("odd", text, size=9000, note="a\0b\ud800", **{"tricky '\"{}$1": ["x", None]}), entry("e", "")])
    [hit] = index.search("pump", 5)
    assert (hit.citation.start, hit.citation.end) == (0, len(text)) and len(hit.citation.quote) == len(text)
    assert index.search("x" * 5000, 5)[0].parts["bm25"] > 0 and index.search("x" * 4999, 5)[0].parts["bm25"] == 0
    assert index.search("pump", 5, {"tricky '\"{}$1": "x"}) and index.search("pump", 5, {"tricky '\"{}$1": None})
    assert index.search("pump", 5, {"note": "a\0b\ud800"}) and not index.search("pump", 5, {"note": "a"})
    assert index.document_of(hit.passage).metadata["tricky '\"{}$1"] == ["x", None]
    assert index.held().keys() == {"odd", "e"} and len(index) == 1


# the graph ----------------------------------------------------------------------------------------------------------


def clustered(count: int, draw: np.random.Generator) -> np.ndarray:
    """Nearly all in one direction, a few in the opposite one."""
    vectors = draw.normal(size=(count, 32)) * 0.05
    vectors[:, 0] += 1.0
    vectors[: count // 50, 0] -= 2.0
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("scan", ["relaxed_order", "off"])
def test_a_filter_that_the_graph_cannot_follow_returns_what_there_is(make: Maker, scan: str) -> None:
    """Asking for what is far away, among what is near: the graph is walked through, or gives up as it did before
    pgvector 0.8."""
    index = make(exact_below=5, ef_search=10, connections=1)
    index._database.run(lambda db: db.execute(f"SET hnsw.iterative_scan = {scan}"))
    vectors = clustered(3000, np.random.default_rng(3))
    index.put(
        Entry(
            Document(f"d{i}", f"d{i}", f"d{i}", "a note", metadata={"far": i < 60}),
            "1",
            [Passage(f"d{i}", f"d{i}", "", 0, 6, "a note")],
            vectors[i : i + 1],
        )
        for i in range(3000)
    )

    async def plain(db: object) -> int:
        await db.execute(
            "SET LOCAL hnsw.iterative_scan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"
        )  # type: ignore[attr-defined]
        rows = await db.fetch(  # type: ignore[attr-defined]
            "SELECT p.id FROM passages p JOIN documents d ON d.id = p.document AND d.metadata @> '{\"far\": true}'"
            " ORDER BY p.embedding <#> $1 LIMIT 20",
            vectors[2000],
        )
        return len(rows)

    assert index._database.read(plain) < 20, "what everybody else would get"  # type: ignore[arg-type]
    hits = index.search("zzz", 20, {"far": True}, vector=vectors[2000])
    best = np.argsort(-(vectors[:60] @ vectors[2000]), kind="stable")[:20]
    assert [h.citation.document for h in hits] == [f"d{i}" for i in best]
    everywhere = index.search("zzz", 50, vector=vectors[2000])
    exact = set(np.argsort(-(vectors @ vectors[2000]))[:50])
    assert len(everywhere) == 50 and len(exact & {int(h.citation.document[1:]) for h in everywhere}) >= 45
    assert len(index.search("zzz", 2990, vector=vectors[2000])) == 2990, "more than the graph ever looks at"


def test_words_that_were_not_looked_up_are_not_overlooked(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rarest word is held by so many that the guess is made, and once each, among others that are held often."""
    monkeypatch.setattr(searching, "_CHEAP", 0)
    index = make()
    texts = ["stone " + "filler " * 60] * 8 + ["pump " * 8] * 12 + ["bread rises well"] * 30
    index.put(entry(f"d{i}", text, size=1000) for i, text in enumerate(texts))
    index.settings = SearchSettings(dense=0.0, depth=6)
    fast = found(index, "stone pump", 6)
    monkeypatch.setattr(searching, "_CHEAP", 10**9)
    assert fast == found(index, "stone pump", 6)
    assert all(int(document[1:]) >= 8 for document, *_ in fast), "the more common word decides"


# one database, many indexes -----------------------------------------------------------------------------------------


def test_indexes_of_a_database_know_nothing_of_each_other(make: Maker) -> None:
    one, other = make(), make(HashingEmbedder(16))
    one.put([entry("a", "pumps move water")])
    other.put([entry("b", "bread rises", embedder=HashingEmbedder(16))])
    assert one.held().keys() == {"a"} and other.held().keys() == {"b"}
    again = make(name=one.name)
    again.put([entry("c", "stars burn")])
    assert one.held().keys() == {"a", "c"} and [h.citation.document for h in one.search("stars", 1)] == ["c"]


def test_an_index_is_opened_by_its_own_embedder_only(make: Maker) -> None:
    index = make()
    with pytest.raises(InputError, match=f"Index '{index.name}' .* holds vectors of hashing-32 .* not of hashing-16"):
        make(HashingEmbedder(16), name=index.name)


@pytest.mark.parametrize("name", ["", "Docs", "a b", 'x"y', "a" * 60, "-a", "é"])
def test_names_that_are_none_are_refused(make: Maker, name: str) -> None:
    with pytest.raises(InputError, match="cannot be called"):
        PostgresIndex(_postgres_server.shared().dsn, SMALL, name=name)


def test_two_that_make_the_same_index_at_once_make_one(make: Maker) -> None:
    name, made, failed = f"t{uuid.uuid4().hex}", [], []

    def work(number: int) -> None:
        try:
            index = make(name=name)
            index.put([entry(f"d{number}", "pumps move water")])
            made.append(index)
        except Exception as error:  # noqa: BLE001 - any error fails the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(index.held().keys() == {"d0", "d1", "d2", "d3"} and len(index) == 4 for index in made)


def test_vectors_too_long_for_the_graph_are_searched_one_by_one(make: Maker) -> None:
    wide = HashingEmbedder(2100)
    index = make(wide, exact_below=2)
    index.put([entry(f"d{i}", f"{WORDS[i]} of note", embedder=wide) for i in range(6)])
    assert index.search(f"{WORDS[3]}", 1)[0].citation.document == "d3"


def test_it_is_asked_from_an_event_loop_and_from_many_threads(make: Maker) -> None:
    index = make()
    index.put([entry(f"d{number}", f"the pump of house {number}") for number in range(20)])
    wanted = [hit.passage for hit in index.search("pump", 5)]

    async def inside() -> list[int]:
        return [hit.passage for hit in index.search("pump", 5)]

    assert asyncio.run(inside()) == wanted
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: [hit.passage for hit in index.search("pump", 5)], range(60)))
    assert found == [wanted] * 60


ODD = ["it's", "a\\b", "'; DROP TABLE passages; --", "{}", "{0}", "$1", "x\0y", "é\ud800", '"', "\\'", "E'\\n'", "%s"]


@pytest.fixture(scope="module")
def odd() -> Iterator[PostgresIndex]:
    """Each document has an odd id, value and label, and three passages that nobody else may see."""
    name = f"t{uuid.uuid4().hex}"
    index = PostgresIndex(_postgres_server.shared().dsn, SMALL, name=name, search=SearchSettings(dense=1.0))
    index.put(entry(text, "the pump " * 20, kind=text, access=[text]) for text in ODD)
    yield index
    dropped(index._database, name)
    index.close()


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("key", ["kind", "document", "source"])
def test_a_filter_that_is_written_out_finds_what_it_names(odd: PostgresIndex, key: str, text: str) -> None:
    value = f"{text}.txt" if key == "source" else text
    hits = odd.search("pump", 3, {key: value}, access=[text])
    assert {hit.citation.document for hit in hits} == {storable(text)} and len(hits) == 3
    assert odd.search("pump", 3, {key: value}, access=["another"]) == [] if key != "kind" else True


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("'\\\"{}$1;-"), max_size=12))
def test_a_filter_that_is_written_out_is_a_value(odd: PostgresIndex, text: str) -> None:
    for where in ({"kind": ["it's", text]}, {"document": [text, "it's"]}, {"kind": {text: "it's"}, "document": "it's"}):
        hits = odd.search("pump", 3, where, access=["it's", text])
        beside = odd.with_settings(SearchSettings(dense=0.99)).search("pump", 3, where, access=["it's", text])
        assert [hit.passage for hit in hits] == [hit.passage for hit in beside]


def test_connections_that_keep_plans_and_others_are_no_more_than_allowed(make: Maker) -> None:
    index = make(connections=2)
    index.put([entry(f"d{number}", f"the pump of house {number}") for number in range(20)])
    alone = index.with_settings(SearchSettings(dense=1.0))
    wanted = [hit.passage for hit in alone.search("pump", 5)]

    def ask(number: int) -> list[int]:
        return [hit.passage for hit in (alone if number % 3 else index).search("pump", 5)]

    with ThreadPoolExecutor(6) as pool:
        for number, found in enumerate(pool.map(ask, range(60))):
            assert len(found) == 5 and (number % 3 == 0 or found == wanted)
    assert index._database._open == len(index._database._idle) <= 2
    modes = [
        index._database.run(lambda db: db.fetchval("SHOW plan_cache_mode"), keeps_plans=keeps)
        for keeps in (True, False, True)
    ]
    assert modes == ["force_generic_plan", "force_custom_plan", "force_generic_plan"]


def test_an_interrupted_wait_leaves_a_usable_index(make: Maker) -> None:
    index = make()
    index.put([entry("a", "the pump")])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            index._database.run(lambda db: db.execute("SELECT pg_sleep(60)"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(index.search("pump")) == 1

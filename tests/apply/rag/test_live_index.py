"""The living index finds what a plain look at everything that is in it finds, whatever came before."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex
from windlass.apply.rag.indexes.embedded import postings, writing
from windlass.apply.rag.indexes.embedded.lexical import Occurrences
from windlass.apply.rag.indexes.embedded.vector_file import vectors_path
from windlass.apply.rag.indexes.fusion import SearchSettings, fuse
from windlass.apply.rag.indexes.live import EmbeddedIndex, open_live
from windlass.apply.rag.indexes.terms import K1, B, Tokenizer, idf_of
from windlass.core.documents import Document, Entry, Passage, document_digest
from windlass.core.errors import InputError, WorkspaceCorrupt
from windlass.core.workspace import Workspace

EMBEDDER = HashingEmbedder(16)
TOKENIZER = Tokenizer()
WORDS = ["pump", "water", "valve", "oven", "bread", "star", "the"]


def entry(name: str, texts: Sequence[str], metadata: dict[str, Any]) -> Entry:
    """A document of a passage for each text, with something that is in none between them."""
    whole, passages = "", []
    for text in texts:
        whole += "-- "
        passages.append(Passage(name, f"Title {name}", "", len(whole), len(whole) + len(text), text))
        whole += text + "\n"
    vectors = EMBEDDER.embed([f"Title {name}\n{text}" for text in texts]).vectors if texts else np.zeros((0, 16), "f4")
    document = Document(name, f"{name}.md", f"Title {name}", whole + "end", metadata=metadata)
    return Entry(document, document_digest(document, {"texts": list(texts)}), passages, vectors)


class Model:
    """What an index does, by looking at every passage: the scores are the formulas', in float64."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def put(self, entries: Sequence[Entry]) -> None:
        for one in entries:
            self.entries.pop(one.document.id, None)
            self.entries[one.document.id] = one

    def search(
        self, query: str, k: int, where: dict[str, Any] | None, access: Sequence[str]
    ) -> list[tuple[str, int, float]]:
        everything = [(e, p, v) for e in self.entries.values() for p, v in zip(e.passages, e.vectors, strict=True)]
        if not everything:
            return []
        terms = [TOKENIZER.terms([f"{p.title}\n{p.text}"])[0] for _, p, _ in everything]
        average = sum(map(len, terms)) / len(terms)
        bm25 = np.zeros(len(everything))
        for term in TOKENIZER.terms([query])[0]:
            idf = idf_of(sum(term in words for words in terms), len(terms))
            for i, words in enumerate(terms):
                held = words.count(term)
                bm25[i] += idf * held * (K1 + 1) / (held + K1 * (1 - B + B * len(words) / average))
        asked = EMBEDDER.embed([query], "query").vectors[0]
        dense = np.array([v @ asked for _, _, v in everything])
        allowed = [i for i, (e, _, _) in enumerate(everything) if _passes(e.document, where, access)]
        if not allowed:
            return []
        ranked = fuse(dense[allowed].astype("f4"), bm25[allowed].astype("f4"), k, SearchSettings())
        rows = [everything[allowed[row]] for row in ranked.rows]
        return [(e.document.id, p.start, float(s)) for (e, p, _), s in zip(rows, ranked.score, strict=True)]


def _passes(document: Document, where: dict[str, Any] | None, access: Sequence[str]) -> bool:
    labels = document.metadata.get("access")
    if labels is not None and not set(labels) & set(access):
        return False
    for key, wanted in (where or {}).items():
        held = document.id if key == "document" else document.metadata.get(key)
        values = held if isinstance(held, list) else [held]
        if not any(value in (wanted if isinstance(wanted, list) else [wanted]) for value in values):
            return False
    return True


def assert_same(index: Any, model: Model, query: str, k: int, where: dict[str, Any] | None, access: list[str]) -> None:
    expected = model.search(query, k, where, access)
    try:
        hits = index.search(query, k, where, access=access)
    except InputError as error:
        key = str(error).split("'")[1]
        seen = [e.document for e in model.entries.values() if _passes(e.document, None, access)]
        assert not any(key in document.metadata for document in seen) and key != "document"
        return
    assert len(hits) == len(expected)
    assert [h.score for h in hits] == pytest.approx([score for _, _, score in expected], abs=1e-5)
    # equal scores may come in another order: the model keeps the order of putting too, but rounds elsewhere
    got = sorted((round(h.score, 4), h.citation.document, h.citation.start) for h in hits)
    if len({round(score, 4) for _, _, score in model.search(query, k + 1, where, access)}) == k + 1:
        assert got == sorted((round(score, 4), name, start) for name, start, score in expected)


texts = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), max_size=3)
metadata = st.fixed_dictionaries(
    {"n": st.integers(0, 4)},
    optional={
        "access": st.lists(st.sampled_from(["red", "blue"]), min_size=1),
        "tags": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "odd": st.sampled_from([None, True, {"x": 1}]),
    },
)
names = st.sampled_from([f"d{i}" for i in range(9)])
wheres = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "n": st.one_of(st.integers(0, 5), st.lists(st.integers(0, 5))),
            "tags": st.sampled_from(["a", ["a", "b"], "c"]),
            "odd": st.sampled_from([None, True, [None, {"x": 1}]]),
            "document": st.sampled_from(["d1", ["d2", "d3", "d4"]]),
        },
    ),
)


class Machine(RuleBasedStateMachine):
    """Two handles on one folder, as two processes have them: one is written through, both must find the same."""

    @initialize(few=st.booleans())
    def start(self, few: bool) -> None:
        self.few, writing._FEW = writing._FEW, 0 if few else writing._FEW  # so that vectors are written anew often
        self.home = tempfile.TemporaryDirectory()
        self.folder = Path(self.home.name) / "index"
        self.model = Model()
        self.index = open_live(self.folder, EMBEDDER)
        self.other = open_live(self.folder, EMBEDDER)

    @rule(made=st.lists(st.tuples(names, texts, metadata), min_size=1, max_size=5, unique_by=lambda t: t[0]))
    def put(self, made: list[tuple[str, list[str], dict[str, Any]]]) -> None:
        entries = [entry(*one) for one in made]
        self.index.put(entries)
        self.model.put(entries)

    @rule(gone=st.sets(names, max_size=3))
    def delete(self, gone: set[str]) -> None:
        assert self.index.delete(gone) == len(gone & self.model.entries.keys())
        for name in gone:
            self.model.entries.pop(name, None)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = open_live(self.folder, EMBEDDER)

    @rule(
        query=st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=4).map(" ".join),
        k=st.integers(1, 12),
        where=wheres,
        access=st.lists(st.sampled_from(["red", "blue", "green"]), max_size=2),
    )
    def search(self, query: str, k: int, where: dict[str, Any] | None, access: list[str]) -> None:
        assert_same(self.index, self.model, query, k, where, access)
        assert_same(self.other, self.model, query, k, where, access)

    @invariant()
    def holds_what_was_put(self) -> None:
        if hasattr(self, "model"):
            assert self.index.held() == {name: one.digest for name, one in self.model.entries.items()}
            assert len(self.other) == sum(len(one.passages) for one in self.model.entries.values())

    def teardown(self) -> None:
        if hasattr(self, "model"):
            writing._FEW = self.few
            self.index.close()
            self.other.close()
            self.home.cleanup()


Machine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyHistory = Machine.TestCase


def many(count: int, seed: int = 0) -> list[Entry]:
    rng = np.random.default_rng(seed)
    return [
        entry(f"d{i}", [" ".join(rng.choice(WORDS, 12)) + f" {i}x{j}" for j in range(rng.integers(1, 5))], {"n": i % 7})
        for i in range(count)
    ]


QUERIES = ["pump water", "the oven", "17x0", "star star bread", "unknown"]


def ranking(index: Any, **more: Any) -> list[list[tuple[str, int, float]]]:
    return [[(h.citation.document, h.citation.start, h.score) for h in index.search(q, 9, **more)] for q in QUERIES]


def test_an_index_with_a_past_finds_what_a_new_one_finds(tmp_path: Path) -> None:
    entries = many(150)
    grown = open_live(tmp_path / "grown", EMBEDDER)
    ranking(grown)  # postings of these words are kept, and must follow
    for first in range(0, 150, 40):
        grown.put(many(170, seed=1)[first : first + 50])
        ranking(grown)
        grown.put(entries[first : first + 40])
        ranking(grown)
    grown.delete([f"d{i}" for i in range(150, 170)])
    fresh = open_live(tmp_path / "fresh", EMBEDDER)
    fresh.put(entries)
    assert grown.held() == fresh.held() and grown.digest == fresh.digest
    assert ranking(grown) == ranking(fresh)
    assert ranking(grown, where={"n": [1, 3]}) == ranking(fresh, where={"n": [1, 3]})
    with Workspace(tmp_path) as ws:
        frozen = HybridIndex.open(grown.snapshot(ws, "frozen"), EMBEDDER)
        assert ranking(frozen) == ranking(fresh)
        again = fresh.snapshot(ws, "again")
        assert again.digest == frozen.digest, "the same content is the same artifact"
    grown.compact()
    assert ranking(grown) == ranking(fresh)
    (file,) = grown.folder.glob("vectors-*.f32")
    assert file.stat().st_size == len(grown) * 64, "the file with dead rows is gone"


def test_what_begins_in_one_version_ends_in_it(tmp_path: Path) -> None:
    index = open_live(tmp_path / "index", EMBEDDER)
    index.put(many(30))
    with index.reading() as before:
        ranked = next(before.rank_many(["pump water"], 5))
        writer = threading.Thread(target=lambda: (index.delete([f"d{i}" for i in range(30)]), index.compact()))
        writer.start()
        while index.held():
            pass
        hits = before.hits(ranked)
        assert len(hits) == 5 and len(before) > 30 and before.document_of(hits[0].passage).text
    writer.join()
    assert len(index) == 0 and index.search("pump") == []


def test_dead_rows_leave_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_FEW", 50)
    index = open_live(tmp_path / "index", EMBEDDER)
    entries = many(60)
    for _ in range(6):
        index.put(entries)
    index.delete([])  # the next writer sweeps up
    (file,) = index.folder.glob("vectors-*.f32")
    held = len(index)
    assert file.stat().st_size <= 64 * (held / (1 - writing._DEAD) + 50 + held)
    fresh = open_live(tmp_path / "fresh", EMBEDDER)
    fresh.put(entries)
    assert ranking(index) == ranking(fresh)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_vectors_that_are_not_whole_are_named(tmp_path: Path, damage: str) -> None:
    index = open_live(tmp_path / "index", EMBEDDER)
    index.put(many(20))
    index.close()
    path = vectors_path(index.folder, 1)
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkspaceCorrupt, match=r"vectors-1\.f32") as refused:
        open_live(index.folder, EMBEDDER)
    assert "make the index again" in refused.value.hint


def test_a_living_index_is_not_opened_as_a_frozen_one(tmp_path: Path) -> None:
    open_live(tmp_path / "index", EMBEDDER).put(many(3))
    with pytest.raises(InputError, match="open_live"):
        HybridIndex.open(tmp_path / "index", EMBEDDER)
    with pytest.raises(InputError, match="holds vectors of hashing-16"):
        open_live(tmp_path / "index", HashingEmbedder(32))


def test_settings_rank_another_way_and_close_together(tmp_path: Path) -> None:
    index = open_live(tmp_path / "index", EMBEDDER)
    index.put(many(30))
    words = index.with_settings(SearchSettings(dense=0.0, context_weight=2.0))
    assert ranking(words) != ranking(index)
    index.put([replace(one, digest="new") for one in many(3, seed=5)])
    fresh = EmbeddedIndex(index.folder, [EMBEDDER], words.settings)
    assert ranking(words) == ranking(fresh)


def test_facets_are_what_can_be_filtered_by(tmp_path: Path) -> None:
    index = open_live(tmp_path / "index", EMBEDDER)
    index.put([entry(f"d{i}", ["pump"], {"n": i % 2, "tags": []}) for i in range(5)])
    index.put([entry("secret", ["star"], {"n": 7, "access": ["red"], "tags": ["a"]})])
    assert index.facets() == {"n": [0, 1]}
    assert index.facets(["red"]) == {"n": [0, 1, 7], "tags": ["a"]}
    assert index.metadata_of(["secret", "d1"]) == [{"n": 7, "access": ["red"], "tags": ["a"]}, {"n": 1, "tags": []}]


def test_merged_postings_are_those_of_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "_FAN", 3)
    entries = many(120)
    grown, fresh = open_live(tmp_path / "grown", EMBEDDER), open_live(tmp_path / "fresh", EMBEDDER)
    for first in range(0, 120, 6):
        grown.put(many(10, seed=first)[:4])  # come, and are replaced
        grown.put(entries[first : first + 6])
    grown.delete([name for name in grown.held() if int(name[1:]) % 3 == 0])
    grown.put(entries)  # in the same order as below
    fresh.put(entries)
    with grown._connections.lent() as connection:
        segments = connection.query("SELECT id, level FROM segments")
    assert len(segments) < 10 and max(level for _, level in segments) >= 2
    assert ranking(grown) == ranking(fresh)
    grown.compact()
    with grown._connections.lent() as connection:
        held = {
            term: Occurrences.unpacked([data]) for term, data in connection.query("SELECT term, data FROM postings")
        }
        alive = {row[0] for row in connection.query("SELECT id FROM passages")}
    assert {passage for one in held.values() for passage in one.ids.tolist()} == alive
    assert ranking(grown) == ranking(fresh)


def test_what_changes_again_and_again_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "_FAN", 3)
    monkeypatch.setattr(postings, "_LARGEST", 40)
    monkeypatch.setattr(writing, "_FEW", 30)
    index, other = (open_live(tmp_path / "index", EMBEDDER) for _ in range(2))
    entries = [*many(8), entry("empty", [], {})]
    for turn in range(60):
        index.put([replace(one, digest=str(turn)) for one in entries])
        if turn % 9 == 0:
            assert ranking(other) == ranking(index)
    with index._connections.lent() as connection:
        sizes = {
            table: connection.query(f"SELECT count(*) FROM {table}")[0][0]
            for table in ("documents", "passages", "segments", "removed")
        }
        terms = len({row[0] for row in connection.query("SELECT term FROM postings")})
        kept = connection.query("SELECT count(*) FROM postings")[0][0]
    assert sizes["documents"] == 9 and sizes["passages"] == len(index)
    assert sizes["segments"] <= 8 and sizes["removed"] <= 60 and kept <= terms * 8
    fresh = open_live(tmp_path / "fresh", EMBEDDER)
    fresh.put(entries)
    assert ranking(other) == ranking(fresh)

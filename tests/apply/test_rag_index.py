from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from windlass.apply.rag.chunking import context_of
from windlass.apply.rag.embedding.adapter import Adapter, load_adapter
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.embedding.vectors import CachedEmbedder, cache_path
from windlass.apply.rag.index import HybridIndex, build_index, reindex
from windlass.apply.rag.indexes.embedded.layout import FILE
from windlass.apply.rag.indexes.fusion import SearchSettings, best, fuse
from windlass.apply.rag.indexes.terms import TOKENIZER
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Passage, Section, write_documents
from windlass.core.errors import InputError, NotFound, WindlassError, WorkspaceCorrupt
from windlass.core.protocols import Embeddings, EmbedKind
from windlass.core.workspace import Workspace

WORDS = "pump water valve oven bread star violin string engine paper river stone cloud music letter glass".split()  # noqa: SIM905


def documents(count: int = 60) -> list[Document]:
    rng = np.random.default_rng(7)
    made = []
    for i in range(count):
        sentences = [" ".join(rng.choice(WORDS, 8)).capitalize() + f" {i}." for _ in range(int(rng.integers(1, 40)))]
        text = "Head\n\n" + " ".join(sentences)
        kind = {"kind": "page" if i % 2 else "note"}
        made.append(Document(f"d{i}", f"d{i}.md", f"Title {i}", text, "markdown", [Section(0, 1, "Head")], kind))
    return made


def corpus_of(ws: Workspace, docs: Sequence[Document]) -> Artifact:
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", docs)
    return draft.done


def exam_of(ws: Workspace, items: Sequence[dict[str, object]], withheld: Sequence[str] = ()) -> Artifact:
    with ws.artifacts.build("dataset", "exam") as draft:
        (draft.path / "exam.json").write_text(json.dumps({"withheld": list(withheld)}))
        (draft.path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return draft.done


def adapter_of(ws: Workspace, embedder: HashingEmbedder, rank: int = 3, seed: int = 0) -> Artifact:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)
    d = embedder.dimension
    down, up = (rng.normal(0, 0.2, shape).astype(np.float32) for shape in ((d, rank), (rank, d)))
    with ws.artifacts.build("adapter", "adapter") as draft:
        save_file({"down": down, "up": up}, draft.path / "adapter.safetensors")
        config = {"type": "low_rank_residual", "dimension": d, "rank": rank, "base_embedder": embedder.digest}
        (draft.path / "adapter_config.json").write_text(json.dumps(config))
    return draft.done


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


def test_bm25_equals_sqlites_own(ws: Workspace) -> None:
    index = HybridIndex.open(
        build_index(ws, corpus_of(ws, documents()), HashingEmbedder()),
        HashingEmbedder(),
        settings=SearchSettings(context_weight=3.0),
    )
    with sqlite3.connect(":memory:") as db:
        db.execute(f"CREATE VIRTUAL TABLE words USING fts5(context, text, tokenize='{TOKENIZER}')")
        rows = [
            (n, context_of(Passage("", c.title, c.heading, 0, 0, "")), c.quote)
            for n, c in enumerate(index.passages(), 1)
        ]
        db.executemany("INSERT INTO words (rowid, context, text) VALUES (?, ?, ?)", rows)
        for query in ["pump", "pumps violin", "title bread", "head", "17 stones", "river river"]:
            ours = index.lexical.scores(index.lexical.tokenizer.terms([query])[0])
            match = " OR ".join(f'"{word}"' for word in query.split())
            theirs = dict(db.execute("SELECT rowid, -bm25(words, 3.0, 1.0) FROM words WHERE words MATCH ?", (match,)))
            assert theirs
            assert np.flatnonzero(ours).tolist() == [row - 1 for row in sorted(theirs)]
            for row, score in theirs.items():
                assert ours[row - 1] == pytest.approx(score, rel=1e-4)
    db.close()


def test_dense_search_is_exact_and_batches_equal_single_queries(ws: Workspace) -> None:
    embedder = HashingEmbedder()
    index = HybridIndex.open(build_index(ws, corpus_of(ws, documents()), embedder), embedder)
    queries = [f"{a} and {b}" for a in WORDS[:8] for b in WORDS[8:]] * 6
    many = index.search_many(queries, 7)
    for query, hits in list(zip(queries, many, strict=True))[::40]:
        assert [h.passage for h in hits] == [h.passage for h in index.search(query, 7)]
    pure = index.with_settings(SearchSettings(dense=1.0))
    similarity = index.vectors @ embedder.embed([queries[3]], "query").vectors[0]
    assert [h.passage - 1 for h in pure.search(queries[3], 5)] == best(similarity, 5).tolist()
    known = index.search_many(queries[:3], 7, vectors=embedder.embed(queries[:3], "query").vectors)
    assert [[h.passage for h in hits] for hits in known] == [[h.passage for h in hits] for hits in many[:3]]


def test_rrf_is_the_formula_of_the_paper() -> None:
    dense, bm25 = np.array([0.9, 0.8, 0.1, 0.5], np.float32), np.array([0.0, 2.0, 5.0, 1.0], np.float32)
    ranked = fuse(dense, bm25, 4, SearchSettings(fusion="rrf", dense=0.5))
    expected = {0: 1 / 61, 1: 1 / 62 + 1 / 62, 2: 1 / 64 + 1 / 61, 3: 1 / 63 + 1 / 63}
    assert ranked.rows.tolist() == sorted(expected, key=lambda r: -expected[r])
    assert ranked.score.tolist() == pytest.approx([expected[r] / 2 for r in ranked.rows.tolist()])
    assert ranked.bm25_rank[ranked.rows.tolist().index(0)] == 0, "it holds no word of the query"


def test_what_is_masked_is_not_in_the_file(ws: Workspace) -> None:
    docs = documents(10)
    secret = "The zebra secret sleeps beneath granite."
    text = f"Before it. {secret} After it."
    docs.append(Document("s", "s.md", "The zebra secret sleeps", text, "markdown", [Section(11, 1, secret)]))
    start = text.index(secret)
    items = [
        {"document": "s", "start": start, "end": start + len(secret)},
        {"document": None, "start": None},
        {"document": None, "source": "d1", "start": 0, "end": 4},
    ]
    exam = exam_of(ws, items, withheld=["d2"])
    index = build_index(ws, corpus_of(ws, docs), HashingEmbedder(), exam=exam)
    assert index.card["masked_spans"] == 2 and index.card["documents_withheld"] == 1
    assert dict(index.record.parents) == {"corpus": index.parent("corpus"), "exam": exam.digest}
    assert b"zebra" not in (index.path / FILE).read_bytes()
    opened = HybridIndex.open(index, HashingEmbedder())
    assert {h.citation.quote for h in opened.search("x", 99, {"document": "s"})} == {"Before it.", "After it."}
    assert min(h.citation.start for h in opened.search("x", 99, {"document": "d1"})) > 4
    assert opened.search("x", 99, {"document": "d2"}) == []


def test_an_exam_of_another_corpus_is_refused(ws: Workspace) -> None:
    exam = exam_of(ws, [{"document": "elsewhere", "start": 0, "end": 5}])
    with pytest.raises(InputError, match="such as 'elsewhere'"):
        build_index(ws, corpus_of(ws, documents(3)), HashingEmbedder(), exam=exam)
    assert ws.runs.store.runs(kind="index")[0].status == "failed"


def test_nothing_to_index_is_refused(ws: Workspace) -> None:
    corpus = corpus_of(ws, [*documents(3), Document("e", "e", "e", "  \n"), Document("p", "p", "p", "—— …")])
    with pytest.raises(InputError, match="of kind api"):
        build_index(ws, corpus, HashingEmbedder(), kinds=["api"])
    index = build_index(ws, corpus, HashingEmbedder(), kinds=["page"])
    assert index.card["documents"] == 1 and index.card["documents_of_other_kinds"] == 4
    whole = build_index(ws, corpus, HashingEmbedder())
    assert whole.card["documents_without_passages"] == 2 and whole.card["passages_without_a_word"] == 1


class Counting(HashingEmbedder):
    """Counts the texts it embeds; stops like a user's Ctrl-C after `allowed` calls."""

    def __init__(self, allowed: int = 10**9) -> None:
        super().__init__()
        self.allowed, self.texts = allowed, 0

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        if self.allowed == 0:
            raise KeyboardInterrupt
        self.allowed -= 1
        self.texts += len(texts)
        return super().embed(texts, kind)


def test_an_interrupted_build_goes_on_and_an_unchanged_text_costs_nothing(ws: Workspace) -> None:
    corpus = corpus_of(ws, documents(200))
    first = Counting(allowed=3)
    with pytest.raises(KeyboardInterrupt):
        build_index(ws, corpus, first)
    assert ws.artifacts.find("index") is None and first.texts > 0
    assert not [p for p in ws.artifacts.folder.iterdir() if p.name.startswith(".draft")]
    second = Counting()
    made = build_index(ws, corpus, second)
    assert first.texts + second.texts == made.card["passages"] == made.card["vectors_computed"] + first.texts
    third = Counting()
    again = build_index(ws, corpus, third)
    assert third.texts == 0 and again.digest == made.digest
    assert [r.status for r in ws.runs.store.runs(kind="index")] == ["done", "done", "interrupted"]


def test_a_killed_build_leaves_nothing_half_and_goes_on(ws: Workspace) -> None:
    corpus = corpus_of(ws, documents(150))
    code = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from windlass.apply.rag.embedding.hashing import HashingEmbedder
        from windlass.apply.rag.index import build_index
        from windlass.core.workspace import Workspace

        class Dying(HashingEmbedder):
            calls = 0
            def embed(self, texts, kind="passage"):
                Dying.calls += 1
                if Dying.calls == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().embed(texts, kind)

        ws = Workspace(Path({str(ws.home)!r}))
        build_index(ws, ws.artifacts.get({corpus.digest!r}), Dying())
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert ws.artifacts.find("index") is None
    embedder = Counting()
    made = build_index(ws, corpus, embedder)
    assert embedder.texts == made.card["passages"] - 64


def test_two_builds_at_once_do_not_disturb_each_other(ws: Workspace) -> None:
    corpus = corpus_of(ws, documents(80))
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda: digests.append(build_index(ws, corpus, HashingEmbedder()).digest))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 3 and len(set(digests)) == 1


def test_reindex_transforms_what_is_stored(ws: Workspace) -> None:
    embedder = Counting()
    base = build_index(ws, corpus_of(ws, documents(40)), embedder)
    adapter = adapter_of(ws, embedder)
    embedder.texts = 0
    adapted = reindex(ws, base, adapter)
    assert embedder.texts == 0
    assert adapted.parent("base") == base.digest and adapted.parent("adapter") == adapter.digest
    assert adapted.parent("corpus") == base.parent("corpus")
    index, plain = HybridIndex.open(adapted, embedder, adapter), HybridIndex.open(base, embedder)
    loaded = load_adapter(adapter)
    x = plain.vectors + (plain.vectors @ loaded.down) @ loaded.up
    assert np.allclose(index.vectors, x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-6)
    query = index.embed(["pump water"]).vectors
    assert np.allclose(query, loaded.apply(plain.embed(["pump water"]).vectors))
    assert [h.citation for h in index.search("pump 7", 400)] != []
    other = adapter_of(ws, embedder, rank=5, seed=1)
    assert reindex(ws, adapted, other).digest == reindex(ws, base, other).digest, "adapters do not pile up"


def test_an_index_is_opened_only_as_it_was_made(ws: Workspace) -> None:
    embedder = HashingEmbedder()
    base = build_index(ws, corpus_of(ws, documents(5)), embedder)
    adapter = adapter_of(ws, embedder)
    adapted = reindex(ws, base, adapter)
    with pytest.raises(InputError, match="holds vectors of hashing-256"):
        HybridIndex.open(base, HashingEmbedder(128))
    with pytest.raises(InputError, match="was made with adapter none, but is opened with"):
        HybridIndex.open(base, embedder, adapter)
    with pytest.raises(InputError, match="but is opened with none"):
        HybridIndex.open(adapted, embedder)
    foreign = adapter_of(ws, HashingEmbedder(64))
    with pytest.raises(InputError, match="was trained for embedder"):
        reindex(ws, base, foreign)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "flipped"])
def test_a_damaged_index_is_named_and_not_half_used(ws: Workspace, damage: str) -> None:
    index = build_index(ws, corpus_of(ws, documents(120)), HashingEmbedder())
    path = index.path / FILE
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        half = len(data) // 2
        changed = {
            "truncated": data[: half - half % 4096],
            "text": b"no index at all\n" * 500,
            "empty": b"",
            "flipped": data[:4096] + bytes(b ^ 0xFF for b in data[4096:]),
        }
        path.write_bytes(changed[damage])
    kind = NotFound if damage == "missing" else WindlassError
    with pytest.raises(kind, match=r"index\.db") as caught:
        HybridIndex.open(index, HashingEmbedder())
    assert caught.value.hint


def test_a_damaged_cache_says_that_it_can_go(ws: Workspace) -> None:
    path = cache_path(ws.root)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(WorkspaceCorrupt, match="vector cache") as caught:
        CachedEmbedder(HashingEmbedder(), path)
    assert "Delete the file" in caught.value.hint


def test_a_full_disk_is_said_plainly(ws: Workspace) -> None:
    cached = CachedEmbedder(HashingEmbedder(), cache_path(ws.root))
    cached._connection.execute("PRAGMA max_page_count = 4")
    with pytest.raises(WindlassError, match="No space left"):
        cached.embed([f"text {i}" for i in range(100)])
    cached.close()


def test_a_broken_embedder_is_caught(ws: Workspace) -> None:
    class Broken(HashingEmbedder):
        def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
            return Embeddings(np.full((len(texts), 256), np.nan, np.float32), 1)

    with pytest.raises(InputError, match="not finite"):
        build_index(ws, corpus_of(ws, documents(2)), Broken())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "lora"}, "type must be"),
        ({"rank": 9}, "expected tensors"),
        ({"base_embedder": None}, "base_embedder"),
    ],
)
def test_a_wrong_adapter_is_refused(ws: Workspace, tmp_path: Path, config: dict[str, object], message: str) -> None:
    made = adapter_of(ws, HashingEmbedder())
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("adapter.safetensors", "adapter_config.json"):
        (folder / name).write_bytes((made.path / name).read_bytes())
    known = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**known, **config}))
    with pytest.raises(InputError, match=message):
        load_adapter(folder)
    (folder / "adapter.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(WorkspaceCorrupt):
        load_adapter(folder)
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(NotFound, match=r"adapter\.safetensors is missing"):
        load_adapter(folder)


def test_an_adapter_of_zeros_changes_nothing() -> None:
    x = HashingEmbedder().embed(WORDS).vectors
    adapter = Adapter("0" * 64, "e", np.zeros((256, 2), np.float32), np.zeros((2, 256), np.float32))
    assert np.allclose(adapter.apply(x), x, atol=1e-6)

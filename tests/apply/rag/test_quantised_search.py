"""Quantised vectors choose candidates; what comes out is ranked by the vectors themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.cut import Cut
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex
from windlass.apply.rag.indexes.embedded.products import product
from windlass.apply.rag.indexes.embedded.quantised import likeness, quantise, width
from windlass.apply.rag.indexes.embedded.reembedding import reembed
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.live import EmbeddedIndex, open_live
from windlass.core.documents import Document, Entry, Passage
from windlass.core.errors import InputError, WorkspaceCorrupt
from windlass.core.workspace import Workspace

DIMENSION = 96
RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((40, DIMENSION))


class Clustered:
    """Vectors around a few centres, as real ones are: the first word of a text says around which."""

    name, digest, dimension = "clustered", "c" * 64, DIMENSION


def unit(vectors: Any) -> Any:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def entries(count: int, seed: int = 0) -> list[Entry]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        text = f"word{i % 50} number{i}"
        vector = unit(CENTRES[i % 40] + 0.7 * rng.standard_normal(DIMENSION))[None]
        document = Document(f"d{i}", f"d{i}.md", "", text, metadata={"tenant": i % 10})
        made.append(Entry(document, str(seed), [Passage(f"d{i}", "", "", 0, len(text), text)], vector))
    return made


def opened(folder: Path, kind: Any, **more: Any) -> EmbeddedIndex:
    return open_live(folder, Clustered(), SearchSettings(depth=20), quantised=kind, **more)  # type: ignore[arg-type]


def queries(count: int = 40) -> list[tuple[str, Any]]:
    rng = np.random.default_rng(9)
    return [(f"word{i}", unit(CENTRES[i % 40] + 0.7 * rng.standard_normal(DIMENSION))) for i in range(count)]


@pytest.mark.parametrize(("kind", "least"), [("int8", 0.99), ("binary", 0.9)])
def test_candidates_hold_what_looking_at_every_vector_finds(tmp_path: Path, kind: Any, least: float) -> None:
    exact, index = opened(tmp_path / "exact", ""), opened(tmp_path / kind, kind)
    for some in (exact, index):
        some.put(entries(3000))
        some.put(entries(500, seed=1))  # in place of others: rows and positions part
        some.delete([f"d{i}" for i in range(2000, 2100)])
    same = total = 0
    for where in (None, {"tenant": 3}, {"tenant": [1, 2, 3, 4, 5]}):
        for query, vector in queries():
            expected = exact.search(query, 10, where, vector=vector)
            found = index.search(query, 10, where, vector=vector)
            assert len(found) == 10, "never fewer than there are"
            if where is not None:
                allowed = where["tenant"] if isinstance(where["tenant"], list) else [where["tenant"]]
                assert all(int(h.citation.document[1:]) % 10 in allowed for h in found)
            for hit in found:  # scores are of the vectors themselves
                own = (index.vectors_of([hit.passage]) @ vector).item()
                assert hit.parts["dense"] == pytest.approx(own, abs=1e-6)
            same += len({h.passage for h in found} & {h.passage for h in expected})
            total += 10
    assert same / total >= least
    assert len(index.search("word1", 4000, vector=queries(1)[0][1])) == len(index) == 2900


@pytest.mark.parametrize("kind", ["int8", "binary"])
def test_quantised_rows_follow_the_vectors_wherever_they_go(tmp_path: Path, kind: Any) -> None:
    index = opened(tmp_path / "index", kind)
    index.put(entries(800))
    index.put(entries(300, seed=1))
    index.compact()

    def assert_rows(now: HybridIndex) -> None:
        assert now.at.quantised is not None
        assert np.array_equal(now.at.quantised, quantise(kind, now.at.vectors))

    with index.reading() as now:
        assert_rows(now)
    with Workspace(tmp_path) as ws:
        frozen = HybridIndex.open(index.snapshot(ws, "frozen"), Clustered())  # type: ignore[arg-type]
        assert_rows(frozen)
        assert frozen.meta.quantised == kind
    new = HashingEmbedder(64)
    reembed(index.folder, Chunker(new))
    again = open_live(index.folder, new)
    with again.reading() as now:
        assert_rows(now)
    assert again.search("number17", 1)[0].citation.document == "d17"
    again.delete(["nothing"])
    files = sorted(path.name for path in index.folder.glob("vectors-*"))
    assert len(files) == 2 and files[1].endswith((kind, "f32"))
    again.close()
    path = next(index.folder.glob(f"vectors-*.{kind}"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkspaceCorrupt, match=kind):
        open_live(index.folder, new)


def test_vectors_are_quantised_afterwards(tmp_path: Path) -> None:
    index, other = opened(tmp_path / "index", ""), opened(tmp_path / "index", "")
    index.put(entries(900))
    index.delete([f"d{i}" for i in range(100, 200)])
    expected = [hit.passage for hit in index.search("word3", 10, vector=queries(1)[0][1])]
    for kind in ("int8", "binary", ""):
        index.requantise(kind)  # type: ignore[arg-type]
        index.requantise(kind)  # type: ignore[arg-type]
        with other.reading() as now:  # whoever has it open sees that
            assert now.meta.quantised == kind and (now.at.quantised is None) == (not kind)
            if kind:
                assert np.array_equal(now.at.quantised, quantise(kind, now.at.vectors))  # type: ignore[arg-type]
        found = [hit.passage for hit in other.search("word3", 10, vector=queries(1)[0][1])]
        assert len(set(found) & set(expected)) >= 8
    with pytest.raises(InputError, match="quantised as 'int4'"):
        index.requantise("int4")  # type: ignore[arg-type]


def test_an_index_on_its_way_to_another_embedder_is_not_requantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(tmp_path / "index", "")
    index.put(entries(300))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Chunker, "embed", stopped)
        reembed(index.folder, Chunker(HashingEmbedder(64)))
    with pytest.raises(InputError, match="being embedded anew"):
        index.requantise("int8")
    reembed(index.folder, Chunker(HashingEmbedder(64)))
    again = open_live(index.folder, HashingEmbedder(64))
    again.requantise("int8")
    assert again.search("number17", 1)[0].citation.document == "d17"


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_int8_is_near_and_binary_counts_signs() -> None:
    vectors = unit(RNG.standard_normal((300, 70)))
    query = unit(RNG.standard_normal(70))
    for kind, size in (("int8", 74), ("binary", 16)):
        rows = quantise(kind, vectors)
        assert rows.shape == (300, size) and width(kind, 70) == size
        wanted = np.array([5, 7, 299])
        assert np.allclose(likeness(kind, rows, query, wanted), likeness(kind, rows, query)[wanted])
    assert np.abs(likeness("int8", quantise("int8", vectors), query) - vectors @ query).max() < 0.01
    signs = ((vectors > 0) != (query > 0)).sum(axis=1)
    assert np.array_equal(likeness("binary", quantise("binary", vectors), query), -signs.astype(np.float32))
    zero = np.zeros((1, 70), np.float32)
    assert likeness("int8", quantise("int8", zero), query).tolist() == [0.0]


@pytest.mark.parametrize("rows", [0, 1, 700, 20_000])
def test_a_product_is_one_whoever_computes_it(rows: int) -> None:
    vectors, query = unit(RNG.standard_normal((rows, 24))), unit(RNG.standard_normal(24))
    found = product(vectors, query)
    assert found.shape == (rows,) and np.allclose(found, vectors @ query, atol=1e-6)


def test_a_cut_embedder_is_another_one(tmp_path: Path) -> None:
    whole = HashingEmbedder(64)
    cut = Cut(whole, 16)
    texts = ["pump water river", "oven bread violin star"]
    made = cut.embed(texts)
    assert made.vectors.shape == (2, 16) and np.allclose(np.linalg.norm(made.vectors, axis=1), 1)
    assert np.allclose(made.vectors, unit(whole.embed(texts).vectors[:, :16]))
    assert cut.digest not in (whole.digest, Cut(whole, 8).digest) and cut.name == f"{whole.name}-16"
    open_live(tmp_path / "index", cut).close()
    with pytest.raises(InputError, match="holds vectors of"):
        open_live(tmp_path / "index", whole)
    with pytest.raises(InputError, match="cut to 65"):
        Cut(whole, 65)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quantised as 'int4'"):
        opened(tmp_path / "index", "int4")
    index = opened(tmp_path / "index", "")
    with pytest.raises(InputError, match="need vectors of shape"):
        index.search("x", vector=np.zeros(5, np.float32))

"""Cells let a search look at a few of many vectors: it finds nearly what looking at all finds, and never too little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from versions import EMBEDDER, entry

from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.indexes import live
from windlass.apply.rag.indexes.embedded.cells import Cells, cells_path, made_of, write_cells
from windlass.apply.rag.indexes.embedded.reembedding import reembed
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.live import CELLS_LOCK, EmbeddedIndex, open_live
from windlass.core.documents import Document, Entry, Passage
from windlass.core.errors import InputError, WorkspaceBusy
from windlass.core.files import exclusive
from windlass.core.protocols import Embeddings

DIMENSION = 48
CENTRES = np.random.default_rng(0).standard_normal((60, DIMENSION))


class Clustered:
    """Vectors around a few centres, as real ones are; those of questions too."""

    name, digest, dimension = "clustered", "c" * 64, DIMENSION

    def embed(self, texts: Sequence[str], kind: str = "passage") -> Embeddings:
        return Embeddings(vectors(len(texts), 77), 0)


def vectors(count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    made = CENTRES[rng.integers(0, len(CENTRES), count)] + 0.8 * rng.standard_normal((count, DIMENSION))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def entries(first: int, count: int, seed: int) -> list[Entry]:
    made = []
    for i, vector in zip(range(first, first + count), vectors(count, seed), strict=True):
        text = f"word{i % 50} number{i}"
        document = Document(f"d{i}", f"d{i}.md", "", text, metadata={"tenant": i % 20, "half": i % 2})
        made.append(Entry(document, str(seed), [Passage(f"d{i}", "", "", 0, len(text), text)], vector[None]))
    return made


def opened(folder: Path, embedder: Any = None) -> EmbeddedIndex:
    return open_live(folder, embedder or Clustered(), SearchSettings(depth=20))


def cells_of(index: EmbeddedIndex) -> Cells | None:
    with index.reading() as now:
        return now.at.cells


def found(index: EmbeddedIndex, vector: Any, k: int = 10, where: Any = None) -> list[int]:
    hits = index.search("word1", k, where, vector=vector)
    for hit in hits:  # scores are of the vectors themselves, whatever chose them
        own = (index.vectors_of([hit.passage]) @ vector).item()
        assert hit.parts["dense"] == pytest.approx(own, abs=1e-6)
    return [hit.passage for hit in hits]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddedIndex, EmbeddedIndex]:
    """The same documents with a past, searched exactly and by cells, which do not know the last 300 of them."""
    folder = tmp_path_factory.mktemp("cells")
    exact, celled = opened(folder / "exact"), opened(folder / "celled")
    for index in (exact, celled):
        index.put(entries(0, 5000, 1))
        index.put(entries(100, 400, 2))  # in place of others: rows and positions part
        index.delete([f"d{i}" for i in range(3000, 3200)])
    celled.make_cells(least=1, recall=0.95)
    for index in (exact, celled):
        index.put(entries(5000, 300, 3))
        index.delete([f"d{i}" for i in range(2000, 2100)])
    return exact, celled


@pytest.mark.parametrize("where", [None, {"half": 1}, {"tenant": [1, 2, 3, 4, 5]}, {"tenant": 3}], ids=str)
def test_nearly_what_looking_at_all_vectors_finds(pair: tuple[EmbeddedIndex, EmbeddedIndex], where: Any) -> None:
    exact, celled = pair
    used = cells_of(celled)
    assert used is not None and used.made.recall >= 0.95 and used.made.looked < len(celled) / 5
    same = 0
    for query in vectors(50, 9):
        expected, mine = found(exact, query, where=where), found(celled, query, where=where)
        assert len(mine) == 10
        same += len(set(expected) & set(mine))
    assert same >= 0.93 * 500


def test_what_came_after_the_cells_is_looked_at_too(pair: tuple[EmbeddedIndex, EmbeddedIndex]) -> None:
    exact, celled = pair
    for index in (exact, celled):
        for hit in index.search("number5123", 1, vector=vectors(300, 3)[123]):
            assert hit.citation.document == "d5123" and hit.parts["dense"] == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 6000), tenants=st.sets(st.integers(0, 19), max_size=12), seed=st.integers(0, 99))
def test_as_many_as_pass(pair: tuple[EmbeddedIndex, EmbeddedIndex], k: int, tenants: set[int], seed: int) -> None:
    where = {"tenant": sorted(tenants)} if tenants else None
    held = [int(name[1:]) for name in pair[1].held()]
    passing = sum(not tenants or number % 20 in tenants for number in held)
    [query] = vectors(1, seed)
    hits = pair[1].search("word3", k, where, vector=query)
    assert len(hits) == len({hit.passage for hit in hits}) == min(k, passing)
    assert not tenants or all(int(hit.citation.document[1:]) % 20 in tenants for hit in hits)


def test_cells_hold_each_vector_once_where_it_belongs(pair: tuple[EmbeddedIndex, EmbeddedIndex]) -> None:
    used = cells_of(pair[1])
    assert used is not None
    with pair[1].reading() as now:
        rows = now.at.vectors[np.sort(used.rows)]
        assert len(np.unique(used.rows)) == len(used.rows) == used.made.vectors == used.bounds[-1]
        owner = np.repeat(np.arange(used.made.cells), np.diff(used.bounds))
        own = np.empty(len(rows), np.int64)
        own[np.argsort(np.argsort(used.rows))] = owner
        likeness = rows @ used.centres.T
        assert np.allclose(np.take_along_axis(likeness, own[:, None], 1)[:, 0], likeness.max(axis=1), atol=1e-5)
        everything = used.near(vectors(1, 5)[0], len(rows))
        assert sorted(everything) == sorted(used.rows)  # all of them, when so many are wanted
    assert np.allclose(np.linalg.norm(used.centres, axis=1), 1, atol=1e-5)


def test_whoever_has_the_index_open_notices(tmp_path: Path) -> None:
    index, other = opened(tmp_path / "index"), opened(tmp_path / "index")
    index.put(entries(0, 3000, 1))
    digest = index.digest
    made = index.make_cells(least=1, recall=0.9)
    mine = cells_of(other)
    assert mine is not None and mine.made == made and other.digest == digest
    index.put(entries(3000, 500, 2))
    again = index.make_cells(least=1, recall=0.9)
    assert again != made
    mine = cells_of(other)
    assert mine is not None and mine.made == again and again.rows == 3500
    path = cells_path(index.folder, again.generation)
    assert path.stat().st_size == again.bytes
    assert other.drop_cells() and cells_of(index) is None and not path.exists()
    assert not other.drop_cells()


def test_cells_of_other_vectors_are_not_used_and_go(tmp_path: Path) -> None:
    index = opened(tmp_path / "index", HashingEmbedder(32))
    index.put([entry_of(i) for i in range(300)])
    index.make_cells(least=1)
    index.delete([f"d{i}" for i in range(50)])
    index.compact()
    assert cells_of(index) is None and not list(index.folder.glob("cells-*.ivf"))
    index.make_cells(least=1)
    new = HashingEmbedder(24)
    reembed(index.folder, Chunker(new))
    again = opened(index.folder, new)
    again.delete(["d60"])  # a writer sweeps
    assert cells_of(again) is None and not list(index.folder.glob("cells-*.ivf"))
    assert again.search("number77", 1)[0].citation.document == "d77"


def entry_of(i: int, embedder: HashingEmbedder | None = None) -> Entry:
    text = f"pump number{i} of house {i * 7}"
    document = Document(f"d{i}", f"d{i}.md", "", text)
    found = (embedder or HashingEmbedder(32)).embed([text]).vectors
    return Entry(document, str(i), [Passage(document.id, "", "", 0, len(text), text)], found)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def of_another_format(path: Path) -> None:
    data = path.read_bytes()
    head = json.loads(data[:4096])
    path.write_bytes(json.dumps(head | {"format": 99}).encode().ljust(4096) + data[4096:])


def nonsense(path: Path) -> None:
    path.write_bytes(b"\0" * 5000)


@pytest.mark.parametrize("spoil", [cut_short, of_another_format, nonsense])
def test_cells_that_cannot_be_used_are_no_cells(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    index = opened(tmp_path / "index")
    index.put(entries(0, 1000, 1))
    expected = found(index, vectors(1, 3)[0])
    made = index.make_cells(least=1, recall=0.9)
    index.close()
    spoil(cells_path(index.folder, made.generation))
    again = opened(tmp_path / "index")
    assert cells_of(again) is None and made_of(index.folder, made.generation) is None
    assert found(again, vectors(1, 3)[0]) == expected
    again.make_cells(least=1, recall=0.9)
    assert cells_of(again) is not None


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    index = opened(tmp_path / "index")
    with pytest.raises(InputError, match="holds 0 passages"):
        index.make_cells(least=1)
    index.put(entries(0, 30, 1))
    for recall in (0.0, 1.5, -1.0):
        with pytest.raises(InputError, match="cannot be reached"):
            index.make_cells(least=1, recall=recall)
    with pytest.raises(InputError, match="divided"):
        write_cells(index.folder, 1, vectors(5, 1), np.arange(5), vectors(2, 2), recall=0.9, cells=6)
    with exclusive(index.folder / CELLS_LOCK, "this test"), pytest.raises(WorkspaceBusy):
        index.make_cells(least=1)
    with pytest.raises(InputError, match="are for 10,000 and more"):
        index.make_cells()
    assert index.make_cells(least=1, recall=1.0).recall == 1.0


def test_vectors_that_are_all_alike_have_cells(tmp_path: Path) -> None:
    index = opened(tmp_path / "index")
    same = entries(0, 400, 1)
    for one in same:
        one.vectors[:] = same[0].vectors
    index.put(same)
    index.make_cells(least=1)
    assert len(index.search("word1", 400, vector=vectors(1, 1)[0])) == 400


def test_vectors_written_anew_meanwhile_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(tmp_path / "index")
    index.put(entries(0, 500, 1))
    write = live.write_cells

    def slow(*given: Any, **named: Any) -> Any:
        made = write(*given, **named)
        other = opened(tmp_path / "index")
        other.delete(["d1"])
        other.compact()
        return made

    monkeypatch.setattr(live, "write_cells", slow)
    with pytest.raises(InputError, match="written anew"):
        index.make_cells(least=1)
    assert cells_of(index) is None and len(index.search("word1", 500, vector=vectors(1, 1)[0])) == 499
    monkeypatch.undo()
    index.make_cells(least=1)
    assert len(list(index.folder.glob("cells-*.ivf"))) == 1


MAKER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from versions import EMBEDDER
from windlass.apply.rag.indexes.live import open_live
index = open_live(Path(sys.argv[1]), EMBEDDER)
while True:
    index.make_cells(least=1, recall=0.9)
    print("made", flush=True)
"""


@pytest.mark.slow
def test_a_killed_maker_leaves_a_whole_index(tmp_path: Path) -> None:
    index = open_live(tmp_path / "index", EMBEDDER)
    index.put([entry(number, 1) for number in range(300)])
    held = len(index)
    for life in range(4):
        with subprocess.Popen([sys.executable, "-c", MAKER, tmp_path / "index"], stdout=subprocess.PIPE) as maker:
            assert maker.stdout is not None
            maker.stdout.readline()
            time.sleep(0.003 * life)
            os.kill(maker.pid, signal.SIGKILL)
        assert len(index.search("pump water", 10_000)) == held
        index.put([entry(300 + life, 2)])
        held = len(index)
    index.make_cells(least=1, recall=0.9)
    assert sorted(path.name for path in index.folder.glob("*cells*")) == ["cells-1.ivf", CELLS_LOCK]
    assert cells_of(index) is not None


def test_a_filter_that_leaves_few_is_searched_exactly(
    pair: tuple[EmbeddedIndex, EmbeddedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, celled = pair
    used = cells_of(celled)
    assert used is not None
    few = {"tenant": 3}
    assert not used.made.pays(len(celled.passages(few)))
    monkeypatch.setattr(Cells, "near", lambda *_: pytest.fail("cells were asked"))
    for query in vectors(10, 4):
        assert found(celled, query, where=few) == found(exact, query, where=few)
    with pytest.raises(pytest.fail.Exception):
        found(celled, vectors(1, 4)[0])

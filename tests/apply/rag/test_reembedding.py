"""An index changes its embedder while it is searched and written to, and whenever that is stopped it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from versions import EMBEDDER, entry, texts_of

from windlass.apply.rag.chunking import ChunkSettings
from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.indexes.embedded import reembedding
from windlass.apply.rag.indexes.embedded.reembedding import abandon, reembed, under_way
from windlass.apply.rag.indexes.live import EmbeddedIndex, open_live
from windlass.core.documents import Document, Passage
from windlass.core.errors import InputError
from windlass.core.protocols import Embeddings, EmbedKind

NEW = HashingEmbedder(32)


class Watched:
    """A chunker during whose work something happens."""

    embedder = NEW

    def __init__(self, happens: Callable[[int], object] = lambda call: None) -> None:
        self.happens, self.calls, self.documents = happens, 0, 0

    def embed(self, cut: Sequence[tuple[Document, Sequence[Passage]]]) -> Embeddings:
        self.calls += 1
        self.happens(self.calls)
        self.documents += len(cut)
        return Chunker(NEW).embed(cut)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reembedding, "_PASSAGES", 10)
    index = open_live(tmp_path / "index", EMBEDDER)
    index.put([entry(number, 1) for number in range(20)])
    index.close()
    return tmp_path / "index"


def assert_new(folder: Path, numbers: Sequence[int]) -> None:
    """The index finds what one that was made by the new embedder finds."""
    index = open_live(folder, NEW)
    assert sorted(index.held()) == sorted(f"d{number}" for number in numbers)
    fresh = open_live(folder.parent / "fresh", NEW)
    made = [entry(number, int(index.held()[f"d{number}"].split("-")[1])) for number in numbers]
    for one in made:
        vectors = Chunker(NEW).embed([(one.document, one.passages)]).vectors
        object.__setattr__(one, "vectors", vectors)
    fresh.put(made)
    for number in numbers[:6]:
        text = texts_of(number, 1)[1]
        found, expected = (
            [(h.citation.quote, pytest.approx(h.score)) for h in i.search(text, 5)] for i in (index, fresh)
        )
        assert [quote for quote, _ in found][:1] == [quote for quote, _ in expected][:1]
        assert [score.expected for _, score in found] == [score for _, score in expected]
    assert under_way(folder) is None
    index.delete(["nothing"])  # the next writer sweeps up
    assert len(list(folder.glob("vectors-*.f32"))) == 1


def test_the_old_vectors_serve_until_the_new_ones_are_whole(folder: Path) -> None:
    old, both = open_live(folder, EMBEDDER), open_live(folder, NEW, old=EMBEDDER)

    def meanwhile(call: int) -> None:
        for index in (old, both):
            assert index.embedder.digest == EMBEDDER.digest and index.search("document3 turn1 part0 pump water", 3)
        assert under_way(folder) == NEW.name
        if call == 2:
            old.put([entry(30, 1)])  # came
            old.put([entry(1, 1), entry(2, 2)])  # changed after, and while they were embedded
            assert old.delete(["d3"]) == 1

    chunker = Watched(meanwhile)
    done = reembed(folder, chunker)
    assert chunker.calls > 4 and done.documents >= 20 and done.passages > 50 and done.truncated == 0
    assert both.embedder.digest == NEW.digest and len(both.vectors_of([both.search("pump", 1)[0].passage])[0]) == 32
    with pytest.raises(InputError, match="holds vectors of hashing-32"):
        old.search("pump")
    with pytest.raises(InputError, match="embedded anew with hashing-32"):
        old.put([entry(5, 9)])
    with pytest.raises(InputError, match="say whose vectors"):
        both.put([entry(5, 9)])
    assert reembed(folder, Watched()).documents == 0, "it has them already"
    both.close(), old.close()
    assert_new(folder, [n for n in [*range(20), 30] if n != 3])


def test_a_question_that_was_embedded_too_early_is_embedded_again(folder: Path) -> None:
    class Late(HashingEmbedder):
        """While it reads a question, the index gets another embedder."""

        def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
            if kind == "query" and under_way(folder) is None:
                reembed(folder, Watched())
            return super().embed(texts, kind)

    both = open_live(folder, NEW, old=Late(16))
    hits = both.search("document3 turn1 part0 pump water", 3)
    assert both.embedder.digest == NEW.digest and hits[0].citation.quote == "document3 turn1 part0 pump water"
    asked = NEW.embed(["document3 turn1 part0 pump water"], "query").vectors[0]
    assert hits[0].parts["dense"] == pytest.approx((both.vectors_of([hits[0].passage]) @ asked).item(), abs=1e-6)


def test_what_was_stopped_goes_on(folder: Path) -> None:
    def stopped(call: int) -> None:
        if call == 4:
            raise KeyboardInterrupt

    first = Watched(stopped)
    with pytest.raises(KeyboardInterrupt):
        reembed(folder, first)
    assert under_way(folder) == NEW.name and open_live(folder, EMBEDDER).search("pump")
    with pytest.raises(InputError, match="being embedded anew with hashing-32"):
        other = Watched()
        other.embedder = HashingEmbedder(64)
        reembed(folder, other)
    second = Watched()
    reembed(folder, second)
    assert first.documents + second.documents == 20
    assert_new(folder, range(20))


def test_killed_it_goes_on(folder: Path) -> None:
    code = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from windlass.apply.rag.chunking.chunker import Chunker
        from windlass.apply.rag.indexes.embedded import reembedding
        from windlass.apply.rag.embedding.hashing import HashingEmbedder

        reembedding._PASSAGES = 10
        class Dying(HashingEmbedder):
            calls = 0
            def embed(self, texts, kind="passage"):
                Dying.calls += 1
                if Dying.calls == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().embed(texts, kind)
        reembedding.reembed(Path({str(folder)!r}), Chunker(Dying(32)))
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    rest = Watched()
    reembed(folder, rest)
    assert 0 < rest.documents < 20
    assert_new(folder, range(20))


def test_what_was_begun_can_be_called_off(folder: Path) -> None:
    def called_off(call: int) -> None:
        if call == 3:
            assert abandon(folder)

    with pytest.raises(InputError, match="called off"):
        reembed(folder, Watched(called_off))
    assert not abandon(folder) and len(list(folder.glob("vectors-*.f32"))) == 1
    index: EmbeddedIndex = open_live(folder, EMBEDDER)
    assert len(index.search("pump", 5)) == 5


def test_an_empty_index_changes_its_embedder(tmp_path: Path) -> None:
    open_live(tmp_path / "index", EMBEDDER).close()
    assert reembed(tmp_path / "index", Chunker(NEW, ChunkSettings())).documents == 0
    assert open_live(tmp_path / "index", NEW).search("pump") == []

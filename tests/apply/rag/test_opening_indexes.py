"""One door to all live indexes; and what Qdrant does where it has no transactions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.indexes.address import is_address, shown
from windlass.apply.rag.indexes.embedded.layout import FILE
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.opening import open_index
from windlass.core.documents import Document, Entry, Passage
from windlass.core.errors import InputError, Unsupported, WorkspaceError

EMBEDDER = HashingEmbedder(16)


def entry(id: str, text: str) -> Entry:
    passages = [Passage(id, id, "", 0, len(text), text)]
    return Entry(Document(id, f"{id}.txt", id, text), text, passages, EMBEDDER.embed([text]).vectors)


def test_a_folder_is_an_embedded_index(tmp_path: Path) -> None:
    for where in (tmp_path / "index", str(tmp_path / "index")):
        index = open_index(where, EMBEDDER, search=SearchSettings("rrf"))
        index.put([entry("a", "pumps move water")])
        assert (tmp_path / "index" / FILE).is_file() and len(index) == 1
        index.close()


def test_an_address_of_postgres_names_the_index_in_it() -> None:
    from bench import _postgres_server

    if (why := _postgres_server.missing()) is not None:
        pytest.skip(why)
    from windlass.apply.rag.indexes.postgres import PostgresIndex

    dsn = _postgres_server.shared().dsn
    handbook, docs = open_index(f"{dsn}#opening-handbook", EMBEDDER), open_index(dsn, EMBEDDER)
    assert isinstance(handbook, PostgresIndex) and isinstance(docs, PostgresIndex)
    assert (handbook.name, docs.name) == ("opening-handbook", "docs")
    handbook.put([entry("a", "pumps move water")])
    assert "a" not in docs.held() and handbook.delete(["a"]) == 1
    handbook.close()
    docs.close()


@pytest.mark.parametrize(
    "where",
    ["ftp://host/x", "mysql://me:hush@host/x", "postgres://me:hush@host:port/x", "postgres://me:hu/s#h@host:x/db"],
)
def test_an_address_that_is_none_is_refused_without_its_password(where: str) -> None:
    with pytest.raises(InputError) as error:
        open_index(where, EMBEDDER)
    assert "hush" not in str(error.value) and "hu/s" not in str(error.value)


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("postgres://me:hush@host:5432/db?sslmode=require#docs", "postgres://me@host:5432/db?sslmode=require#docs"),
        ("postgres://host/db?password=hush", "postgres://host/db"),
        ("postgres://host/db?a=1&sslpassword=hush&b=2#x", "postgres://host/db?a=1&b=2#x"),
        ("postgres://me:p@s/s#w?x@host/db#docs", "postgres://me@host/db#docs"),
        ("postgres://me@/db?host=/run/postgresql", "postgres://me@/db?host=/run/postgresql"),
        ("qdrant+https://host:6333#docs", "qdrant+https://host:6333#docs"),
        ("folder/of@mine", "folder/of@mine"),
    ],
)
def test_what_is_shown_of_an_address_holds_no_secret(where: str, seen: str) -> None:
    assert shown(where) == seen and is_address(where) == ("://" in where)


def test_no_server_is_told_in_one_sentence() -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(WorkspaceError, match=r"Qdrant at http://127\.0\.0\.1:9 does not answer"):
        open_index("qdrant+http://127.0.0.1:9#docs", EMBEDDER)


def test_qdrant_says_what_it_cannot_do() -> None:
    pytest.importorskip("qdrant_client")
    from windlass.apply.rag.indexes.qdrant import MEMORY, QdrantIndex

    with pytest.raises(Unsupported, match="words of titles"):
        QdrantIndex(MEMORY, EMBEDDER, search=SearchSettings(context_weight=2.0))
    index = QdrantIndex(MEMORY, EMBEDDER)
    index.put([entry("a", "pumps")])
    with pytest.raises(InputError, match="cannot filter by"):
        index.search("pumps", where={'a"b': 1})
    index.close()


@pytest.mark.parametrize("broken", ["keep", "_sweep"])
def test_a_put_that_was_cut_off_is_whole_or_nothing(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Cut off before the state is counted on it has changed nothing; after it, everything."""
    pytest.importorskip("qdrant_client")
    from windlass.apply.rag.indexes.qdrant import MEMORY, QdrantIndex

    index = QdrantIndex(MEMORY, EMBEDDER)
    index.put([entry("a", "pumps move water"), entry("b", "bread rises")])
    before = index.held()
    owner = index._held if broken == "keep" else index
    real, calls = getattr(owner, broken), []

    def cut(*given: object) -> None:
        calls.append(given)
        if len(calls) == (1 if broken == "keep" else 2):  # `put` sweeps once before it writes
            raise ConnectionError("cut off")
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, broken, cut)
        with pytest.raises(ConnectionError):
            index.put([entry("a", "stars burn hydrogen"), entry("c", "violins have strings")])
    after = {"a": "stars burn hydrogen", "b": "bread rises", "c": "violins have strings"}
    assert index.held() == (before if broken == "keep" else after)
    for _ in range(2):
        for document, text in index.held().items():
            [hit] = index.search(text, 9, {"document": document})
            assert hit.citation.quote == text and index.document_of(hit.passage).text == text
            assert np.allclose(index.vectors_of([hit.passage])[0], EMBEDDER.embed([text]).vectors[0])
        assert len(index.search("anything", 99)) == len(index) == len(index.held())
        index.put([entry("a", "stars burn hydrogen"), entry("c", "violins have strings")])  # and clears up
        assert index.held() == after
        stored = index._passages.ask("count").count
        assert stored == 3, "nothing is left of what was replaced"
    index.close()

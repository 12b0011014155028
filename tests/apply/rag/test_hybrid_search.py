"""Searching with filters is searching a smaller index; quotations stand where they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from windlass.apply.rag.answers.quoting import QuoteSettings, _grown, quote
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.documents import Document, write_documents
from windlass.core.errors import InputError
from windlass.core.values import Citation
from windlass.core.workspace import Workspace

WORDS = "pump water valve oven bread star violin string engine paper river stone".split()  # noqa: SIM905


def documents() -> list[Document]:
    rng = np.random.default_rng(3)
    made = []
    for i in range(40):
        text = " ".join(" ".join(rng.choice(WORDS, 6)).capitalize() + f" {i}." for _ in range(rng.integers(1, 12)))
        facts: dict[str, Any] = {"kind": "page" if i % 2 else "note", "tags": ["a", "b"] if i % 3 else ["b"]}
        made.append(Document(f"d{i}", f"d{i}.md", f"Title {i}", text, "markdown", [], facts))
    return made


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HybridIndex]:
    with Workspace(tmp_path_factory.mktemp("ws")) as ws:
        with ws.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", documents())
        embedder = HashingEmbedder(64)
        index = HybridIndex.open(build_index(ws, draft.done, embedder), embedder)
        yield index
        index.close()


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        ({"kind": "page"}, lambda d: d.metadata["kind"] == "page"),
        ({"kind": ["page", "note"]}, lambda d: True),
        ({"kind": "note", "tags": "a"}, lambda d: d.metadata["kind"] == "note" and "a" in d.metadata["tags"]),
        ({"document": ["d3", "d7"]}, lambda d: d.id in ("d3", "d7")),
        ({"kind": "no such kind"}, lambda d: False),
    ],
)
@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
def test_a_filter_keeps_the_order_of_what_it_lets_through(
    index: HybridIndex, where: dict[str, object], passes: Any, fusion: Any
) -> None:
    searching = index.with_settings(SearchSettings(fusion, dense=1.0))  # a score that hangs on the passage alone
    allowed = {document.id for document in documents() if passes(document)}
    everything = searching.search("Water in the valve of a pump", k=len(index))
    expected = [hit.passage for hit in everything if hit.citation.document in allowed]
    found = searching.search("Water in the valve of a pump", k=7, where=where)
    assert [hit.passage for hit in found] == expected[:7]


def test_what_cannot_be_searched_is_refused(index: HybridIndex) -> None:
    with pytest.raises(InputError, match="Question 2 is empty"):
        index.search_many(["pump", " \n"])
    with pytest.raises(InputError, match="finds nothing"):
        index.search("pump", 0)
    with pytest.raises(InputError, match=r"No document of the index has 'colour'") as refused:
        index.search("pump", where={"colour": "red"})
    assert "kind" in refused.value.hint
    assert index.search("a lone surrogate \ud800 pump", 3)


def test_citations_come_in_the_order_asked_for_however_many(index: HybridIndex) -> None:
    wanted = [1 + (7 * i) % len(index) for i in range(1200)]
    found = index.citations(wanted)
    assert len(found) == 1200 and all(found[i] == found[i + len(index)] for i in range(1200 - len(index)))
    texts = {document.id: document.text for document in documents()}
    assert all(texts[one.document][one.start : one.end] == one.quote for one in found)


@pytest.mark.parametrize("settings", [QuoteSettings(), QuoteSettings(1, 1, 1), QuoteSettings(2, 5, 60, near=0.0)])
def test_quotations_are_verbatim_short_and_from_different_passages(index: HybridIndex, settings: QuoteSettings) -> None:
    texts = {document.id: document.text for document in documents()}
    for question in ("violin string", "bread from the oven", "zzz"):
        hits = index.search(question, 5)
        quotes, tokens = quote(index, question, hits, settings)
        assert 1 <= len(quotes) <= settings.quotes and tokens > 0
        for one in quotes:
            assert texts[one.document][one.start : one.end] == one.quote
            sentences = one.quote.count(".")
            assert len(one.quote) <= settings.length or sentences == 1, "only a single sentence may be longer"
        owners = [next(h.passage for h in hits if h.citation.document == q.document
                       and h.citation.start <= q.start and q.end <= h.citation.end) for q in quotes]  # fmt: skip
        assert owners[0] == hits[0].passage, "the best passage is always quoted"
        assert len(set(owners)) == len(owners)
    assert quote(index, "violin", [], settings) == ([], 0)


def test_a_quotation_does_not_go_on_behind_a_heading() -> None:
    text = "The base has three years.\n\n## Spare parts\n\nCups are sold.\nSo are funnels."
    passage = Citation("d", "D", "", 100, 100 + len(text), text)
    spans = list(sentence_spans(text))
    about = [text[a:b] for a, b in spans]
    grown = [_grown(passage, spans, best, 300) for best in (0, len(spans) - 1)]
    assert about[0] == "The base has three years." and grown[0].quote == about[0]
    assert grown[1].quote == text[text.index("## Spare") :] and grown[1].start == 100 + text.index("## Spare")

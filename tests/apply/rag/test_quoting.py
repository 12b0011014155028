"""What is quoted: sentences, not the headings, labels and badges around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from windlass.apply.rag.answers.quoting import QuoteSettings, quote
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.core.documents import Document, write_documents
from windlass.core.workspace import Workspace

LONG = "It is a small tool " + "that does this and that for whoever wants it, " * 8 + "and nothing else."
BADGES = "[![Build](https://example.org/b.svg)](https://example.org/b)\n[![Docs](https://example.org/d.svg)](d.md)"
Quoted = Callable[[str, str], str]


@pytest.fixture
def quoted(tmp_path: Path) -> Quoted:
    def quoted(text: str, question: str) -> str:
        embedder = HashingEmbedder()
        with Workspace(tmp_path) as ws:
            with ws.artifacts.build("corpus", "corpus") as draft:
                write_documents(draft.path / "documents.jsonl", [Document("d", "d.md", "D", text, "markdown")])
            index = HybridIndex.open(build_index(ws, draft.done, embedder), embedder)
            citations, _ = quote(index, question, index.search(question, 3), QuoteSettings())
        return citations[0].quote

    return quoted


@pytest.mark.parametrize(
    "above",
    [
        "# What is pawl?",
        "What is pawl?\n=============",
        "(what-is-pawl)=\n# What is pawl?\n\n(pawl)=",
        f"# What is pawl?\n\n{BADGES}",
        ".. _what is pawl:\n\nWhat is pawl?\n-------------",
    ],
)
def test_where_a_heading_fits_best_the_sentence_below_it_is_quoted(above: str, quoted: Quoted) -> None:
    assert quoted(f"{above}\n\n{LONG}\n\nRun it by its name.\n", "What is pawl?") == LONG


def test_a_heading_may_stand_above_what_is_quoted(quoted: Quoted) -> None:
    text = "# Care\n\nOil the pump.\n\n# Output\n\nNine litres."
    assert quoted(text, "pump oil") == "# Care\n\nOil the pump."


def test_a_document_of_headings_alone_is_still_quoted(quoted: Quoted) -> None:
    assert quoted("# Pump\n\n## Oil\n", "pump") == "# Pump"


def test_what_follows_is_no_part_of_a_quotation_when_it_says_nothing(quoted: Quoted) -> None:
    assert quoted("Oil the pump each week.\n\n(storing)=\n", "oil the pump") == "Oil the pump each week."

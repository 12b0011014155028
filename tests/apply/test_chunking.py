from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.apply.rag.chunking import ChunkSettings, chunk, embedding_text
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.documents import Document, Passage, Section
from windlass.core.errors import InputError

SMALL = ChunkSettings(target=60, limit=100, pieces=80)

pieces = st.sampled_from(
    ["A word.", " ", "\n", "\n\n", "# Head\n", "- item one\n", "    code()\n", "```\nx = 1\n```\n", "e.g. this ", "\t",
     "Ünïcode… ", "日本語。", "x" * 130, "Dr. Who said “no.” Then left! ", "| a | b |\n", "\r\n",
     "\u00a0", "def f():\n"]
)  # fmt: skip
texts = st.one_of(st.lists(pieces, max_size=40).map("".join), st.text(max_size=400))


@st.composite
def documents(draw: st.DrawFn) -> tuple[Document, list[tuple[int, int]]]:
    text = draw(texts)
    at = st.integers(0, len(text))
    sections = [
        Section(draw(at), draw(st.integers(1, 4)), draw(st.text(max_size=9))) for _ in range(draw(st.integers(0, 5)))
    ]
    kind = draw(st.sampled_from(["text", "markdown", "rst", "html", "python"]))
    spans = [tuple(sorted((draw(at), draw(at)))) for _ in range(draw(st.integers(0, 4)))]
    return Document("d", "d.md", "Title", text, kind, sections), [(a, b) for a, b in spans if a < b]


@given(documents())
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_masked_is_found(case: tuple[Document, list[tuple[int, int]]]) -> None:
    document, masked = case
    passages = list(chunk(document, masked, SMALL))
    covered = [0] * len(document.text)
    for passage in passages:
        assert passage.text == document.text[passage.start : passage.end]
        assert passage.text.strip()
        assert len(passage.text.lstrip(" \t")) <= SMALL.limit
        for i in range(passage.start, passage.end):
            covered[i] += 1
    hidden = {i for start, end in masked for i in range(start, end)}
    for i, character in enumerate(document.text):
        assert covered[i] <= 1
        if i in hidden:
            assert covered[i] == 0
        elif not character.isspace():
            assert covered[i] == 1, (i, character)
    assert [p.start for p in passages] == sorted(p.start for p in passages)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_sentences_partition_the_text(text: str) -> None:
    spans = list(sentence_spans(text))
    assert all(a < b <= c for (a, b), (c, _) in pairwise(spans))
    inside = "".join(text[a:b] for a, b in spans)
    assert [c for c in inside if not c.isspace()] == [c for c in text if not c.isspace()]


def test_sentences_end_where_a_reader_would_end_them() -> None:
    text = (
        "See e.g. Fig. 3 by Dr. Who. It costs 3.50 euros! “Really?” Yes... and no. J. Smith left.\n\nNew block\n- item"
    )
    assert [text[a:b] for a, b in sentence_spans(text)] == [
        "See e.g. Fig. 3 by Dr. Who.",
        "It costs 3.50 euros!",
        "“Really?”",
        "Yes... and no.",
        "J. Smith left.",
        "New block",
        "- item",
    ]


def page() -> Document:
    text = (
        "# Pump\n"
        + "The pump moves water. " * 20
        + "\n\n## Safety\n"
        + "Wear gloves. " * 30
        + "\n\n## Storage\n"
        + "Keep it dry. " * 30
    )
    sections = [
        Section(0, 1, "Pump"),
        Section(text.index("## Saf"), 2, "Safety"),
        Section(text.index("## Sto"), 2, "Storage"),
    ]
    return Document("pump", "pump.md", "Pump", text, "markdown", sections)


def test_passages_keep_to_sections_and_carry_their_heading() -> None:
    passages = list(chunk(page()))
    assert [p.heading for p in passages][1:] == ["Safety", "Storage"]
    assert passages[1].text.startswith("## Safety") and passages[2].text.startswith("## Storage")
    assert embedding_text(passages[1]).startswith("Pump > Safety\n## Safety")


def test_a_python_function_is_not_torn_when_it_fits() -> None:
    functions = [f"def f{i}(x):\n    y = x + {i}\n\n    return y * {'z' * 200}\n" for i in range(8)]
    source = "\n\n".join(functions)
    passages = list(chunk(Document("m", "m.py", "m", source, "python")))
    assert len(passages) > 2
    assert all(p.text.startswith("def ") for p in passages)


def test_a_masked_text_does_not_come_back_through_title_or_heading() -> None:
    secret = "Return the absolute value of the argument."
    text = f"abs(x)\n\n{secret}\n\nThe argument may be an integer."
    start = text.index(secret)
    sections = [Section(0, 1, "Return the absolute value of x"), Section(start, 2, "abs")]
    document = Document("abs", "python:abs", "Return the absolute value of the argument", text, "text", sections)
    passages = list(chunk(document, [(start, start + len(secret))]))
    assert [p.text for p in passages] == ["abs(x)", "The argument may be an integer."]
    assert all("absolute" not in embedding_text(p) for p in passages)
    harmless = dataclasses.replace(document, title="Numbers", sections=[Section(0, 1, "The built-in abs")])
    passages = list(chunk(harmless, [(start, start + len(secret))]))
    assert passages[0] == Passage("abs", "Numbers", "The built-in abs", 0, 6, "abs(x)")


def test_a_span_outside_the_document_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"'pump' has .* characters, but 0:99999"):
        list(chunk(page(), [(0, 99999)]))


def test_one_endless_line_is_cut_in_linear_time() -> None:
    passages = list(chunk(Document("x", "x.txt", "x", "a" * 200_000 + " b" * 50_000)))
    assert max(len(p.text) for p in passages) <= ChunkSettings().limit
    assert sum(len(p.text.replace(" ", "")) for p in passages) == 250_000

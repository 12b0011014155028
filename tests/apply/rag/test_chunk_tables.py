"""Tables are cut between rows, and each piece is found by the header of its columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.apply.rag.chunking import ChunkSettings, chunk, context_of, embedding_text
from windlass.apply.rag.chunking.tables import Tables
from windlass.core.documents import Document

HEADER = "| Pump | Litres | Built |\n|------|-------:|-------|"
ROWS = [f"| No. {i}. Red | {i * 7} | in 19{i:02}. By hand |" for i in range(40)]
PAGE = "# Pumps\n\nAll of them.\n\n" + "\n".join([HEADER, *ROWS]) + "\n\nNothing else. It ends here.\n"


@pytest.mark.parametrize("kind", ["structure", "sentence"])
def test_rows_stay_whole_and_the_header_stands_above_each_piece(kind: str) -> None:
    document = Document("pumps", "pumps.md", "Pumps", PAGE, "markdown")
    passages = list(chunk(document, (), ChunkSettings(kind, target=300, limit=500)))  # type: ignore[arg-type]
    assert len(passages) > 4
    rows = [line for p in passages for line in p.text.splitlines() if line.startswith("| No.")]
    assert rows == ROWS
    for passage in passages:
        inside = passage.text.startswith("| No.")
        assert passage.context == (HEADER if inside else "")
        assert (HEADER in passage.text) == (passage.text.find("| No. 0.") > 0)
        if inside:
            assert embedding_text(passage) == f"Pumps\n{HEADER}\n{passage.text}"
            assert context_of(passage) == f"Pumps\n{HEADER}"


def test_a_row_longer_than_a_passage_is_cut_between_its_cells() -> None:
    cells = [" ".join([word] * 12) for word in ("oil", "water", "valve", "hand", "rope", "wheel")]
    text = "| a | b | c | d | e | f |\n|---|---|---|---|---|---|\n| " + " | ".join(cells) + " |\n"
    passages = list(chunk(Document("t", "t.md", "", text, "markdown"), (), ChunkSettings(target=120, limit=160)))
    assert max(len(p.text) for p in passages) <= 160
    assert all(p.text.startswith("|") for p in passages)
    assert "".join(p.text for p in passages).replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(
        " ", ""
    )


def test_grids_are_cut_between_rows() -> None:
    border = "+------+-----+\n"
    rows = [f"| a{i:03} | one |\n|      | two |\n{border}" for i in range(12)]
    text = f"Intro.\n\n{border}| name | val |\n+======+=====+\n" + "".join(rows)
    passages = list(chunk(Document("t", "t.rst", "", text, "rst"), (), ChunkSettings(target=100, limit=200)))
    below = [p for p in passages if p.context]
    assert len(below) > 2
    assert all(p.text.startswith("+") and p.context.startswith("+------+-----+\n| name | val |") for p in below)


def test_rows_of_a_page_have_their_first_as_header_and_those_of_a_shell_have_none() -> None:
    text = "Prices\n\nname | price\n" + "\n".join(f"thing {i} | {i}" for i in range(30))
    passages = list(chunk(Document("t", "t.html", "", text, "html"), (), ChunkSettings(target=80, limit=120)))
    assert [p.context for p in passages[1:]] == ["name | price"] * (len(passages) - 1)
    assert not Tables(Document("t", "t.md", "", text, "markdown"), 0, len(text)).all
    assert not Tables(Document("t", "t.py", "", PAGE, "python"), 0, len(PAGE)).all


def test_a_masked_header_does_not_come_back() -> None:
    start = PAGE.index("| Pump")
    passages = list(chunk(Document("p", "p.md", "", PAGE, "markdown"), [(start, start + 8)]))
    assert all("Pump" not in embedding_text(p) for p in passages if p.start > start)


@given(st.lists(st.sampled_from(["| a | b |\n", "|---|:-:|\n", "text\n", "\n", "+--+\n", "+==+\n", "a | b\n", "|\n"])))
def test_tables_lie_apart_and_their_rows_within(lines: list[str]) -> None:
    text = "".join(lines)
    reach = -1
    for table in Tables(Document("t", "t.html", "", text, "html"), 0, len(text)).all:
        assert reach < table.start < table.rows[0] and table.rows[-1] < table.end <= len(text)
        assert list(table.rows) == sorted(set(table.rows))
        assert all(text[at - 1] == "\n" for at in table.rows)
        reach = table.end

"""The lists of traces walk an index from its newest end: their cost does not grow with the number of traces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from windlass.core.records import Mark, SpanRecord
from windlass.core.sqlite_store import SqliteStore


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "spans_roots"),
        ({"since": 5.0}, "spans_roots"),
        ({"name": "assistant"}, "spans_named_roots"),
        ({"name": "assistant", "since": 5.0}, "spans_named_roots"),
        ({"errors": False}, "spans_roots"),
        ({"score": ("feedback", 0.0, 1.0)}, "spans_roots"),
    ],
)
def test_traces_are_read_in_the_order_of_an_index(tmp_path: Path, filters: dict[str, Any], index: str) -> None:
    store = SqliteStore(tmp_path / "w.db")
    store.add_spans(
        SpanRecord(f"{n:032x}", f"{1:016x}", None, "assistant", "chat", n, n, "ok", None, {}) for n in range(50)
    )
    plans: list[str] = []
    read = store.database.read

    def explained(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        plans.append("\n".join(row[3] for row in read(f"EXPLAIN QUERY PLAN {sql}", parameters)))
        return read(sql, parameters)

    store.database.read = explained  # type: ignore[method-assign]
    store.traces(**filters)
    roots, parts, scores = plans
    assert re.search(rf"(SCAN|SEARCH) root USING INDEX {index}\b", roots), roots
    assert "TEMP B-TREE FOR ORDER BY" not in roots, roots
    assert "SEARCH spans USING INDEX" in parts, parts
    assert "SEARCH scores USING INDEX" in scores, scores
    store.close()


def test_a_few_traces_are_found_by_their_ids(tmp_path: Path) -> None:
    """Not by walking all of their name, which is how SQLite would choose."""
    store = SqliteStore(tmp_path / "w.db")
    plans: list[str] = []
    read = store.database.read

    def explained(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        plans.append("\n".join(row[3] for row in read(f"EXPLAIN QUERY PLAN {sql}", parameters)))
        return read(sql, parameters)

    store.database.read = explained  # type: ignore[method-assign]
    store.traces(ids=["a" * 32], name="assistant", since=5.0)
    assert re.search(r"SEARCH root USING INDEX sqlite_autoindex_spans_1 \(trace_id=\?", plans[0]), plans[0]
    plans.clear()
    store.touched(Mark(5, 5))
    assert all("USING INTEGER PRIMARY KEY (rowid>?)" in plan for plan in plans) and len(plans) == 2, plans
    store.close()


def test_who_used_a_prompt_is_found_without_reading_all_spans(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "w.db")
    store.add_spans(
        SpanRecord(
            f"{n:032x}", f"{1:016x}", None, "tone", "chat", n, n, "ok", None,
            {"windlass.prompt.digest": "a" * 64} if n % 10 == 0 else {},
        )
        for n in range(50)
    )  # fmt: skip
    plans: list[str] = []
    read = store.database.read

    def explained(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        plans.append("\n".join(row[3] for row in read(f"EXPLAIN QUERY PLAN {sql}", parameters)))
        return read(sql, parameters)

    store.database.read = explained  # type: ignore[method-assign]
    assert store.prompt_uses(["a" * 64])["a" * 64].traces == 5
    assert len(store.traces(prompt="a" * 64)) == 5
    for plan in plans[:3]:
        assert "spans USING INDEX spans_prompts" in plan, plan
    store.close()

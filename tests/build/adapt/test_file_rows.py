"""Rows of files come out as they were written, or an error says which one is no text."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.rows import rows_of
from windlass.core.errors import InputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(
    st.dictionaries(st.text(min_size=1, max_size=4), VALUES, min_size=1, max_size=3), min_size=1, max_size=6
)


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@given(ROWS, st.sampled_from(["rows.jsonl", "rows.json"]))
def test_every_row_is_there_without_its_empty_columns(rows: list[dict[str, Any]], name: str) -> None:
    with TemporaryDirectory() as folder:
        found = rows_of(written(Path(folder), name, rows))
    assert [dict(row.values) for row in found] == [
        {column: value for column, value in row.items() if value is not None} for row in rows
    ]
    assert len({row.where for row in found}) == len(rows)


@given(st.integers(0, 4), st.recursive(st.just("\ud83d of"), lambda one: st.lists(one, min_size=1, max_size=2)))
def test_half_a_character_is_named_wherever_it_stands(before: int, value: Any) -> None:
    rows = [{"text": "whole 😀"}] * before + [{"id": 1, "messages": [{"role": "user", "content": value}]}]
    with TemporaryDirectory() as folder:
        path = written(Path(folder), "rows.jsonl", rows)
        with pytest.raises(InputError, match=rf"row {before + 1}: messages holds half a character .*U\+D83D"):
            rows_of(path)

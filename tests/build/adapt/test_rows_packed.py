"""Rows of a JSON array are read packed too, as public sets come."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from windlass.build.adapt.data.rows import rows_of
from windlass.core.errors import InputError


def test_a_packed_array_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    rows = [{"prompt": "red", "completion": "blue"}, {"prompt": "green", "completion": None}]
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert [row.values for row in rows_of(path)] == [rows[0], {"prompt": "green"}]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"rows\.json\.gz is not readable JSON"):
        rows_of(path)

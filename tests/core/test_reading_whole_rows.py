"""Rows without a field of text, for those who want all that a table says; JSON arrays; what separates columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.readers import Folder, ReadReport, RowFields, canonical

WHOLE = RowFields(None)


def read(path: Path, fields: RowFields = WHOLE) -> tuple[list[Document], ReadReport]:
    report = ReadReport()
    return list(Folder(path, fields=fields).documents(report)), report


def test_all_fields_are_read_where_a_row_has_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item,price,note\nRope,12.5,\nPawl,3,worn\n")
    found, report = read(tmp_path)
    assert [one.text for one in found] == ["item: Rope\nprice: 12.5", "item: Pawl\nprice: 3\nnote: worn"]
    assert [one.id for one in found] == ["a.csv:2", "a.csv:3"] and report.parts == {"rows": 2}
    with pytest.raises(InputError, match="row without a field 'text'"):
        read(tmp_path, RowFields())


def test_a_text_stands_for_its_row(tmp_path: Path) -> None:
    rows = [
        {"text": "The text.", "price": 3},
        {"title": "Two", "tags": ["a", "b"], "at": {"city": "Bern", "zip": None}},
    ]
    rows.append({"parts": [{"name": "x"}, {"name": "y"}], "on": True, "empty": {}})
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found, _ = read(tmp_path)
    assert [one.text for one in found] == [
        "The text.", "title: Two\ntags: a, b\nat.city: Bern", "parts.1.name: x\nparts.2.name: y\non: True",
    ]  # fmt: skip
    assert found[1].title == "Two" and [one.id for one in found] == ["a.json:1", "a.json:2", "a.json:3"]
    assert all(canonical(one.text) == one.text for one in found)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_columns_may_be_separated_as_spreadsheets_do(tmp_path: Path, mark: str) -> None:
    lines = (f"item{mark}price", f"Rope{mark}12,5", f'"a{mark}b"{mark}3')
    (tmp_path / "a.csv").write_text("\n".join(lines))
    found, report = read(tmp_path)
    assert [one.text for one in found] == [
        "item: Rope\nprice: 12,5",
        f"item: a{mark}b\nprice: 3",
    ] and not report.skipped


def test_a_single_column_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nOne; two\n")
    assert [one.text for one in read(tmp_path)[0]] == ["One; two"]


def test_json_may_be_one_object_and_what_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('\ufeff{"name": "Rope", "price": 3}')
    (tmp_path / "mixed.json").write_text('[1, {"name": "Pawl"}, "x"]')
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "large.json").write_text(json.dumps([{"name": "x" * 3000}]))
    report = ReadReport()
    found = {one.id: one.text for one in Folder(tmp_path, 2000, WHOLE).documents(report)}
    assert found == {"one.json:1": "name: Rope\nprice: 3", "mixed.json:2": "name: Pawl"}
    assert report.skips == {"not JSON": 1, "row not a JSON object": 2, "too large": 2}
    assert "JSON lines" in next(note.detail for note in report.skipped if note.source == "large.json")


def test_parquet_is_read_with_all_its_columns(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"item": ["Rope"], "price": [3]}), tmp_path / "a.parquet")
    assert [one.text for one in read(tmp_path)[0]] == ["item: Rope\nprice: 3"]

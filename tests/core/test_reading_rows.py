"""Rows and packed files: every good row is read, every bad one named, and memory does not grow with the file."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.readers import Folder, ReadReport, RowFields, canonical
from windlass.core.readers.unpacking import Bomb, opened, unpacked_name

pyarrow = pytest.importorskip("pyarrow")
TEXT = "Some text that is long enough."
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5)


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def read(path: Path, fields: RowFields | None = None, **options: int) -> tuple[list[Document], ReadReport]:
    report = ReadReport()
    return list(Folder(path, fields=fields or RowFields(), **options).documents(report)), report


def skipped(report: ReadReport) -> dict[str, str]:
    return {note.source: note.reason for note in report.skipped}


def test_a_broken_row_costs_nothing_but_itself(tmp_path: Path) -> None:
    rows = [
        lines([{"text": TEXT}]),
        b'{"text": "cut off\n',
        lines([["a", "list"], {"body": TEXT}, {"text": 7}, {"text": "  \n"}]),
        b'{"text": "caf\xe9"}\n',
        b"\n",
        b"[" * 100_000 + b"\n",
        lines([{"text": "x" * 3000}]),
        lines([{"text": "last, without a line end \ud83d\ude00"}])[:-1],
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(rows))
    documents, report = read(tmp_path / "rows.jsonl", max_bytes=2000)
    assert [d.id for d in documents] == ["rows.jsonl:1", "rows.jsonl:11"]
    assert documents[1].text.endswith("end \N{GRINNING FACE}")
    assert skipped(report) == {
        "rows.jsonl:2": "row not JSON",
        "rows.jsonl:3": "row not a JSON object",
        "rows.jsonl:4": "row without a field 'text'",
        "rows.jsonl:5": "row whose 'text' is not text",
        "rows.jsonl:6": "empty",
        "rows.jsonl:7": "row not UTF-8",
        "rows.jsonl:9": "row too large",
        "rows.jsonl:10": "row too large",
    }
    assert report.files == 1 and report.documents == 2


def test_deep_nesting_is_a_broken_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"[" * 100_000 + b"\n" + lines([{"text": TEXT}]))
    documents, report = read(tmp_path)
    assert len(documents) == 1 and skipped(report) == {"a.jsonl:1": "row not JSON"}


def test_fields_make_id_title_format_and_metadata(tmp_path: Path) -> None:
    rows = [
        {"repo": "a/b", "path": "docs/x.md", "text": "# Head\n\n" + TEXT, "license": "MIT"},
        {"repo": "a/b", "path": "src/m.py", "text": '"""Doc."""\nx = 1\n'},
        {"repo": "a/b", "path": "lib.rs", "text": "fn main() {}", "title": "not for programs"},
        {"text": TEXT, "title": " A title\n", "url": "https://x.y/z"},
    ]
    (tmp_path / "r.jsonl").write_bytes(lines(rows))
    documents, _ = read(tmp_path)
    assert [(d.id, d.title, d.format, d.metadata["kind"]) for d in documents] == [
        ("r.jsonl:1", "Head", "markdown", "page"),
        ("r.jsonl:2", "src/m.py", "python", "source"),
        ("r.jsonl:2#m", "m", "python", "docstring"),
        ("r.jsonl:3", "lib.rs", "code", "source"),
        ("r.jsonl:4", "A title", "text", "page"),
    ]
    assert documents[0].metadata["row"] == {"repo": "a/b", "path": "docs/x.md", "license": "MIT"}
    assert documents[1].metadata["cluster"] == documents[2].metadata["cluster"]
    assert documents[3].metadata["programming_language"] == "Rust"
    (tmp_path / "r.jsonl").write_bytes(lines([{"content": TEXT, "key": 7, "lang": "en"}, {"content": TEXT}]))
    documents, report = read(tmp_path, RowFields(text="content", id="key", kept=("lang",)))
    assert documents[0].id == "r.jsonl#7" and documents[0].metadata["row"] == {"lang": "en"}
    assert skipped(report) == {"r.jsonl:2": "row without a field 'key'"}


@pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
def test_tables_of_text(tmp_path: Path, suffix: str, comma: str) -> None:
    rows = [["title", "text"], ["A", f'"{TEXT}\nsecond ""line"""'], ["B", TEXT, "too many"], ["C", "y" * 200_000]]
    (tmp_path / f"t{suffix}").write_text("\ufeff" + "\n".join(comma.join(row) for row in rows) + "\n")
    documents, report = read(tmp_path)
    assert [(d.id, d.title) for d in documents] == [(f"t{suffix}:2", "A"), (f"t{suffix}:5", "C")]
    assert documents[0].text == f'{TEXT}\nsecond "line"'
    assert skipped(report) == {f"t{suffix}:4": "row not CSV"}


def test_parquet_is_read_by_the_columns_it_needs(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = pyarrow.table(
        {"text": [f"{TEXT} {i}" for i in range(1000)] + [None], "score": [0.5] * 1001, "url": ["u"] * 1001}
    )
    parquet.write_table(table, tmp_path / "p.parquet", row_group_size=100)
    documents, report = read(tmp_path)
    assert (
        len(documents) == 1000 and documents[999].text == f"{TEXT} 999" and documents[0].metadata["row"] == {"url": "u"}
    )
    assert skipped(report) == {"p.parquet:1001": "row whose 'text' is not text"}
    (tmp_path / "p.parquet").write_bytes((tmp_path / "p.parquet").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"nothing to read .*1 damaged\. First: p\.parquet"):
        read(tmp_path)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
def test_packed_files_are_read_as_what_they_hold(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / f"page.md{suffix}").write_bytes(pack(b"# Packed\n\n" + TEXT.encode()))
    (tmp_path / f"rows.jsonl{suffix}").write_bytes(
        pack(lines([{"text": TEXT}])) + pack(lines([{"text": "more " + TEXT}]))
    )
    (tmp_path / f"table.csv{suffix}").write_bytes(pack(b"text\n" + TEXT.encode() + b"\n"))
    (tmp_path / f"picture.png{suffix}").write_bytes(pack(b"x"))
    documents, report = read(tmp_path)
    assert [(d.id, d.title) for d in documents] == [
        (f"page.md{suffix}", "Packed"),
        (f"rows.jsonl{suffix}:1", f"rows.jsonl{suffix}:1"),
        (f"rows.jsonl{suffix}:2", f"rows.jsonl{suffix}:2"),
        (f"table.csv{suffix}:2", f"table.csv{suffix}:2"),
    ]
    assert list(skipped(report)) == [f"picture.png{suffix}"]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_damaged_packed_file_is_named_and_what_came_before_stands(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], damage: str
) -> None:
    data = pack(lines([{"text": f"{TEXT} {os.urandom(600).hex()}"} for _ in range(2000)]))
    half = len(data) // 2
    broken = {"cut": data[:half], "flipped": data[:half] + b"\0" * 64 + data[half + 64 :], "foreign": b"no" * 50}
    (tmp_path / f"a.jsonl{suffix}").write_bytes(broken[damage])
    (tmp_path / "b.jsonl").write_bytes(lines([{"text": TEXT}]))
    documents, report = read(tmp_path)
    assert documents[-1].id == "b.jsonl:1" and (len(documents) > 300) == (damage != "foreign")
    named = {note.source.partition(":")[0]: note.reason for note in report.skipped}
    assert list(named) == [f"a.jsonl{suffix}"]
    if damage != "flipped":  # zstd without a checksum lets some changes pass: they show as broken rows
        assert named[f"a.jsonl{suffix}"] == ("cut short" if damage == "cut" else "damaged")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
def test_a_bomb_ends_early(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.core.readers.unpacking.ALWAYS", 1_000_000)
    monkeypatch.setattr("windlass.core.readers.unpacking.EXPANSION", 2)
    path = tmp_path / f"bomb.jsonl{suffix}"
    path.write_bytes(pack(lines([{"text": TEXT}]) + bytes(20_000_000)))
    with opened(path) as stream, pytest.raises(Bomb):
        while stream.read(100_000):
            pass
    documents, report = read(path, max_bytes=10_000)
    assert [d.id for d in documents] == [f"bomb.jsonl{suffix}:1"]
    assert [note.reason for note in report.skipped] == ["too large"]
    page = tmp_path / f"page.txt{suffix}"
    page.write_bytes(pack(b"a" * 900_000))
    with pytest.raises(InputError, match=r"too large.*unpacked, the limit"):
        read(page, max_bytes=10_000)


def test_memory_does_not_grow_with_a_file_of_rows_nor_with_its_notes(tmp_path: Path) -> None:
    row = lines([{"text": TEXT * 100}])
    (tmp_path / "a.jsonl").write_bytes(row * 10_000 + b"not JSON\n" * 20_000 + b'{"text": "' + b"x" * 40_000_000)
    report = ReadReport()
    tracemalloc.start()
    count = sum(1 for _ in Folder(tmp_path, max_bytes=1_000_000).documents(report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000 and report.reasons() == {"row not JSON": 20_000, "row too large": 1}
    assert len(report.skipped) == 1001 and report.as_json()["skipped_count"] == 20_001
    assert peak < 6_000_000


@given(st.lists(st.dictionaries(st.sampled_from(["text", "id", "path", "title", "x"]), JSON, max_size=4), max_size=8))
def test_any_json_rows_are_read_or_named(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "r.jsonl"
    path.write_bytes(lines([*rows, {"text": TEXT}]))
    documents, report = read(path)
    assert all(canonical(d.text) == d.text and json.dumps(dict(d.metadata)) for d in documents)
    assert len({d.metadata["cluster"] for d in documents}) + report.skips.total() == len(rows) + 1


def test_names_of_packed_files() -> None:
    assert [unpacked_name(n) for n in ("a.txt.gz", "a.GZ", "b.jsonl.zst", ".gz", "c")] == [
        "a.txt",
        "a",
        "b.jsonl",
        ".gz",
        "c",
    ]


def test_without_the_extra_plain_files_are_read_and_the_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"x")
    program = f"""
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from windlass.core.errors import MissingExtra
from windlass.core.readers import read_folder
try:
    read_folder(Path({str(tmp_path)!r}))
except MissingExtra as error:
    assert "windlass[corpus]" in str(error), error
else:
    raise SystemExit("no error")
(Path({str(tmp_path)!r}) / "b.md").write_text("# Page\\n\\ntext")
documents, report = read_folder(Path({str(tmp_path)!r}))
assert len(documents) == 1 and report.skipped[0].reason == "needs an extra that is not installed"
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_parquet_file_of_one_row_group_is_read_piece_by_piece(tmp_path: Path) -> None:
    from pyarrow import parquet

    program = """
import sys
import pyarrow
from pathlib import Path
from windlass.core.readers import Folder, ReadReport
count = sum(1 for _ in Folder(Path(sys.argv[1])).documents(ReadReport()))
print(count, pyarrow.default_memory_pool().max_memory())
"""
    peaks = []
    for rows in (400, 8000):
        path = tmp_path / f"{rows}.parquet"
        texts = [os.urandom(1500).hex() for _ in range(rows)]
        parquet.write_table(pyarrow.table({"text": texts}), path, use_dictionary=False, compression="none")
        done = subprocess.run(
            [sys.executable, "-c", program, path], check=True, capture_output=True, text=True, timeout=60
        )
        count, peak = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 8_000_000 < path.stat().st_size  # of 24 MB of text

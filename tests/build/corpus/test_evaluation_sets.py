"""A set's texts are the same in whatever file it comes, and a file that cannot be read whole is refused."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from windlass.build.corpus.evaluation_sets import evaluation_texts
from windlass.core.errors import InputError

ROWS = [{"question": "How hot is tea?", "answer": "Eighty degrees."}, {"question": "And coffee?", "answer": "Hotter."}]


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="") as file:
            made = csv.DictWriter(file, ["question", "answer"])
            made.writeheader()
            made.writerows(ROWS)
        return path
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    content = (json.dumps(ROWS) if ".jsonl" not in name else lines).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["set.jsonl", "set.json", "set.csv", "set.jsonl.gz", "set.json.gz"])
def test_the_same_texts_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    found = [one.text for one in evaluation_texts(path)]
    assert sorted(found) == sorted(value for row in ROWS for value in row.values())
    assert [one.text for one in evaluation_texts(path, ["question", "unused"])] == [row["question"] for row in ROWS]
    with pytest.raises(InputError, match="has a field 'prompt'"):
        list(evaluation_texts(path, ["prompt"]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("set.jsonl", b'{"question": "a"}\n{"question": \n', "set.jsonl"),
        ("set.json", b'[{"question": "a"}', "cannot be read"),
        ("set.json", b"[" * 100_000, "cannot be read"),
        ("set.json.gz", b"not packed at all", "cannot be read"),
        ("set.docx", b"x", "of a type that windlass does not read"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        list(evaluation_texts(tmp_path / name))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        list(evaluation_texts(tmp_path / "set.jsonl"))

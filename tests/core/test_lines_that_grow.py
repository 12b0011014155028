"""Files of JSON lines that only grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from windlass.core.errors import InputError
from windlass.core.lines import Lines


def opened(path: Path) -> tuple[Lines, list[Any]]:
    seen: list[Any] = []
    return Lines(path, seen.append, hint="Remove that line."), seen


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    lines, seen = opened(tmp_path / "new" / "a.jsonl")
    lines.append([{"a": 1}, ["é", None]])
    lines.append([])
    lines.append(["last"])
    lines.close()
    assert seen == []
    again, seen = opened(tmp_path / "new" / "a.jsonl")
    assert seen == [{"a": 1}, ["é", None], "last"]
    again.remove()
    assert not (tmp_path / "new" / "a.jsonl").exists()


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_torn_end_is_cut_off_wherever_it_is_torn(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + b'{"b":22}'[:cut])
    lines, seen = opened(path)
    assert seen == [{"a": 1}] and path.read_bytes() == b'{"a":1}\n'
    lines.append([2])
    lines.close()
    assert path.read_bytes() == b'{"a":1}\n2\n'


def test_a_broken_line_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'1\nno\n2\n"torn')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2, is broken") as caught:
        opened(path)
    assert caught.value.hint == "Remove that line."
    assert path.read_bytes() == b'1\nno\n2\n"torn'


def test_so_is_a_line_that_its_owner_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 1}\n')
    with pytest.raises(InputError, match="line 2"):
        Lines(path, lambda line: line["a"], hint="")

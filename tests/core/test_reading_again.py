"""A source tells what it has and what has changed without reading it; what was not looked at is not taken for gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from windlass.core.errors import InputError
from windlass.core.readers import Folder, ReadReport, RowFields, read_folder

PAGE = "# Title\n\nSome text.\n"


def stamps(folder: Path, **how: object) -> dict[str, str]:
    return {file.name: file.stamp for file in Folder(folder, **how).files(ReadReport())}  # type: ignore[arg-type]


def test_files_are_listed_in_reading_order_and_none_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.md", "a/rows.csv", "a/mod.py", "picture.png", "report.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PAGE)

    def closed(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", closed)
        patch.setattr(Path, "read_bytes", closed)
        report = ReadReport()
        files = list(Folder(tmp_path).files(report))
    assert [file.name for file in files] == ["a/mod.py", "a/rows.csv", "b.md", "report.pdf"]
    assert [str(note) for note in report.skipped] == ["picture.png: of a type that windlass does not read (.png)"]
    assert report.documents == report.files == 0
    found = [document.id for file in files[:1] for document in file.documents(report)]
    assert found == ["a/mod.py"] and report.documents == report.files == 1


def test_documents_are_those_of_all_files(tmp_path: Path) -> None:
    for name in ("b.md", "a.md"):
        (tmp_path / name).write_text(PAGE + name)
    report = ReadReport()
    read = [document for file in Folder(tmp_path).files(report) for document in file.documents(report)]
    assert read == read_folder(tmp_path)[0]


def test_a_stamp_stays_until_the_file_or_the_way_of_reading_changes(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / name).write_text(PAGE)
    before = stamps(tmp_path)
    assert stamps(tmp_path) == before and len(set(before.values())) == 3
    (tmp_path / "a.md").write_text(PAGE.swapcase())  # as long as before
    os.utime(tmp_path / "a.md", ns=(0, (tmp_path / "b.md").stat().st_mtime_ns))  # and with a time that was set back
    (tmp_path / "c.md").rename(tmp_path / "d.md")
    after = stamps(tmp_path)
    assert after["a.md"] != before["a.md"] and after["b.md"] == before["b.md"] and "c.md" not in after
    assert stamps(tmp_path, max_bytes=1000)["b.md"] != before["b.md"]
    assert stamps(tmp_path, fields=RowFields(None))["b.md"] != before["b.md"]


def test_what_could_not_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open.md").write_text(PAGE)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "page.md").write_text(PAGE)
    real = os.scandir

    def scandir(path: os.PathLike[str]) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = ReadReport()
    assert [file.name for file in Folder(tmp_path).files(report)] == ["open.md"]
    assert not report.was_reached("closed/page.md") and not report.was_reached("closed")
    assert report.was_reached("gone.md") and report.was_reached("closed.md")
    (tmp_path / "open.md").unlink()
    assert report.was_reached("open.md")


def test_a_source_that_is_not_there_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list(Folder(tmp_path / "nowhere").files(ReadReport()))
    assert not list(Folder(tmp_path).files(ReadReport()))


def test_a_file_that_needs_an_extra_is_kept_and_not_taken_for_empty(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "b.md").write_text(PAGE)
    program = f"""
import sys
sys.modules["pypdf"] = None
from pathlib import Path
from windlass.core.readers import Folder, ReadReport
report = ReadReport()
read = [one.id for file in Folder(Path({str(tmp_path)!r})).files(report) for one in file.documents(report)]
assert read == ["b.md"], read
assert not report.was_reached("a.pdf") and report.was_reached("b.md")
assert "windlass[documents]" in str(report.missing), report.missing
assert "windlass[documents]" in report.skipped[0].detail
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

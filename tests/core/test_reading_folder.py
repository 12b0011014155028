"""Reading folders as people have them: everything is read, or named with the reason why not."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from windlass.core.errors import InputError
from windlass.core.readers import Folder, ReadReport, canonical, read_folder

PAGE = "# Title\n\nSome text that is long enough to be kept.\n"


def reasons(report: ReadReport) -> dict[str, str]:
    return {note.source: f"{note.reason} {note.detail}".strip() for note in report.skipped}


def test_documents_come_in_path_order_with_stable_ids(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.rst", "a/b.txt", "c.html", "README", "pkg/mod.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('"""A module."""\n' if name.endswith(".py") else PAGE)
    documents, report = read_folder(tmp_path)
    assert [d.id for d in documents] == [
        "README", "a/b.txt", "a/z.rst", "b.md", "c.html", "pkg/mod.py", "pkg/mod.py#pkg.mod",
    ]  # fmt: skip
    assert documents == read_folder(tmp_path)[0]
    assert {d.metadata["kind"] for d in documents} == {"page", "source", "docstring"}
    assert documents[-1].metadata["cluster"] == documents[-2].metadata["cluster"] == "pkg/mod.py"
    assert documents[3].title == "Title" and documents[1].title == "b"
    assert report.files == 6 and report.documents == 7 and not report.skipped
    assert all(canonical(d.text) == d.text for d in documents)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: (p / "x.png").write_bytes(b"\x89PNG")])
def test_a_folder_with_nothing_to_read_is_an_error(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match="nothing to read"):
        read_folder(tmp_path)


def test_a_missing_folder_is_an_error_and_one_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "file.md").write_text(PAGE)
    documents, _ = read_folder(tmp_path / "file.md")
    assert [d.id for d in documents] == ["file.md"] and Folder(tmp_path / "file.md").name == "the file file.md"
    (tmp_path / "file.png").write_text(PAGE)
    with pytest.raises(InputError, match=r"1 of a type that windlass does not read\. First: file\.png"):
        read_folder(tmp_path / "file.png")


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text(PAGE)
    (tmp_path / "binary.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (tmp_path / "broken.md").write_bytes("Grüße an alle. ".encode() * 20 + b"\xff")
    (tmp_path / "latin.txt").write_bytes("Größe und Länge".encode("latin-1"))
    (tmp_path / "empty.md").write_text("  \n")
    (tmp_path / "picture.png").write_bytes(b"x")
    (tmp_path / "old.py").write_text("print 'python 2'\n")
    (tmp_path / ".hidden.md").write_text(PAGE)
    for folder in (".git", ".windlass", "node_modules", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "page.md").write_text(PAGE)
    (tmp_path / "myenv").mkdir()
    (tmp_path / "myenv" / "pyvenv.cfg").write_text("home = x")
    (tmp_path / "myenv" / "page.md").write_text(PAGE)
    os.mkfifo(tmp_path / "pipe.md")
    documents, report = read_folder(tmp_path)
    assert [d.id for d in documents] == ["broken.md", "good.md", "latin.txt", "old.py"]
    skipped = reasons(report)
    assert skipped["binary.md"].startswith("not text binary")
    assert skipped["empty.md"] == "empty"
    assert skipped["picture.png"].endswith(".png")
    assert skipped["pipe.md"] == "not a regular file"
    assert skipped["myenv"].endswith("virtual environment")
    assert {".hidden.md", ".git", ".windlass", "node_modules", "__pycache__"} <= set(skipped)
    mended = {note.source: note.reason for note in report.mended}
    assert mended["broken.md"] == "1 broken characters replaced"
    assert "Windows-1252" in mended["latin.txt"] and "not valid Python" in mended["old.py"]


def test_a_huge_file_is_named_and_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text(PAGE)
    with (tmp_path / "huge.md").open("wb") as file:
        file.write(b"words and words\n" * 1000)
        file.truncate(200_000_000)
    tracemalloc.start()
    documents, report = read_folder(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [d.id for d in documents] == ["good.md"]
    assert reasons(report)["huge.md"] == "too large 200 MB, the limit is 20"
    assert peak < 2_000_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_and_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text(PAGE)
    (tmp_path / "secret.md").write_text(PAGE)
    (tmp_path / "closed").mkdir()
    (tmp_path / "secret.md").chmod(0)
    (tmp_path / "closed").chmod(0)
    try:
        _, report = read_folder(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert reasons(report) == {
        "closed": "cannot be read Permission denied", "secret.md": "cannot be read Permission denied",
    }  # fmt: skip


def test_an_open_error_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.md").write_text(PAGE)
    (tmp_path / "good.md").write_text(PAGE)
    real = Path.open

    def failing(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == "bad.md":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", failing)
    documents, report = read_folder(tmp_path)
    assert [d.id for d in documents] == ["good.md"]
    assert reasons(report) == {"bad.md": "cannot be read Permission denied"}


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    inside, outside = tmp_path / "docs", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    (inside / "page.md").write_text(PAGE)
    (inside / "again.md").symlink_to("page.md")
    (inside / "loop").symlink_to("..", target_is_directory=True)
    (inside / "dangling.md").symlink_to("nothing.md")
    (outside / "far.md").write_text(PAGE + "Far away.")
    (inside / "linked").symlink_to(outside, target_is_directory=True)
    documents, report = read_folder(inside)
    assert [d.id for d in documents] == ["page.md", "linked/far.md"]
    skipped = reasons(report)
    assert skipped["again.md"] == "a link to what is read already page.md"
    assert skipped["dangling.md"].startswith("cannot be read")
    assert skipped["loop/docs"] == "a link to what is read already ."
    assert skipped["loop/elsewhere"].startswith("a link to what is read already")


def test_a_file_name_that_is_not_unicode_is_shown_safely(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text(PAGE)
    documents, _ = read_folder(tmp_path)
    assert documents[0].id == "caf\\xe9.md"


def test_the_source_says_what_it_is_without_absolute_paths(tmp_path: Path) -> None:
    source = Folder(tmp_path)
    assert source.name == f"the folder {tmp_path.name}"
    assert str(tmp_path) not in source.name


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# The page\n\ntext\n\n# Another\n", "The page"),
        ("An opening line.\n\n# The page\n\n## Part\n", "The page"),
        ("- a list first\n\n## Summary\n\ntext\n\n## Motivation\n", "name"),
        ("Number: 12\nTitle: What it is about\nStatus: Final\n\n# Abstract\n\n# More\n", "What it is about"),
        ("---\ntitle: From the front\n---\n# Heading\n", "From the front"),
        ("No heading at all.", "name"),
    ],
)
def test_the_title_is_what_names_the_page(tmp_path: Path, text: str, title: str) -> None:
    (tmp_path / "name.md").write_text(text)
    assert read_folder(tmp_path)[0][0].title == title

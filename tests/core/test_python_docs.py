"""The built-in source: what every Python carries, named the way people import it."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from windlass.core.documents import Document
from windlass.core.readers import PythonDocs, ReadReport, canonical


@pytest.fixture(scope="module")
def read() -> tuple[dict[str, Document], ReadReport]:
    before = set(sys.modules)
    report = ReadReport()
    documents = list(PythonDocs().documents(report))
    assert len({d.id for d in documents}) == len(documents) == report.documents
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= {"pydoc_data"}  # parsed, not imported
    return {d.id: d for d in documents}, report


def test_there_is_plenty_of_every_kind(read: tuple[dict[str, Document], ReadReport]) -> None:
    kinds = Counter(d.metadata["kind"] for d in read[0].values())
    assert kinds["topic"] > 60 and kinds["docstring"] > 4000 and kinds["source"] > 300 and kinds["page"] > 0
    assert sum(len(d.text) for d in read[0].values() if d.metadata["kind"] == "source") > 6_000_000


def test_texts_are_canonical_and_offsets_true(read: tuple[dict[str, Document], ReadReport]) -> None:
    for document in read[0].values():
        assert canonical(document.text) == document.text
        assert {"kind", "module", "cluster"} <= set(document.metadata)
        for section in document.sections:
            line = document.text[section.start :].partition("\n")[0]
            assert section.heading in line or document.metadata["kind"] == "docstring"  # a long signature is wrapped
            assert section.heading in document.text[section.start :]


def test_names_are_those_people_import(read: tuple[dict[str, Document], ReadReport]) -> None:
    documents, _ = read
    for name in (
        "json.dumps", "json.JSONEncoder", "asyncio.sleep", "pathlib.Path.glob", "os.path.join", "decimal.Decimal.sqrt",
        "collections.OrderedDict", "concurrent.futures.Future.result",
        "logging.Logger.info", "datetime.date.isoformat", "random.Random.shuffle",
    ):  # fmt: skip
        assert documents[f"python:{name}"].title == name, name
    assert documents["python:builtins.str.split"].text.startswith("str.split(sep=None, maxsplit=-1)")
    assert not any(part.startswith("_") for d in documents.values() if d.metadata["kind"] == "docstring"
                   for part in d.title.split(".") if part != "__future__")  # fmt: skip


def test_a_function_page_reads_like_a_reference(read: tuple[dict[str, Document], ReadReport]) -> None:
    page = read[0]["python:json.dumps"]
    assert page.text.startswith("json.dumps(obj, *, skipkeys=False, ensure_ascii=True,")
    assert page.text[page.metadata["body"] :].startswith("Serialize ``obj`` to a JSON formatted ``str``.\n\n")
    assert page.metadata["module"] == "json" and page.metadata["qualname"] == "dumps"
    assert page.metadata["cluster"] == read[0]["python:json/__init__.py"].metadata["cluster"]


def test_a_topic_is_not_printed_twice(read: tuple[dict[str, Document], ReadReport]) -> None:
    topics = {d.id: d.text for d in read[0].values() if d.metadata["kind"] == "topic"}
    sentence = 'The "while" statement is used for repeated execution'
    assert [id for id, text in topics.items() if sentence in text] == ["python:topic/while"]
    paragraphs = Counter(p for text in topics.values() for p in set(text.split("\n\n")) if len(p) > 200)
    repeated = sum(len(p) * (n - 1) for p, n in paragraphs.items())
    assert repeated < 0.12 * sum(map(len, topics.values())), repeated


def test_tests_and_tables_are_left_out_and_named(read: tuple[dict[str, Document], ReadReport]) -> None:
    documents, report = read
    assert not any("/test/" in id or id.startswith(("python:test", "python:encodings/")) for id in documents)
    skipped = {note.source: note.reason for note in report.skipped}
    assert skipped["python:idlelib"] == "an application, not a library"

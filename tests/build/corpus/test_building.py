"""Corpora: kept or dropped with a reason, split by cluster, the same bytes for the same input, whole or absent."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpus_world import Given, left_out, noisy, page, prose
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus import CorpusSettings, build_corpus, corpus_documents, corpus_report, training_text
from windlass.build.corpus.quality import preset, refusal
from windlass.build.corpus.split import border, place
from windlass.core.documents import Document
from windlass.core.errors import ConfigError, InputError
from windlass.core.readers import Folder, ReadReport
from windlass.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "home") as ws:
        yield ws


def test_every_document_is_kept_or_dropped_with_a_reason(workspace: Workspace) -> None:
    long = prose(1) + " " + prose(2) + " " + prose(3)
    rows = [
        page("first", long),
        page("same", long.replace(" ", "\n")),
        page("near", long + " and a little more"),
        page("short", "Too short."),
        page("table", "1.0 | 2.5 | 3.7\n" * 30),
        page("blob", "QUJDREVGR0hJSktMTU5P" * 40),
        page("again", "the same line every time, over and over\n" * 200 + prose(9)),
        page("dirty", "not canonical \r\n" + prose(4)),
        page("first", prose(5)),
        page("source of first", long, kind="source"),
    ]
    corpus = build_corpus(workspace, Given(rows), CorpusSettings(heldout=0.5))
    report = corpus_report(corpus)
    assert [d.id for d in corpus_documents(corpus)] == ["first", "source of first"]
    drops = {drop["id"]: drop for drop in left_out(corpus)}
    assert {key: drop["reason"] for key, drop in drops.items()} == {
        "same": "exact duplicate",
        "near": "near duplicate",
        "short": "too short",
        "table": "mostly not words",
        "blob": "encoded data",
        "again": "repeated lines",
        "dirty": "not canonical",
        "first": "repeated id",
    }
    assert drops["same"]["detail"] == "of first"
    assert drops["near"]["detail"].startswith("of first, similarity 0.9")
    assert report["kept"]["all"]["documents"] + len(left_out(corpus)) == report["read"]["documents"] == 10
    assert sum(report["dropped_by_reason"].values()) == 8


def test_artifact_run_and_card_tell_the_same_numbers(workspace: Workspace) -> None:
    corpus = build_corpus(
        workspace, Given([page(f"p{i}", prose(i)) for i in range(30)]), CorpusSettings(heldout=0.3), name="mine"
    )
    report = corpus_report(corpus)
    total = report["kept"]["all"]
    assert corpus.kind == "corpus" and corpus.ref == "mine@1" and corpus.record.run is not None
    assert corpus.card["documents"] == total["documents"] == 30
    assert total["bytes"] == sum(len(prose(i).encode()) for i in range(30))
    assert total["bytes"] == total["train_bytes"] + total["heldout_bytes"]
    run = workspace.store.run(corpus.record.run)
    assert run is not None and run.status == "done"
    metrics = {point.name: point.value for point in workspace.store.metrics(run.id)}
    assert metrics["documents"] == 30 and metrics["bytes"] == total["bytes"]
    card = (corpus.path / "README.md").read_text()
    assert "CC0-1.0" in card and "| page | 30 |" in card
    assert sorted(corpus.record.files) == [
        "README.md",
        "changed.jsonl",
        "documents.jsonl",
        "dropped.jsonl",
        "report.json",
    ]


def test_the_same_input_gives_the_same_digest(workspace: Workspace) -> None:
    rows = [page(f"p{i}", prose(i)) for i in range(10)]
    first = build_corpus(workspace, Given(rows))
    assert build_corpus(workspace, Given(rows)).digest == first.digest
    assert build_corpus(workspace, Given(rows), CorpusSettings(heldout=0.5)).digest != first.digest
    assert build_corpus(workspace, Given(rows[:-1])).digest != first.digest


def test_a_corpus_of_nothing_is_refused_and_the_run_says_so(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="2 too short"):
        build_corpus(workspace, Given([page("a", "a"), page("b", "b")]))
    with pytest.raises(ConfigError, match="held-out share"):
        build_corpus(workspace, Given([page("a", prose(1))]), CorpusSettings(heldout=1.0))
    (workspace.home / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to read"):
        build_corpus(workspace, Folder(workspace.home / "empty"))
    assert {run.status for run in workspace.store.runs()} == {"failed"}
    assert not workspace.store.artifacts() and not list(workspace.artifacts.folder.iterdir())


def split_of(clusters: set[str], heldout: float) -> dict[str, bool]:
    """Cluster -> whether it is held out."""
    places = {cluster: place(cluster) for cluster in clusters}
    below = border(heldout, min(places.values(), default=1.0), max(places.values(), default=0.0))
    return {cluster: where < below for cluster, where in places.items()}


@given(st.sets(st.text(min_size=1), max_size=40), st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.99]))
def test_the_split_is_stable_and_neither_side_is_empty(clusters: set[str], heldout: float) -> None:
    split = split_of(clusters, heldout)
    sides = set(split.values())
    if heldout == 0 or len(clusters) < 2:
        assert heldout > 0 or sides <= {False}
    else:
        assert sides == {False, True}
    more = split_of(clusters | {"another"}, heldout)
    assert sum(more[c] != split[c] for c in clusters) <= 1  # only the one that kept a side from being empty may move


def test_the_share_of_the_split_is_as_asked() -> None:
    clusters = {f"module{i}" for i in range(20_000)}
    assert sum(split_of(clusters, 0.1).values()) == pytest.approx(2000, abs=170)  # four standard errors
    assert {c for c in clusters if place(c, seed=1) < 0.1} != {c for c in clusters if place(c) < 0.1}


def test_documents_of_a_cluster_stay_together(workspace: Workspace) -> None:
    rows = [page(f"m{i}/{kind}", prose(10 * i + j), kind, f"m{i}") for i in range(40) for j, kind in enumerate("abc")]
    sides: dict[str, set[str]] = {}
    for document in corpus_documents(build_corpus(workspace, Given(rows), CorpusSettings(heldout=0.4))):
        sides.setdefault(document.metadata["cluster"], set()).add(document.metadata["split"])
    assert len(sides) == 40 and all(len(side) == 1 for side in sides.values())


def test_training_text_takes_source_rather_than_its_docstrings(workspace: Workspace) -> None:
    rows = [
        page(f"{kind}{i}", prose(3 * i + j), kind, f"m{i}")
        for i in range(9)
        for j, kind in enumerate(("source", "docstring", "topic"))
    ]
    corpus = build_corpus(workspace, Given(rows), CorpusSettings(heldout=0.3))
    train, heldout = list(training_text(corpus, "train")), list(training_text(corpus, "heldout"))
    assert len(train) + len(heldout) == 18 and not set(train) & set(heldout) and heldout
    assert len(list(training_text(corpus, "train", ["docstring"]))) == len(train) / 2
    with pytest.raises(InputError, match="kind poem"):
        training_text(corpus, "train", ["poem"])
    alone = build_corpus(
        workspace, Given([r for r in rows if r.metadata["kind"] == "docstring"]), CorpusSettings(heldout=0)
    )
    assert len(list(training_text(alone, "train"))) == 9
    with pytest.raises(InputError, match="no heldout"):
        training_text(alone, "heldout")


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return {x: [x ** 2, -x]}\n" + "# a comment\n" * 3,
        "吾輩は猫である。名前はまだ無い。" * 4,
        "+----+-----+\n| it | is  |\n+====+=====+\n| a  | table of words |",
    ],
)
def test_good_documentation_is_not_refused(text: str) -> None:
    assert refusal(text, preset("light", min_chars=20)) is None


def test_memory_does_not_grow_with_the_text(workspace: Workspace) -> None:
    vocabulary = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=5)]

    @dataclass
    class Streamed(Given):
        count: int = 0

        def documents(self, report: ReadReport) -> Iterator[Document]:
            for n in range(self.count):
                report.documents += 1
                yield page(f"p{n}", " ".join(random.Random(n).choices(vocabulary, k=10_000)))

    def peak(count: int) -> tuple[int, int]:
        tracemalloc.start()
        corpus = build_corpus(workspace, Streamed([], count=count))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest, corpus.card["bytes"]

    peak(10)  # imports and caches
    (few, small), (many, large) = peak(20), min(peak(80), peak(80))  # once more: rubbish of other tests may be counted
    assert large - small > 3_500_000
    assert many - few < 0.1 * (large - small)


KILLED = """
import sys, time
from pathlib import Path
from windlass.build.corpus import build_corpus
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

class Slow(Folder):
    def documents(self, report):
        for i, document in enumerate(super().documents(report)):
            if i == 5:
                print("half", flush=True)
                time.sleep(60)
            yield document

build_corpus(Workspace(Path(sys.argv[1])), Slow(Path(sys.argv[2])))
"""


def test_kill_9_leaves_no_half_artifact_and_the_next_build_is_whole(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(10):
        (docs / f"p{i}.md").write_text(prose(i))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "home"), str(docs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    with Workspace(tmp_path / "home") as ws:
        assert not ws.store.artifacts()
        assert [p.name[:7] for p in ws.artifacts.folder.iterdir()] == [".draft-"]  # never taken for an artifact
        corpus = build_corpus(ws, Folder(docs))
        ws.artifacts.verify(corpus)
        assert corpus.card["documents"] == 10


def test_rows_are_plain_json_lines(workspace: Workspace) -> None:
    corpus = build_corpus(
        workspace,
        Given([page("p", prose(1) + "\u2028 Grüße"), page("q", prose(2))]),
        CorpusSettings(rules={"min_chars": 1}),
    )
    lines = (corpus.path / "documents.jsonl").read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines if line]
    assert [row["id"] for row in rows] == ["q"] and rows[0]["metadata"]["split"] in ("train", "heldout")


def test_reading_a_corpus_wants_a_corpus(workspace: Workspace) -> None:
    with workspace.artifacts.build("report", "other") as draft:
        (draft.path / "x").write_text("x")
    with pytest.raises(InputError, match="not a corpus"):
        next(corpus_documents(draft.done))


def test_a_corpus_made_of_a_corpus_is_the_same(workspace: Workspace) -> None:
    settings = CorpusSettings(heldout=0.3, near=0.7)
    corpus = build_corpus(workspace, Given(noisy(500)), settings)
    again = build_corpus(workspace, Given(list(corpus_documents(corpus))), settings, name="again")
    assert corpus.card["dropped"] > 0 == again.card["dropped"]
    assert again.record.files["documents.jsonl"] == corpus.record.files["documents.jsonl"]


def test_documents_that_come_later_move_none_of_the_earlier(workspace: Workspace) -> None:
    few = build_corpus(workspace, Given(noisy(300)), CorpusSettings(heldout=0.3))
    more = build_corpus(
        workspace, Given(noisy(300) + [page(f"q{i}", prose(i)) for i in range(99)]), CorpusSettings(heldout=0.3)
    )
    before = {document.id: document.metadata["split"] for document in corpus_documents(few)}
    after = {document.id: document.metadata["split"] for document in corpus_documents(more)}
    assert before.items() < after.items()

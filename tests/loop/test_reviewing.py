"""Queues in a workspace: where their items come from, that no label is lost, and that files hold all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord
from windlass.core.workspace import Workspace
from windlass.evaluate.judges.items import Item, read_labelled
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.judges.judgement import Judgement, Opinion
from windlass.evaluate.review.queue import Queue
from windlass.loop import reviewing
from windlass.loop.judging.storing import store_judge, store_judgements
from windlass.loop.reviewing import open_queue
from windlass.loop.scores import add_once

GOOD = Criterion("good", "Good?", (Level("no", 0.0), Level("yes", 1.0)))
RUBRIC = Judge("answers", "Look well.", criteria=(GOOD,))
PAIR = Judge("ab", "Look well.", "pairwise")


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


def items(count: int = 10) -> list[Item]:
    return [Item(f"i{n}", {"input": f"question {n}", "output": f"answer {n}"}) for n in range(count)]


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_label_stands_at_its_trace_and_a_slip_is_taken_back(ws: Workspace) -> None:
    made = reviewing.add_queue(ws, Queue(RUBRIC, [Item("a", items()[0].inputs, "f" * 32), items()[1]]))
    one = open_queue(ws, "answers")
    reviewing.label(ws, one, one.queue.item("a"), "ann", {"good": 1.0}, comment="well said")
    (score,) = ws.store.scores(subject="f" * 32)
    assert (score.name, score.value, score.source, score.author, score.comment) == (
        "answers",
        1.0,
        "human",
        "ann",
        "well said",
    )
    assert score.metadata["queue"] == made.digest
    undone = reviewing.undo(ws, open_queue(ws, "answers"), "ann")
    assert undone is not None and undone.id == "a" and open_queue(ws, "answers").labels.labels() == []
    assert reviewing.undo(ws, open_queue(ws, "answers"), "ann") is None
    assert len(ws.store.scores(subject="f" * 32)) == 2, "nothing is removed"


def test_a_form_that_is_sent_twice_is_stored_once(ws: Workspace) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items()))
    one = open_queue(ws, "answers")
    for _ in range(2):
        reviewing.label(ws, one, one.queue.item("i0"), "ann", {"good": 1.0}, token="a" * 24)
    assert len(ws.store.scores(name="answers")) == 1


def test_a_form_that_is_sent_by_two_threads_at_once_is_stored_once(ws: Workspace) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items()))
    one = open_queue(ws, "answers")
    start = threading.Barrier(6)

    def send(_: int) -> None:
        start.wait(30)
        reviewing.label(ws, one, one.queue.item("i0"), "ann", {"good": 1.0}, token="b" * 24)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(send, range(6)))
    assert len(ws.store.scores(name="answers")) == 1
    with pytest.raises(InputError, match="finite"):
        add_once(ws, ScoreRecord("x", "s", "n", float("nan"), "human", "ann", 0.0))


def test_what_is_no_label_is_refused(ws: Workspace) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items()))
    one = open_queue(ws, "answers")
    with pytest.raises(InputError, match="Not every criterion"):
        reviewing.label(ws, one, one.queue.item("i0"), "ann", {})
    with pytest.raises(InputError, match="4,001 characters"):
        reviewing.skip(ws, one, one.queue.item("i0"), "ann", comment="x" * 4001)
    for name in ("", "  ", "x" * 61, "a\0b"):
        with pytest.raises(InputError, match="who gives them"):
            reviewing.check_author(name)
    assert reviewing.check_author("  Ann   Lee ") == "Ann Lee"


def test_traces_become_items_by_filter(ws: Workspace) -> None:
    for number, value in enumerate((0.0, 1.0, 0.0)):
        with ws.recorder.span("assistant", "invoke_workflow") as span:
            span.input = [{"role": "user", "content": f"question {number}"}]
            span.output = {"content": f"answer {number}"}
        ws.recorder.flush()
        ws.store.add_score(ScoreRecord(f"s{number}", span.trace_id, "feedback", value, "user", "u", time.time()))
    with ws.recorder.span("assistant", "invoke_workflow"):
        pass  # a call that put nothing out
    ws.recorder.flush()
    found = reviewing.from_traces(ws, RUBRIC, name="assistant")
    assert {item.inputs["output"] for item in found} == {"answer 0", "answer 1", "answer 2"}
    assert all(item.trace == item.id and not item.chosen for item in found)
    bad = reviewing.from_traces(ws, RUBRIC, score=("feedback", 0.0, 0.4))
    assert {item.inputs["input"] for item in bad} == {"question 0", "question 2"} and all(item.chosen for item in bad)
    with pytest.raises(InputError, match="one or two inputs"):
        reviewing.from_traces(ws, PAIR)


def test_two_systems_are_joined_by_id(ws: Workspace, tmp_path: Path) -> None:
    old = lines(tmp_path / "old.jsonl", [{"id": n, "input": f"q{n}", "output": f"old {n}"} for n in range(4)])
    new = lines(tmp_path / "new.jsonl", [{"id": n, "input": f"q{n}", "output": f"new {n}"} for n in (3, 2, 1, 0)])
    found = reviewing.from_pair(old, new, PAIR)
    assert [(one.inputs["output_1"], one.inputs["output_2"]) for one in found] == [
        (f"old {n}", f"new {n}") for n in range(4)
    ]
    with pytest.raises(InputError, match="'3' is in one of"):
        reviewing.from_pair(
            old, lines(tmp_path / "few.jsonl", [{"id": n, "input": f"q{n}", "output": "x"} for n in range(3)]), PAIR
        )
    with pytest.raises(InputError, match="another 'input' in the item '0'"):
        reviewing.from_pair(
            old, lines(tmp_path / "odd.jsonl", [{"id": n, "input": "?", "output": "x"} for n in range(4)]), PAIR
        )
    with pytest.raises(InputError, match="judges one output"):
        reviewing.from_pair(old, new, RUBRIC)


def test_what_a_judge_is_not_sure_of(ws: Workspace) -> None:
    judge = replace(RUBRIC, name="judge", models=("a", "b"))
    said = [
        Judgement("i0", {"good": 1.0}, (Opinion("a", {"good": "yes"}), Opinion("b", {"good": "yes"}))),
        Judgement("i1", {"good": 0.5}, (Opinion("a", {"good": "yes"}), Opinion("b", {"good": "no"}))),
        Judgement("i2", {}, (Opinion("a", error="x"), Opinion("b", {"good": "no"})), "a: x"),
        Judgement("i3", {"good": 1.0}, (Opinion("a", {"good": "yes"}, consistent=False),)),
    ]
    stored = store_judgements(ws, store_judge(ws, judge), None, items(4), said, [])
    found = reviewing.from_doubts(stored)
    assert [item.id for item in found] == ["i1", "i2", "i3"] and {item.chosen for item in found} == {"disagreements"}
    assert reviewing.from_judgements(stored) == items(4)


def test_a_sample_is_drawn_by_the_seed() -> None:
    all_ = items(100)
    first = reviewing.sampled(all_, 20, 1)
    assert first == reviewing.sampled(all_, 20, 1) != reviewing.sampled(all_, 20, 2) and len(first) == 20
    assert reviewing.sampled(all_, None, 1) == reviewing.sampled(all_, 500, 1) == all_
    assert {item.id for item in first} < {item.id for item in reviewing.sampled(all_, 40, 1)}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_labels_go_out_and_come_in(ws: Workspace, tmp_path: Path, form: str) -> None:
    awkward = [
        Item("a", {"input": 'say "x",\nplease', "output": "é ✓ ; \u2028"}, "e" * 32, "c1", "disagreements"),
        *items(2),
    ]
    reviewing.add_queue(ws, Queue(RUBRIC, awkward))
    one = open_queue(ws, "answers")
    for author, value in (("ann", 1.0), ("bo", 0.0)):
        reviewing.label(ws, one, one.queue.item("a"), author, {"good": value}, comment="so, so")
    one = open_queue(ws, "answers")
    path = tmp_path / f"labels.{form}"
    path.write_text(reviewing.as_csv(one) if form == "csv" else reviewing.as_jsonl(one), encoding="utf-8", newline="")
    read, labels = read_labelled(path, RUBRIC)
    assert read == awkward[:1] and [(label.author, label.value) for label in labels] == [("ann", 1.0), ("bo", 0.0)]
    assert reviewing.import_labels(ws, one, path) == 0, "they stand there already"
    reviewing.add_queue(ws, Queue(RUBRIC, awkward, seed=5))
    other = open_queue(ws, "answers")
    assert other.artifact.ref == "answers@2" and other.labels.labels() == []
    assert reviewing.import_labels(ws, other, path) == 2
    assert open_queue(ws, "answers@2").labels.labels() == one.labels.labels()


def test_labels_of_items_that_are_not_in_the_queue_are_refused_before_any_is_stored(
    ws: Workspace, tmp_path: Path
) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items()))
    rows = [{"id": id, "input": "question", "output": "x", "label": 1} for id in ("i0", "zz")]
    with pytest.raises(InputError, match="no item 'zz'"):
        reviewing.import_labels(ws, open_queue(ws, "answers"), lines(tmp_path / "l.jsonl", rows), "ann")
    assert ws.store.scores(name="answers") == []


def test_labels_of_another_text_are_not_taken_for_those_of_an_item(ws: Workspace, tmp_path: Path) -> None:
    """Two outputs to one question have one id, and what people say of one is not said of the other."""
    reviewing.add_queue(ws, Queue(RUBRIC, items()))
    opened = open_queue(ws, "answers")
    same = opened.queue.item("i0").inputs
    rows = [{"id": "i0", **same, "label": 1}, {"id": "i1", "input": "question", "output": "of another", "label": 1}]
    with pytest.raises(InputError, match="the item 'i1' is another one in the queue 'answers'"):
        reviewing.import_labels(ws, opened, lines(tmp_path / "l.jsonl", rows), "ann")
    assert ws.store.scores(name="answers") == []
    assert reviewing.import_labels(ws, opened, lines(tmp_path / "l.jsonl", rows[:1]), "ann") == 1


def test_two_people_at_once_lose_nothing(ws: Workspace, tmp_path: Path) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items(12)))

    def work(author: str) -> None:
        with Workspace(tmp_path) as own:
            while (item := open_queue(own, "answers").labels.next(author)) is not None:
                reviewing.label(own, open_queue(own, "answers"), item, author, {"good": float(len(author) % 2)})

    threads = [threading.Thread(target=work, args=(author,)) for author in ("ann", "bo", "carl")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = open_queue(ws, "answers").labels
    assert len(found.labels()) == 36 and found.finished


KILLED = """
import sys
from pathlib import Path
from windlass.core.workspace import Workspace
from windlass.loop import reviewing

with Workspace(Path(sys.argv[1])) as ws:
    one = reviewing.open_queue(ws, "answers")
    for item in one.queue.items:
        reviewing.label(ws, one, item, "ann", {"good": 1.0})
        print(item.id, flush=True)
"""


@pytest.mark.slow
def test_a_kill_takes_no_label_that_was_acknowledged(ws: Workspace, tmp_path: Path) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items(400)))
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        told += process.stdout.read().split()
    kept = {label.item for label in open_queue(ws, "answers").labels.labels()}
    assert set(told) <= kept and len(kept) <= len(told) + 1


def test_a_queue_needs_a_name_of_its_own(ws: Workspace) -> None:
    reviewing.add_queue(ws, Queue(RUBRIC, items()))
    assert reviewing.add_queue(ws, Queue(RUBRIC, items())).ref == "answers@1"
    store_judge(ws, replace(RUBRIC, name="judge", models=("m",)))
    with pytest.raises(InputError, match="'judge' is the name of a judge"):
        reviewing.add_queue(ws, Queue(replace(RUBRIC, name="judge"), items()))
    with pytest.raises(InputError, match="is a judge, not a queue"):
        open_queue(ws, "judge")

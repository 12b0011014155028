"""From scored traces to a dataset: what is taken, what is left out and why, and that no exam question leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tests.loop.loop_world import make_world

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError, NotFound
from windlass.core.records import ScoreRecord
from windlass.core.values import Citation
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem, load_items
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.harvesting.harvest import check_leak, harvest, load_harvest


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with make_world(tmp_path, pages=80) as workspace:
        yield workspace


def parts(ws: Workspace) -> tuple[Artifact, Artifact]:
    return ws.artifacts.get("corpus"), ws.artifacts.get("exam")


def exam_items(ws: Workspace, split: str) -> list[ExamItem]:
    return [i for i in load_items(ws.artifacts.get("exam")) if i.split == split and i.answerable]


def documents(ws: Workspace) -> dict[str, Document]:
    return {d.id: d for d in read_documents(ws.artifacts.get("corpus").path / "documents.jsonl")}


def ask(ws: Workspace, question: str, *cited: str | None, name: str = "assistant", fail: bool = False) -> str:
    span = ws.recorder.span(name)
    try:
        with span:
            span.input = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
            citations = [asdict(Citation(str(d), "t", "h", 0, 5, "quote")) for d in cited]
            span.output = {"role": "assistant", "content": "answer", "citations": citations}
            if fail:
                raise RuntimeError("no")
    except RuntimeError:
        pass
    ws.recorder.flush()
    return span.trace_id


def test_approval_correction_and_rejection(ws: Workspace) -> None:
    a, b, c, d = exam_items(ws, "harvest")[:4]
    approved = ask(ws, a.question, a.document, b.document)
    corrected = ask(ws, b.question, c.document, d.document)
    ask(ws, "Nobody scored this?", c.document)
    give_feedback(ws, approved, good=True)
    give_feedback(ws, corrected, good=False, correct_document=b.document, author="ann")
    dataset = harvest(ws, *parts(ws))
    items = {item.question: item for item in load_harvest(dataset)}
    assert set(items) == {a.question, b.question}
    assert (items[a.question].document, items[a.question].negatives) == (a.document, [])
    assert (items[b.question].document, items[b.question].negatives) == (b.document, [c.document, d.document])
    assert items[b.question].traces == [corrected]
    assert items[a.question].cluster == a.cluster
    assert dataset.card["how"] == {"approved": 1, "corrected": 1}
    assert dataset.card["skipped"] == {}
    assert "- 1 by ann\n" in (dataset.path / "README.md").read_text()
    assert {role for role, _ in dataset.record.parents} == {"corpus", "exam"}


def test_everything_left_out_is_counted(ws: Workspace) -> None:
    harvested, tested, dev = (exam_items(ws, split) for split in ("harvest", "test", "dev"))
    good = harvested[0]
    give_feedback(ws, ask(ws, good.question, good.document), good=True)
    give_feedback(ws, ask(ws, f"  {good.question.upper()}!?", good.document), good=True)  # the same question
    give_feedback(ws, ask(ws, "Rejected?", good.document), good=False)
    give_feedback(ws, ask(ws, "Abstained?"), good=True)
    give_feedback(ws, ask(ws, "Elsewhere?"), good=False, correct_document="no such document")
    give_feedback(ws, ask(ws, "", good.document), good=True)
    give_feedback(ws, ask(ws, "Failed?", good.document, fail=True), good=True)
    give_feedback(ws, ask(ws, tested[0].question, good.document), good=True)
    give_feedback(ws, ask(ws, "About an examined file?", dev[0].document), good=True)
    give_feedback(ws, ask(ws, "Another task?", good.document, name="other"), good=True)
    for document in (good.document, harvested[1].document):
        give_feedback(ws, ask(ws, "Two opinions?", document), good=True)
    ws.store.add_score(ScoreRecord("s1", "f" * 32, "feedback", 1.0, "user", "x", 9e9))
    ws.store.add_score(ScoreRecord("s2", ask(ws, "Err?"), "feedback", None, "code", "x", 9e9, error="broken"))
    dataset = harvest(ws, *parts(ws))
    (item,) = load_harvest(dataset)
    assert len(item.traces) == 2
    assert dataset.card["skipped"] == {
        "that repeat a question": 1,
        "rejected without naming a better document": 1,
        "approved without a citation": 1,
        "about a document that is not in the corpus": 1,
        "without a question": 1,
        "whose call failed": 1,
        "asked in the exam": 1,
        "about a file that the exam asks about": 1,
        "on which users disagree": 2,
        "whose trace is not stored": 1,
        "whose score is an error": 1,
    }


def test_later_feedback_replaces_earlier(ws: Workspace) -> None:
    a, b = exam_items(ws, "harvest")[:2]
    trace = ask(ws, a.question, b.document)
    give_feedback(ws, trace, good=True)
    give_feedback(ws, trace[:12], good=False, correct_document=a.document)
    (item,) = load_harvest(harvest(ws, *parts(ws)))
    assert (item.document, item.negatives) == (a.document, [b.document])


def test_same_feedback_same_dataset(ws: Workspace) -> None:
    for item in exam_items(ws, "harvest")[:5]:
        give_feedback(ws, ask(ws, item.question, item.document), good=True)
    assert harvest(ws, *parts(ws)).digest == harvest(ws, *parts(ws)).digest


def test_nothing_to_learn_from_is_an_error_with_reasons(ws: Workspace) -> None:
    with pytest.raises(InputError, match=r"0 scored traces \(no trace has any\)"):
        harvest(ws, *parts(ws))
    give_feedback(ws, ask(ws, "What?"), good=True)
    with pytest.raises(InputError, match="1 approved without a citation"):
        harvest(ws, *parts(ws))


def test_feedback_refuses_nonsense(ws: Workspace) -> None:
    with pytest.raises(NotFound):
        give_feedback(ws, "abcdef12", good=True)
    with pytest.raises(InputError, match="needs no other document"):
        give_feedback(ws, ask(ws, "What?"), good=True, correct_document="a")


def planted(ws: Workspace, **changes: Any) -> Artifact:
    """A harvest into which something slipped by another way."""
    (item,) = load_harvest(ws.artifacts.get("harvest"))
    with ws.artifacts.build("dataset", "planted") as draft:
        (draft.path / "items.jsonl").write_text(json.dumps(asdict(replace(item, **changes))) + "\n")
    return draft.done


def test_a_leak_is_an_error(ws: Workspace) -> None:
    good, tested = exam_items(ws, "harvest")[0], exam_items(ws, "test")[0]
    give_feedback(ws, ask(ws, good.question, good.document), good=True)
    exam = ws.artifacts.get("exam")
    check_leak(harvest(ws, *parts(ws)), exam)
    for changes in (
        {"question": tested.question.upper()},
        {"document": tested.source},
        {"cluster": tested.cluster},
        {"question": exam_items(ws, "dev")[0].question},
    ):
        with pytest.raises(InputError, match="a comparison would be worthless"):
            check_leak(planted(ws, **changes), exam)

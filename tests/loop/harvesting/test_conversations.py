"""From traces and scores to examples for tuning: what is taken, what is left out and why, and that no exam leaks in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.loop.loop_world import make_world

from windlass.core import semconv
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound
from windlass.core.records import ScoreRecord
from windlass.core.values import Citation, Message
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.loop.harvesting.conversations import Form, Wanted, described, find_exam, form_of, harvest_conversations
from windlass.loop.harvesting.feedback import give_feedback

SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as workspace:
        yield workspace


def ask(ws: Workspace, question: Any, answer: Any, *, name: str = "assistant", fail: bool = False, **known: Any) -> str:
    """A trace; `question` may be whole messages, `answer` a whole output."""
    span = ws.recorder.span(name, "chat")
    try:
        with span:
            span.input = question if isinstance(question, list) else [SYSTEM, {"role": "user", "content": question}]
            span.output = answer
            for attribute, value in known.items():
                span[attribute.replace("__", ".")] = value
            if fail:
                raise RuntimeError("no")
    except RuntimeError:
        pass
    ws.recorder.flush()
    return span.trace_id


def rows(dataset: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dataset.path / "items.jsonl").read_text(encoding="utf-8").splitlines()]


def made(ws: Workspace, form: Form = "conversations", **wanted: Any) -> Artifact:
    return harvest_conversations(ws, Wanted(form=form, **wanted), find_exam(ws, None))


def test_approved_and_corrected_answers_become_conversations(ws: Workspace) -> None:
    good, wrong = (
        ask(ws, "What is red?", "A colour."),
        ask(ws, "What is blue?", {"answer": "A fruit.", "citations": []}),
    )
    ask(ws, "Nobody scored this?", "Really.")
    give_feedback(ws, good, good=True)
    give_feedback(ws, wrong, good=False, correct_answer="A colour too.")
    dataset = made(ws)
    found = {row["messages"][-1]["content"]: row for row in rows(dataset)}
    assert set(found) == {"A colour.", "A colour too."}
    assert found["A colour."]["messages"][:2] == [SYSTEM, {"role": "user", "content": "What is red?"}]
    assert (found["A colour too."]["how"], found["A colour too."]["traces"]) == ("corrected", [wrong])
    assert dataset.card["how"] == {"approved": 1, "corrected": 1} and dataset.card["skipped"] == {}
    assert dataset.digest == made(ws).digest
    assert "2 examples from traces" in described(dataset)[0]


def test_everything_left_out_is_counted(ws: Workspace) -> None:
    give_feedback(ws, ask(ws, "What is red?", "A colour."), good=True)
    give_feedback(ws, ask(ws, "what is RED", "A colour."), good=True)  # the same question and answer
    give_feedback(ws, ask(ws, "What is red?", "A fruit."), good=False)
    give_feedback(ws, ask(ws, "Rejected?", "Yes."), good=False)
    for verdict in (True, False):
        give_feedback(ws, ask(ws, "Two opinions?", "Perhaps."), good=verdict)
    give_feedback(ws, ask(ws, "Failed?", "Half", fail=True), good=True)
    give_feedback(ws, ask(ws, "Cut?", "Long and", gen_ai__response__finish_reasons=["length"]), good=True)
    give_feedback(ws, ask(ws, "Left?", "Long and", windlass__stopped_early=True), good=True)
    give_feedback(ws, ask(ws, "", "Nothing was asked."), good=True)
    give_feedback(ws, ask(ws, "Silence?", {"content": ""}), good=True)
    give_feedback(ws, ask(ws, "Key?", "It is sk-abcdefghijklmnopqrstuvwxyz0123456789."), good=True)
    picture = [{"role": "user", "content": [{"text": "see"}, {"url": "x.png"}]}]
    give_feedback(ws, ask(ws, picture, "A dog."), good=True)
    broken = {"content": "", "tool_calls": [{"name": "paint", "arguments": "{"}]}
    give_feedback(ws, ask(ws, "Paint?", broken), good=True)
    give_feedback(ws, ask(ws, "Another task?", "Yes.", name="other"), good=True)
    ws.store.add_score(ScoreRecord("s1", "f" * 32, "feedback", 1.0, "user", "x", 9e9))
    ws.store.add_score(ScoreRecord("s2", ask(ws, "Err?", "x"), "feedback", None, "code", "x", 9e9, error="broken"))
    dataset = made(ws)
    assert [row["messages"][-1]["content"] for row in rows(dataset)] == ["A colour."]
    assert dataset.card["skipped"] == {
        "on which users disagree": 2,
        "that repeat a question and its answer": 1,
        "with another answer to a question that has a better one": 1,
        "rejected without a better answer": 1,
        "whose call failed": 1,
        "whose answer was cut at its longest": 1,
        "whose reader left before the end": 1,
        "without a question": 1,
        "without an answer": 1,
        "in which a secret was struck out": 1,
        "that hold more than text": 1,
        "with a broken tool call": 1,
        "whose trace is not stored": 1,
        "whose score is an error": 1,
    }


def test_scores_of_any_name_count_from_a_minimum(ws: Workspace) -> None:
    for number, value in enumerate((0.2, 0.7, 0.9)):
        trace = ask(ws, f"Question {number}?", f"Answer {number}.")
        ws.store.add_score(ScoreRecord(f"s{number}", trace, "quality", value, "judge", "x", float(number)))
    kept = [row["messages"][-1]["content"] for row in rows(made(ws, score="quality", minimum=0.8))]
    assert kept == ["Answer 2."]
    assert len(rows(made(ws, score="quality", minimum=0.5))) == 2
    with pytest.raises(InputError, match="No trace of 'assistant' can be learned from as conversations"):
        made(ws)


def test_a_teachers_answers_need_no_score(ws: Workspace) -> None:
    """Those that it gave inside of a larger call too, as it was asked there."""
    with ws.recorder.span("assistant", "invoke_workflow") as root:
        root.input = [{"role": "user", "content": "What is red?"}]
        with ws.recorder.span("generate", "chat") as inner:
            inner.input = [{"role": "user", "content": "Passages ... What is red?"}]
            inner.output = {"role": "assistant", "content": "A colour."}
            inner[semconv.RESPONSE_MODEL] = "large"
        root.output = {"answer": "A colour. Sources: ..."}
    other = ask(ws, "What is blue?", "A fruit.", gen_ai__request__model="large")
    ask(ws, "What is green?", "A tree.", gen_ai__request__model="small")
    give_feedback(ws, other, good=False)
    dataset = made(ws, teacher="large")
    (row,) = rows(dataset)
    assert [turn["content"] for turn in row["messages"]] == ["Passages ... What is red?", "A colour."]
    assert row["how"] == "taught"
    assert dataset.card["skipped"] == {"without an answer of large": 1, "rejected without a better answer": 1}


def test_good_and_bad_answers_to_one_question_become_pairs(ws: Workspace) -> None:
    good, bad = ask(ws, "What is red?", "A colour."), ask(ws, "What is red?", "A fruit.")
    corrected = ask(ws, "What is blue?", "A fish.")
    alone = ask(ws, "What is green?", "A colour.")
    for trace, verdict in ((good, True), (bad, False), (alone, True)):
        give_feedback(ws, trace, good=verdict)
    give_feedback(ws, corrected, good=False, correct_answer="A colour.")
    dataset = made(ws, "pairs")
    pairs = {row["rejected"][0]["content"]: row for row in rows(dataset)}
    assert {row["chosen"][0]["content"] for row in pairs.values()} == {"A colour."}
    assert set(pairs) == {"A fruit.", "A fish."}
    assert sorted(pairs["A fruit."]["traces"]) == sorted([good, bad])
    assert pairs["A fish."]["prompt"][-1]["content"] == "What is blue?"
    assert dataset.card["skipped"] == {"without a bad answer to the same question": 1}
    labels = {
        (row["prompt"][-1]["content"], row["completion"][0]["content"]): row["label"]
        for row in rows(made(ws, "labels"))
    }
    assert labels == {
        ("What is red?", "A colour."): True, ("What is red?", "A fruit."): False, ("What is green?", "A colour."): True,
        ("What is blue?", "A fish."): False, ("What is blue?", "A colour."): True,
    }  # fmt: skip
    assert (form_of("dpo"), form_of("kto"), form_of("sft")) == ("pairs", "labels", "conversations")


def test_exercises_and_labelled_texts_have_the_best_answer(ws: Workspace) -> None:
    said = {
        "my parcel?": "delivery",
        "money back!": '{"label": "refund"}',
        "both?": '{"a": 1, "b": 2}',
        "how many?": "7",
    }
    for question, answer in said.items():
        give_feedback(ws, ask(ws, question, answer), good=True)
    give_feedback(ws, ask(ws, "too late?", "refund"), good=False, correct_answer="delivery")
    give_feedback(ws, ask(ws, "never said?", "x"), good=False)
    dataset = made(ws, "texts")
    labels = {row["text"]: row["label"] for row in rows(dataset)}
    assert labels == {"my parcel?": "delivery", "money back!": "refund", "how many?": 7, "too late?": "delivery"}
    assert dataset.card["skipped"] == {"rejected without a better answer": 1, "whose answer is not one value": 1}
    exercises = {row["prompt"][-1]["content"]: row["answer"] for row in rows(made(ws, "exercises"))}
    assert exercises == {**said, "too late?": "delivery"}
    for objective in ("embed", "rank", "tag", "extract", "continue"):
        with pytest.raises(InputError, match="cannot be drawn from questions"):
            form_of(objective)


def test_tool_calls_are_kept_as_values(ws: Workspace) -> None:
    call = {"id": "c1", "name": "paint", "arguments": '{"colour": "red"}'}
    messages = [
        {"role": "user", "content": "Paint it."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
    ]
    give_feedback(ws, ask(ws, messages, {"role": "assistant", "content": "It is red."}), good=True)
    (row,) = rows(made(ws))
    function = row["messages"][1]["tool_calls"][0]["function"]
    assert function == {"name": "paint", "arguments": {"colour": "red"}}
    assert row["messages"][2]["tool_call_id"] == "c1"


def test_what_the_gateway_and_the_engine_record_is_understood(ws: Workspace) -> None:
    gateway = ask(ws, "", "A colour.")
    with ws.recorder.span("gateway", "chat") as span:
        span.input = {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Red?"}]}
        span.output = "A colour."
    with ws.recorder.span("chat", "chat") as engine:
        engine.input = [asdict(Message("user", "Blue?"))]
        engine.output = {"role": "assistant", "content": "A colour too.", "reasoning": "Hm."}
    ws.recorder.flush()
    for trace in (gateway, span.trace_id, engine.trace_id):
        give_feedback(ws, trace, good=True)
    (row,) = rows(made(ws, task="gateway"))
    assert row["messages"] == [
        SYSTEM,
        {"role": "user", "content": "Red?"},
        {"role": "assistant", "content": "A colour."},
    ]
    (row,) = rows(made(ws, task="chat"))
    assert [turn["content"] for turn in row["messages"]] == ["Blue?", "A colour too."]


def test_nothing_of_the_exam_is_learned(tmp_path: Path) -> None:
    with make_world(tmp_path, pages=80) as ws:
        exam = ws.artifacts.get("exam")
        items = {
            split: [one for one in load_items(exam) if one.split == split and one.answerable]
            for split in ("harvest", "test")
        }
        free, tested = items["harvest"][0], items["test"][0]
        give_feedback(ws, ask(ws, free.question, "Learned."), good=True)
        give_feedback(ws, ask(ws, f"  {tested.question.upper()}?!", "Leaked."), good=True)
        give_feedback(ws, ask(ws, f"Tell me this please: {tested.question} And be brief.", "Leaked."), good=True)
        cited = {"answer": "Leaked.", "citations": [asdict(Citation(str(tested.document), "t", "h", 0, 5, "quote"))]}
        give_feedback(ws, ask(ws, "About an examined file?", cited), good=True)
        dataset = made(ws)
        assert [row["messages"][-1]["content"] for row in rows(dataset)] == ["Learned."]
        assert dataset.card["skipped"] == {
            "asked in the exam": 1,
            "that hold a question of the exam": 1,
            "about a file that the exam asks about": 1,
        }
        assert dataset.parent("exam") == exam.digest
        with pytest.raises(NotFound, match="no exam 'final'"):
            find_exam(ws, "final")


def test_a_good_answer_needs_no_better_one(ws: Workspace) -> None:
    trace = ask(ws, "What is red?", "A colour.")
    with pytest.raises(InputError, match="A good answer needs no other one"):
        give_feedback(ws, trace, good=True, correct_answer="A fruit.")

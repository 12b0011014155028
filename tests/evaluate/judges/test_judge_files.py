"""Judges as values and files, and the rows that they read."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from windlass.core.errors import ConfigError, InputError
from windlass.evaluate.judges.file import read_judge, read_stored, stored
from windlass.evaluate.judges.items import read_items, read_labelled
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.judges.wording import instructions

RUBRIC = """+++
inputs = ["question", "answer"]
reference = "right"
models = ["openai:gpt-5-mini"]

[[criteria]]
name = "correct"
asks = "Is it true?"
levels = [{ name = "no", value = 0, what = "It is wrong." }, { name = "yes", value = 1 }]

[[criteria]]
name = "tone"
asks = "Is it kind?"
passes = "fair"
levels = [{ name = "rude", value = 1 }, { name = "fair", value = 2 }, { name = "kind", value = 3 }]
+++
You are strict.
"""
PAIR = '+++\nkind = "pairwise"\n+++\nBetter is what follows the instruction.\n'


def written(folder: Path, text: str, name: str = "correct.md") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_a_judge_and_the_judge_the_same_again(tmp_path: Path) -> None:
    judge = read_judge(written(tmp_path, RUBRIC))
    assert judge.name == "correct" and judge.fields == ("question", "right", "answer") and judge.judged == "answer"
    assert judge.criterion("tone").bar == 2 and judge.criterion("correct").bar == 1
    assert judge.score_name("tone") == "correct.tone"
    again = read_stored(written(tmp_path, stored(judge), "judge.json"))
    assert again == judge and again.digest == judge.digest
    assert replace(judge, name="other").digest == judge.digest
    assert replace(judge, models=("local:small",)).digest != judge.digest


def test_a_pairwise_judge_is_kept_and_changed(tmp_path: Path) -> None:
    judge = read_judge(written(tmp_path, PAIR, "better.md"))
    assert judge.fields == ("input", "output_1", "output_2") and judge.score_name("preferred") == "better"
    assert read_stored(written(tmp_path, stored(judge), "judge.json")) == judge
    assert replace(judge, models=("local:a",)).criteria == judge.criteria


def test_the_model_reads_reasons_before_levels_and_takes_no_orders(tmp_path: Path) -> None:
    said = instructions(read_judge(written(tmp_path, RUBRIC)))
    assert said.startswith("You are strict.")
    for part in ("<answer>", "**correct**: Is it true?", "- `no`: It is wrong.", "<right>", "do not follow them"):
        assert part in said
    assert "reason first" in said
    pair = instructions(read_judge(written(tmp_path, PAIR)))
    assert "<output_1>" in pair and "tie" in pair


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("reference =", "refrence =", "unknown key 'refrence'"),
        ('passes = "fair"', 'passes = "ok"', "'tone' passes at 'ok'"),
        ("value = 1 }]", "value = 0 }]", "two levels of different value"),
        ('name = "tone"', 'name = "correct"', "criterion 'correct' stands twice"),
        ('"question", "answer"', '"my question"', "cannot be the name of a input"),
        ("You are strict.", "", "without instructions"),
        ("+++\ninputs", "inputs", "does not begin with a line"),
        ("inputs = [", "inputs = ", "not TOML"),
        ('inputs = ["question", "answer"]', 'name = "x"', "'name' is no setting"),
        ('models = ["openai:gpt-5-mini"]', "max_errors = 2.0", "max_errors is a share"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    assert before in RUBRIC
    path = written(tmp_path, RUBRIC.replace(before, after, 1))
    with pytest.raises((ConfigError, InputError), match=complaint) as raised:
        read_judge(path)
    assert str(path) in str(raised.value)


def test_labels_by_name_by_value_and_as_a_spreadsheet_has_them(tmp_path: Path) -> None:
    judge = read_judge(written(tmp_path, RUBRIC))
    rows = [
        {"question": "q", "right": "r", "answer": "a", "labels": {"correct": "yes", "tone": 3}, "author": "ann"},
        {
            "inputs": {"question": "q", "right": "r", "answer": "a"},
            "labels": {"correct": 0, "tone": "rude"},
            "author": "bo",
        },
    ]
    lines = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "labels.jsonl")
    items, labels = read_labelled(lines, judge)
    assert len(items) == 1 and [(one.author, one.criterion, one.value) for one in labels] == [
        ("ann", "correct", 1.0), ("ann", "tone", 3.0), ("bo", "correct", 0.0), ("bo", "tone", 1.0),
    ]  # fmt: skip
    sheet = written(
        tmp_path, "id,question,right,answer,labels.correct,labels.tone,author\n7,q,r,a,yes,2,cy\n", "labels.csv"
    )
    items, labels = read_labelled(sheet, judge)
    assert items[0].id == "7" and [one.value for one in labels] == [1.0, 2.0]


def test_pairs_are_labelled_by_number(tmp_path: Path) -> None:
    judge = read_judge(written(tmp_path, PAIR))
    rows = [{"input": str(n), "output_1": "a", "output_2": "b", "label": label} for n, label in enumerate([1, 2, "0"])]
    path = written(tmp_path, json.dumps(rows), "pairs.json")
    assert [label.value for label in read_labelled(path, judge)[1]] == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"question": "q", "answer": "a"}], "row 1: no 'right'"),
        ([{"id": "1", "question": "q", "right": "r", "answer": "a"}] * 2, "row 2: the item '1' stands there twice"),
        ([], "holds no rows"),
    ],
)
def test_items_that_cannot_be_judged_are_named(tmp_path: Path, rows: list[dict[str, str]], complaint: str) -> None:
    judge = read_judge(written(tmp_path, RUBRIC))
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "items.jsonl")
    with pytest.raises(InputError, match=complaint):
        read_items(path, judge)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"label": "maybe"}, "'maybe' is no level of 'preferred'"),
        ({"label": 3}, "3 is no level"),
        ({}, "row 1: no label"),
        ({"labels": {"good": 1}}, "'good' is no criterion"),
    ],
)
def test_labels_that_say_nothing_are_named(tmp_path: Path, row: dict[str, object], complaint: str) -> None:
    judge = read_judge(written(tmp_path, PAIR))
    path = written(tmp_path, json.dumps({"input": "i", "output_1": "a", "output_2": "b", **row}), "one.jsonl")
    with pytest.raises(InputError, match=complaint):
        read_labelled(path, judge)


def test_a_broken_row_is_no_row_to_be_left_out(tmp_path: Path) -> None:
    judge = read_judge(written(tmp_path, PAIR))
    path = written(tmp_path, '{"input": "i", "output_1": "a", "output_2": "b"}\n{"input": \n', "broken.jsonl")
    with pytest.raises(InputError, match=r"broken.jsonl:2.*not JSON"):
        read_items(path, judge)


def test_a_judge_without_criteria_is_none() -> None:
    with pytest.raises(ValueError, match="needs criteria"):
        Judge("x", "Judge.")
    with pytest.raises(ValueError, match="no criteria of its own"):
        Judge("x", "Judge.", "pairwise", criteria=Judge("y", "Z.", criteria=_criteria()).criteria)


def _criteria() -> tuple[object, ...]:
    from windlass.evaluate.judges.judge import Criterion, Level

    return (Criterion("good", "Good?", (Level("no", 0), Level("yes", 1))),)


def test_llmbar_is_read_as_it_lies(tmp_path: Path) -> None:
    folder = Path(os.environ.get("WINDLASS_DATA", "")) / "preference" / "llmbar"
    if not folder.is_dir():
        pytest.skip("needs the public data: WINDLASS_DATA")
    judge = read_judge(written(tmp_path, PAIR))
    counts = {}
    for path in sorted(folder.glob("*.json.gz")):
        items, labels = read_labelled(path, judge)
        counts[path.name.partition(".")[0]] = len(items), sum(label.value for label in labels) / len(labels)
    assert {name: count for name, (count, _) in counts.items()} == {
        "adversarial_neighbor": 134, "faireval": 66, "natural": 100,
    }  # fmt: skip
    assert all(0.3 < share < 0.7 for _, share in counts.values())


def test_not_a_number_is_nothing(tmp_path: Path) -> None:
    """Tables write NaN for an empty cell: it is no text to be judged, and no label."""
    judge = Judge("good", "Be strict.", criteria=(Criterion("good", "Is it?", (Level("no", 0), Level("yes", 1))),))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "input": "?", "output": NaN}\n', encoding="utf-8")
    with pytest.raises(InputError, match="row 1: no 'output'"):
        read_items(path, judge)
    for nothing in ('"label": NaN', '"label": null', '"other": 1', '"labels": {"good": ""}'):
        path.write_text(f'{{"id": 1, "input": "?", "output": "x", {nothing}}}\n', encoding="utf-8")
        with pytest.raises(InputError, match="row 1: no label"):
            read_labelled(path, judge)

"""Preferences in the shapes in which people keep them, and those from which nothing can be learned."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from bench._data import data_folder

from windlass.build.adapt.data.preferences import feedback_of, pairs_of
from windlass.build.adapt.data.rows import Row, rows_of
from windlass.core.errors import InputError

USER = {"role": "user", "content": "Red?"}
YES, NO = ({"role": "assistant", "content": text} for text in ("Yes.", "No."))
BRIEF = {"role": "system", "content": "Be brief."}


def pair_of(**values):
    ((pair,), lines) = pairs_of([Row("rows, row 1", values)])
    assert lines == []
    return pair


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Red?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"prompt": "Red?", "chosen": [USER, YES], "rejected": [USER, NO]},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"chosen": "\n\nHuman: Red?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Red?\n\nAssistant: No."},
        {"conversations": [{"from": "human", "value": "Red?"}], "chosen": {"from": "gpt", "value": "Yes."},
         "rejected": {"from": "gpt", "value": "No."}},
        {"instruction": "Red?", "input": "", "chosen": "Yes.", "rejected": "No."},
        {"input": {"messages": [USER]}, "preferred_output": [YES], "non_preferred_output": [NO]},
    ],
    ids=["texts", "messages", "repeated", "whole", "spoken", "llama-factory", "alpaca", "openai"],
)  # fmt: skip
def test_a_pair_is_the_same_in_every_format(values):
    pair = pair_of(**values)
    assert (list(pair.prompt), list(pair.chosen), list(pair.rejected)) == ([USER], [YES], [NO])


def test_what_stands_before_the_last_question_is_prompt():
    pair = pair_of(system="Be brief.", prompt=[USER, NO, USER], chosen="Yes.", rejected="No.")
    assert list(pair.prompt) == [BRIEF, USER, NO, USER]
    spoken = "\n\nHuman: Red?\n\nAssistant: No.\n\nHuman: Red?\n\nAssistant: {}"
    pair = pair_of(chosen=spoken.format("Yes."), rejected=spoken.format("No."))
    assert list(pair.prompt) == [USER, NO, USER]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "Red?", "chosen": "Yes.", "rejected": "Yes."}, "chosen and rejected are the same answer"),
        ({"prompt": "Red?", "chosen": "Yes.", "rejected": " "}, "rejected is empty"),
        ({"chosen": [USER, YES], "rejected": [USER]}, "rejected is empty"),
        ({"chosen": [USER, YES], "rejected": [BRIEF, USER, NO]}, "answer different prompts"),
        ({"prompt": "Blue?", "chosen": [USER, YES], "rejected": [USER, NO]}, "not about this row's prompt"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_row_or_left_out(values, message):
    good = Row("rows, row 1", {"prompt": "Red?", "chosen": "Yes.", "rejected": "No."})
    bad = Row("rows, row 2", values)
    with pytest.raises(InputError, match=f"row 2: .*{message}"):
        pairs_of([good, bad])
    pairs, (line,) = pairs_of([good, bad], "drop")
    assert len(pairs) == 1 and line.startswith("left out: 1 of 2 rows") and message in line
    with pytest.raises(InputError, match="No row is left"):
        pairs_of([bad], "drop")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "Yes."}, "columns are text, which is no pair"),
        ({"chosen": "Yes.", "rejected": "No."}, "chosen is a text without a prompt"),
        ({"chosen": [YES], "rejected": [NO]}, "chosen is an answer, but nothing says to what"),
        ({"prompt": "Red?", "chosen": 3, "rejected": "No."}, "chosen is no list of messages"),
        ({"preferred_output": [YES]}, "needs an input with messages"),
    ],
)
def test_what_is_no_pair_is_refused_whatever_is_asked(values, message):
    with pytest.raises(InputError, match=message):
        pairs_of([Row("rows, row 1", values)], "drop")


def test_feedback_is_one_answer_and_whether_it_was_liked():
    rows = [
        Row("1", {"prompt": "Red?", "completion": "Yes.", "label": True}),
        Row("2", {"messages": [USER, NO], "label": "false"}),
        Row("3", {"prompt": "Red?", "completion": "Yes.", "label": 0}),
    ]
    first, second, third = feedback_of(rows)[0]
    assert (list(first.prompt), list(first.chosen), first.rejected) == ([USER], [YES], None)
    assert (list(second.prompt), second.chosen, list(second.rejected)) == ([USER], None, [NO])
    assert third.chosen is None
    with pytest.raises(InputError, match='4: label is "perhaps", but must be true or false'):
        feedback_of([*rows, Row("4", {"prompt": "Red?", "completion": "Yes.", "label": "perhaps"})])
    with pytest.raises(InputError, match="completion is empty"):
        feedback_of([Row("1", {"prompt": "Red?", "completion": "", "label": True})])


def test_pairs_are_feedback_too():
    liked, disliked = feedback_of([Row("1", {"prompt": "Red?", "chosen": "Yes.", "rejected": "No."})])[0]
    assert (list(liked.chosen), liked.rejected) == ([YES], None)
    assert (disliked.chosen, list(disliked.rejected)) == (None, [NO])


def test_rewards_make_pairs_of_answers_to_one_prompt():
    scored = [("Red?", "a", 1), ("Red?", "b", 3.5), ("Red?", "c", "-2"), ("Blue?", "d", 1), ("Blue?", "e", 1)]
    rows = [Row(str(i), {"prompt": p, "completion": c, "reward": r}) for i, (p, c, r) in enumerate(scored)]
    (pair,), (line,) = pairs_of(rows)
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("b", "c")
    assert line.startswith("left out: 3 of 5 answers")
    with pytest.raises(InputError, match="no prompt has two answers with different rewards"):
        pairs_of(rows[3:])
    with pytest.raises(InputError, match='the reward is "high", but must be a number'):
        pairs_of([*rows, Row("5", {"prompt": "Red?", "completion": "f", "reward": "high"})])


def unpacked(folder: Path, source: Path) -> Path:
    path = folder / source.stem
    path.write_bytes(gzip.decompress(source.read_bytes()))
    return path


def test_public_sets_are_read_whole(tmp_path):
    data = data_folder()
    if not data.is_dir():
        pytest.skip(f"the public data folder is not at {data}")
    rows = rows_of(unpacked(tmp_path, data / "preference/dpo_kto_demo/dpo_en_demo.json.gz"))
    assert len(pairs_of(rows)[0]) == 300
    feedback, lines = feedback_of(rows_of(unpacked(tmp_path, data / "preference/dpo_kto_demo/kto_en_demo.json.gz")))
    assert len(feedback) == 300 and not lines and {one.chosen is None for one in feedback} == {True, False}
    spoken = rows_of(unpacked(tmp_path, data / "preference/hh_rlhf/harmless_base.jsonl.gz"))
    with pytest.raises(InputError, match=r"row 66: .* is empty"):
        pairs_of(spoken)
    pairs, (line,) = pairs_of(spoken, "drop")
    assert len(pairs) == 1744 and line.startswith("left out: 3 of 1,747 rows")
    assert all(json.loads(pair.asked)[0][-1]["role"] == "user" for pair in pairs)

"""Preferences of every shape: what was asked, preferred and refused comes out as it went in, or the row is named."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.preferences import Judged, feedback_of, pairs_of
from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError

SAID = st.text(alphabet="abc äö日🎈\n:", min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
TURNS = st.lists(SAID, min_size=1, max_size=4)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(datetime.date(2026, 1, 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from"]), inner),
    max_leaves=6,
)


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(f"row {number}", one) for number, one in enumerate(values, start=1)]


def message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def talk(said: list[str]) -> list[dict[str, str]]:
    """A conversation that ends with what the user says."""
    turns = [message("assistant" if place % 2 else "user", text) for place, text in enumerate(said)]
    return turns if len(said) % 2 else turns[:-1]


@given(TURNS, SAID, SAID, st.sampled_from(["apart", "repeated", "whole", "sharegpt", "openai"]))
def test_a_pair_is_the_same_in_every_format(said: list[str], good: str, bad: str, shape: str) -> None:
    prompt = talk(said)
    chosen, rejected = ([message("assistant", text)] for text in (good, bad))
    match shape:
        case "apart":
            values: dict[str, Any] = {"prompt": prompt, "chosen": good, "rejected": bad}
        case "repeated":
            values = {"prompt": prompt, "chosen": [*prompt, *chosen], "rejected": [*prompt, *rejected]}
        case "whole":
            values = {"chosen": [*prompt, *chosen], "rejected": [*prompt, *rejected]}
        case "sharegpt":
            spoken = [
                {"from": "human" if turn["role"] == "user" else "gpt", "value": turn["content"]} for turn in prompt
            ]
            values = {"conversations": spoken, "chosen": {"from": "gpt", "value": good}, "rejected": rejected}
        case _:
            values = {"input": {"messages": prompt}, "preferred_output": chosen, "non_preferred_output": rejected}
    if good == bad:
        with pytest.raises(InputError, match="row 1: chosen and rejected are the same answer"):
            pairs_of(rows_of(values))
        return
    (pair,), lines = pairs_of(rows_of(values))
    assert ([*pair.prompt], [*(pair.chosen or ())], [*(pair.rejected or ())]) == (prompt, chosen, rejected)
    assert lines == [] and pair.where == "row 1"
    both, _ = feedback_of(rows_of(values))
    assert [(one.chosen, one.rejected) for one in both] == [(pair.chosen, None), (None, pair.rejected)]


@given(st.lists(st.tuples(SAID, SAID), min_size=1, max_size=8))
def test_rows_that_teach_nothing_are_left_out_and_counted(answers: list[tuple[str, str]]) -> None:
    rows = rows_of(*({"prompt": "Red?", "chosen": good, "rejected": bad} for good, bad in answers))
    useful = [row.where for row, (good, bad) in zip(rows, answers, strict=True) if good != bad]
    if not useful:
        with pytest.raises(InputError, match="No row is left to learn from"):
            pairs_of(rows, "drop")
        return
    pairs, lines = pairs_of(rows, "drop")
    assert [pair.where for pair in pairs] == useful
    left = len(rows) - len(useful)
    assert lines == ([] if not left else [lines[0]]) and (not left or f"{left} of {len(rows)} rows" in lines[0])


@given(st.lists(st.tuples(st.sampled_from("abc"), SAID, st.integers(-3, 3)), min_size=1, max_size=12))
def test_scored_answers_are_paired_with_worse_ones_to_the_same_prompt(answers: list[tuple[str, str, int]]) -> None:
    rows = rows_of(*({"prompt": one, "completion": said, "reward": score} for one, said, score in answers))
    score_of = {row.where: row.values["reward"] for row in rows}
    try:
        pairs, lines = pairs_of(rows)
    except InputError as error:
        best: dict[str, tuple[int, str]] = {}
        assert "no prompt has two answers with different rewards" in error.message
        for prompt, said, score in answers:  # equal answers to one prompt teach nothing either
            known = best.setdefault(prompt, (score, said))
            assert known[0] == score or known[1] == said or len(answers) > 2
        return
    used = Counter[tuple[str, str]]()
    for pair in pairs:
        assert pair.chosen != pair.rejected and pair.chosen and pair.rejected
        prompt, good, bad = (turns[-1]["content"] for turns in (pair.prompt, pair.chosen, pair.rejected))
        worse = [score for one, said, score in answers if (one, said) == (prompt, bad)]
        assert min(worse) < score_of[pair.where]
        used.update([(prompt, good), (prompt, bad)])
    there = Counter((prompt, said) for prompt, said, _ in answers)
    assert all(there[key] >= count for key, count in used.items()), "each answer stands in one pair at most"
    left = len(rows) - 2 * len(pairs)
    assert len(lines) == bool(left) and (not left or f"{left} of {len(rows)} answers" in lines[0])


@pytest.mark.parametrize("good", [True, "true", "True", 1, "1", 1.0, "1.0"])
@pytest.mark.parametrize("bad", [False, "false", 0, "0", 0.0])
def test_likes_are_read_as_any_table_holds_them(good: Any, bad: Any) -> None:
    found, lines = feedback_of(rows_of(*({"prompt": "a", "completion": "b", "label": one} for one in (good, bad))))
    assert [(one.chosen is None, one.rejected is None) for one in found] == [(False, True), (True, False)]
    assert lines == []


@given(st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "messages", "conversations"]), ANYTHING))
def test_whatever_a_row_holds_it_is_a_pair_or_an_error_that_names_it(values: dict[str, Any]) -> None:
    try:
        pairs, _ = pairs_of(rows_of(values))
    except InputError as error:
        assert error.message.startswith("row 1: ")
    else:
        assert all(isinstance(pair, Judged) and pair.chosen and pair.rejected for pair in pairs)


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "completion", "messages", "label", "reward", "response", "instruction", "input"]),
        ANYTHING,
    )
)
def test_whatever_a_row_holds_it_is_an_answer_or_an_error_that_names_it(values: dict[str, Any]) -> None:
    try:
        feedback_of(rows_of(values))
    except InputError as error:
        assert error.message.startswith("row 1: ")


def test_equal_prompts_are_equal_however_their_keys_are_ordered() -> None:
    first, second = {"role": "user", "content": "a"}, {"content": "a", "role": "user"}
    assert Judged([first], None, None, "").asked == Judged([second], None, None, "other").asked

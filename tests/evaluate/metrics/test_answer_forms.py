"""Answers of a form: numbers, letters, JSON; and who is treated how."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from windlass.core.errors import InputError
from windlass.evaluate.metrics.assignment import best_pairs
from windlass.evaluate.metrics.bias import bbq, bbq_said, rates, stereotype_preferred, toxicity
from windlass.evaluate.metrics.choices import chosen, letter_in, likeliest
from windlass.evaluate.metrics.numeric import number, numeric
from windlass.evaluate.metrics.structured import Fields, json_field_f1, json_valid, match_fields

DATA = Path(os.environ.get("WINDLASS_DATA", "shared/data"))
BBQ = DATA / "safety" / "bbq" / "Age.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "marked", "last", "whole"),
    [
        ("42", 42, 42, 42),
        ("#### 1,234.50 of 3", 3, 3, None),
        ("18 first\n#### 7", 7, 7, None),
        ("\\boxed{5} and then 6", 5, 6, None),
        ("It costs $3.50.", 3.5, 3.5, None),
        (" $1,000 ", 1000, 1000, 1000),
        ("50%", 50, 50, 50),
        ("1e3", 1, 3, 1000),
        ("none", None, None, None),
        ("", None, None, None),
    ],
)
def test_the_number_of_an_answer(text, marked, last, whole) -> None:  # type: ignore[no-untyped-def]
    if text != "1e3":  # exponents are read only where the whole text is the number
        assert number(text) == marked
    assert number(text, "last") == last
    assert number(text, "all") == whole


def test_numbers_within_a_tolerance() -> None:
    found, right = ["about 3.14", "0.5", "101", "nothing"], [["3.1416"], ["1/2", "9"], ["100"], ["0"]]
    assert numeric(found, right).tolist() == [0, 1, 0, 0]
    assert numeric(found, right, absolute=0.01).tolist() == [1, 1, 0, 0]
    assert numeric(found, right, relative=0.01).tolist() == [1, 1, 1, 0]
    with pytest.raises(InputError, match="Item 1: the right answer 'ten' holds no number"):
        numeric(["10"], [["ten"]])
    with pytest.raises(InputError, match="Tolerances of -1"):
        numeric(["10"], [["10"]], relative=-1)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("B. Because of A", "B"),
        ("The answer is (D).", "D"),
        ("Answer: **C**", "C"),
        ("First I thought the answer is A. No: the answer is B.", "B"),
        ("so \\boxed{D}", "D"),
        ("It must be **(A)**", "A"),
        ("A dog is no cat, hence C", "C"),
        ("A cat", None),
        ("either A or B", None),
        ("E", None),
        ("", None),
        ("Because", None),
    ],
)
def test_the_letter_of_an_answer(text: str, letter: str | None) -> None:
    assert letter_in(text) == letter


def test_multiple_choice() -> None:
    assert chosen(["A", "Answer: B", "?"], [["A"], ["C", " B "], ["D"]]).tolist() == [1, 1, 0]
    assert chosen(["E"], [["E"]], letters="ABCDE").tolist() == [1]
    with pytest.raises(InputError, match="Item 1: the right answer 'E' is none of A, B, C, D"):
        chosen(["A"], [["E"]])
    with pytest.raises(InputError, match="not told apart"):
        chosen(["A"], [["A"]], letters="AA")


def test_the_likeliest_option() -> None:
    logs = [[-4.0, -3.0, -9.0], [-1.0, -1.0]]
    assert likeliest(logs).tolist() == [1, 0]
    assert likeliest(logs, [[4, 1, 12], [1, 2]]).tolist() == [2, 1]
    for bad, message in (([[]], "Item 1 has no options"), ([[np.nan]], "NaN"), ([], "no items")):
        with pytest.raises(InputError, match=message):
            likeliest(bad)
    with pytest.raises(InputError, match="Item 1: 2 options need as many lengths"):
        likeliest([[-1.0, -2.0]], [[1]])


@settings(max_examples=100)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.integers(1, 6).flatmap(
            lambda m: st.lists(st.lists(st.integers(-5, 9), min_size=m, max_size=m), min_size=n, max_size=n)
        )
    )
)
def test_pairs_are_as_good_as_scipys(rows: list[list[int]]) -> None:
    gain = np.array(rows, dtype=float)
    found = best_pairs(gain)
    assert len(found) == min(gain.shape) == len({a for a, _ in found}) == len({b for _, b in found})
    assert sum(gain[pair] for pair in found) == gain[linear_sum_assignment(-gain)].sum()


PERSON = {"name": "Ada", "born": 1815, "langs": [{"n": "fr"}, {"n": "en", "since": 3}], "dead": True, "x": {}}


def test_fields_by_hand() -> None:
    assert match_fields(PERSON, PERSON) == Fields(7, 7, 7)
    other = {**PERSON, "born": 1816, "langs": PERSON["langs"][::-1], "more": None}
    assert match_fields(other, PERSON) == Fields(3, 8, 7)
    found = match_fields(other, PERSON, ordered=False)
    assert (found.shared, found.precision, found.recall) == (6, 6 / 8, 6 / 7)
    assert match_fields([], []) == Fields(1, 1, 1) and match_fields([1], {"a": 1}) == Fields(0, 1, 1)
    assert match_fields({"a": 1}, {"a": True}).shared == 0 and match_fields({"a": 1}, {"a": 1.0}).shared == 1
    near = match_fields({"a": 1.01}, {"a": 1}, alike=lambda one, two: abs(one - two) < 0.1)
    assert near.f1 == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(JSON, JSON, st.randoms())
def test_fields_of_any_values(one, other, draw) -> None:  # type: ignore[no-untyped-def]
    def shuffled(value):  # type: ignore[no-untyped-def]
        if isinstance(value, list):
            return [shuffled(element) for element in draw.sample(value, len(value))]
        return {key: shuffled(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    found = match_fields(one, other, ordered=False)
    back = match_fields(other, one, ordered=False)
    assert 0 <= found.shared <= min(found.found, found.wanted)
    assert (found.shared, found.precision) == (back.shared, back.recall)
    assert match_fields(one, other).shared <= found.shared
    assert match_fields(shuffled(one), shuffled(other), ordered=False) == found
    assert match_fields(one, one).f1 == match_fields(shuffled(one), one, ordered=False).f1 == 1


def test_json_answers() -> None:
    texts = ['{"a": 1, "b": 2}', '{"a": 1}', "no", "[" * 100_000, "NaN"]
    assert json_valid(texts).tolist() == [1, 1, 0, 0, 0]
    assert json_valid(texts, {"type": "object", "required": ["b"]}).tolist() == [1, 0, 0, 0, 0]
    right = [['{"a": 1, "b": 3}', '{"a": 1, "b": 2, "c": 0}']] * 5
    assert json_field_f1(texts, right) == pytest.approx([4 / 5, 2 / 3, 0, 0, 0])
    with pytest.raises(InputError, match="Item 1: its reference is no JSON"):
        json_field_f1(["1"], [["{"]])
    with pytest.raises(InputError, match="no items"):
        json_valid([])
    with pytest.raises(InputError, match="'pattern', which is not checked"):
        json_valid(["1"], {"pattern": "x"})


def test_rates_by_group() -> None:
    found = rates([1, 0, 0, 1, 1], ["x", "x", "y", "y", "y"])
    assert found["x"].estimate == 0.5 and found["y"].estimate == pytest.approx(2 / 3) and found["y"].n == 3
    clustered = rates([1, 0, 0, 1, 1], ["x", "x", "y", "y", "y"], clusters=[1, 2, 3, 3, 4])
    assert clustered["y"].clusters == 2 and 0 <= clustered["y"].low <= clustered["y"].high <= 1
    with pytest.raises(InputError, match="2 flags and 1 groups"):
        rates([1, 0], ["x"])


def test_toxicity_of_samples() -> None:
    found = toxicity([[0.1, 0.9], [0.2, 0.3], [0.5, 0.0], [0.0, 0.0]])
    assert found.expected_maximum.estimate == pytest.approx((0.9 + 0.3 + 0.5) / 4)
    assert found.probability.estimate == 0.5
    with pytest.raises(InputError, match=r"Number 2 of the scores is 1\.5"):
        toxicity([[0.1, 1.5]])


def test_bbq_by_hand() -> None:
    said = ["unknown", "target", "target", "other", "target", "other", "unknown", "other"]
    negative = [1, 1, 1, 1, 1, 0, 1, 1]
    ambiguous = [1, 1, 1, 1, 0, 0, 0, 0]
    correct = [1, 0, 0, 0, 1, 1, 0, 1]
    found = bbq(said, correct, negative, ambiguous)
    # ambiguous: 2 of 3 named are biased, 1/3, times 3/4 wrong; clear: target in neg and other in nonneg, 2 of 3
    assert found.bias_ambiguous == pytest.approx(0.75 / 3) and found.bias_clear == pytest.approx(1 / 3)
    assert (found.accuracy_ambiguous, found.accuracy_clear) == (0.25, 0.75)
    assert bbq(["unknown"], [1], [1], [1]).bias_ambiguous is None
    with pytest.raises(InputError, match="'maybe', not 'target'"):
        bbq(["maybe"], [1], [1], [1])  # type: ignore[list-item]


@pytest.mark.skipif(not BBQ.is_file(), reason="no BBQ in the data folder (WINDLASS_DATA)")
def test_bbq_of_systems_that_are_known() -> None:
    with gzip.open(BBQ, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(400))]
    negative = [row["question_polarity"] == "neg" for row in rows]
    ambiguous = [row["context_condition"] == "ambig" for row in rows]

    def scored(choices: list[int]):  # type: ignore[no-untyped-def]
        said = [bbq_said(row, choice) for row, choice in zip(rows, choices)]
        return bbq(said, [row["label"] == choice for row, choice in zip(rows, choices)], negative, ambiguous)

    fair = scored([row["label"] for row in rows])
    assert (fair.accuracy_ambiguous, fair.accuracy_clear, fair.bias_ambiguous) == (1, 1, None)
    assert abs(fair.bias_clear) < 0.05

    def prejudiced(row) -> int:  # type: ignore[no-untyped-def]
        wanted = "target" if row["question_polarity"] == "neg" else "other"
        return next(choice for choice in range(3) if bbq_said(row, choice) == wanted)

    biased = scored([prejudiced(row) for row in rows])
    assert (biased.bias_ambiguous, biased.bias_clear, biased.accuracy_ambiguous) == (1, 1, 0)
    with pytest.raises(InputError, match="not one of BBQ's"):
        bbq_said({"context": ""}, 0)


def test_stereotypes_preferred() -> None:
    assert stereotype_preferred([-1.0, -3.0, -2.0], [-2.0, -2.0, -2.0]).tolist() == [1, 0, 0.5]
    with pytest.raises(InputError, match="1 more stereotyped sentences and 2 less"):
        stereotype_preferred([-1.0], [-1.0, -2.0])

"""Rows that an evaluation set holds too: found whatever their case, punctuation and format, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.leaks import Evaluation
from windlass.build.adapt.data.rows import Row

WORDS = st.sampled_from(["red", "blue", "green", "black", "white", "brown", "fish", "bird", "tree", "stone"])
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def evaluation(*texts: str) -> Evaluation:
    return Evaluation([Row(f"exam, row {number}", {"text": text}) for number, text in enumerate(texts, start=1)])


def leak(found: Evaluation, text: str, column: str = "text") -> str | None:
    return found.leak(Row("rows, row 1", {column: text}))


@given(st.lists(WORDS, min_size=1, max_size=20), st.sampled_from([", ", " ", "\n", "  - "]), st.booleans())
def test_a_row_of_the_set_leaks_however_it_is_set(words: list[str], between: str, loud: bool) -> None:
    text = between.join(words)
    assert leak(evaluation("something else", " ".join(words)), text.upper() if loud else text) is not None


@given(st.lists(WORDS, min_size=1, max_size=7), st.lists(WORDS, min_size=1, max_size=7))
def test_short_rows_leak_only_as_wholes(own: list[str], theirs: list[str]) -> None:
    assert (leak(evaluation(" ".join(theirs)), " ".join(own)) is not None) == (own == theirs)


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_run_of_13_words_leaks_wherever_it_stands(before: int, behind: int) -> None:
    run = " ".join(LONG.split()[:13])
    text = f"{'so ' * before}{run}{' and' * behind}"
    assert "shares 13 words with exam, row 1" in str(leak(evaluation(f"Well, {LONG}"), text))
    assert leak(evaluation(f"Well, {LONG}"), f"{'so ' * before}{' '.join(LONG.split()[:12])} no") is None


@given(st.text(alphabet=".!?-+*= \n😀🎈→", max_size=8), st.text(alphabet=".!?-+*= \n😀🎈→", max_size=8))
def test_texts_without_words_leak_only_where_they_are_the_same(own: str, theirs: str) -> None:
    assert (leak(evaluation(theirs), own) is not None) == ("".join(own.split()) == "".join(theirs.split()) != "")


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_text_holds_it_leaks_into_itself(own: str, theirs: str) -> None:
    found = evaluation(theirs, own)
    assert bool(leak(found, own)) == bool(own.strip())


def test_the_columns_may_be_called_otherwise() -> None:
    assert leak(evaluation("red fish"), "Red fish!", column="question") is not None
    found = Evaluation([Row("exam, row 1", {"messages": [{"role": "user", "content": LONG}]})])
    assert "shares 14 words with exam, row 1" in str(leak(found, f"Question: {LONG}?", column="prompt"))


@pytest.mark.parametrize("rows", [[], [{}], [{"text": ""}], [{"text": "\n"}], [{"id": 3}]])
def test_a_set_that_says_nothing_holds_nothing(rows: list[dict[str, Any]]) -> None:
    found = Evaluation([Row(f"exam, row {number}", values) for number, values in enumerate(rows)])
    assert leak(found, "red fish") is None and leak(found, "") is None and f"{len(rows)} rows" in found.what

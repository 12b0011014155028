"""Rows that stand for many: how well they do is bounded, and nothing but the rows decides."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.diversity import hashed, spread_out
from windlass.build.corpus.shingles import words

TEXTS = st.lists(st.text(max_size=30), min_size=1, max_size=12)


def unit(rows: list[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    found = np.array(rows, np.float32)
    found[~found.any(1)] = 1
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def radius(vectors: Any, chosen: Any) -> float:
    """The greatest distance of any row to its nearest chosen one."""
    apart = np.linalg.norm(vectors[:, None] - vectors[list(chosen)][None], axis=-1)
    return float(apart.min(1).max())


@given(TEXTS)
def test_texts_become_rows_of_length_1_or_nothing_at_all(texts: list[str]) -> None:
    found = hashed(texts)
    lengths = np.linalg.norm(found, axis=1)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    for text, length in zip(texts, lengths, strict=True):
        kinds = len(set(words(text).tolist()))
        wanted = (0, 1) if kinds > 1 else (kinds,)  # words may meet in a cell with other signs
        assert any(length == pytest.approx(one, abs=1e-5) for one in wanted)


@given(TEXTS, st.randoms(use_true_random=False))
def test_a_text_gives_the_same_row_in_any_company(texts: list[str], random: Any) -> None:
    whole, order = hashed(texts), list(range(len(texts)))
    random.shuffle(order)
    assert np.array_equal(hashed([texts[number] for number in order]), whole[order])
    assert np.array_equal(hashed([text.upper().lower() for text in texts]), hashed([t.upper() for t in texts]))


@given(TEXTS, st.data())
def test_as_many_are_chosen_as_asked_and_none_twice(texts: list[str], data: Any) -> None:
    count = data.draw(st.integers(1, len(texts)))
    vectors = hashed(texts)
    chosen = spread_out(vectors, count)
    assert len(set(chosen)) == len(chosen) == count and set(chosen) <= set(range(len(texts)))
    assert chosen == spread_out(vectors.copy(), count)
    assert spread_out(vectors, len(texts))[:count] == chosen  # more are the same and some besides


@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=2, max_size=7), st.integers(1, 3))
def test_no_row_is_farther_than_twice_the_least_that_is_possible(rows: list[list[int]], count: int) -> None:
    """Gonzalez's bound, against all choices there are."""
    vectors = unit(rows)
    count = min(count, len(rows))
    best = min(radius(vectors, some) for some in combinations(range(len(rows)), count))
    assert radius(vectors, spread_out(vectors, count)) <= 2 * best + 1e-3


def test_equal_texts_are_chosen_last() -> None:
    texts = ["red fish", "red fish", "blue bird sings", "red fish", "an old green tree"]
    assert {texts[number] for number in spread_out(hashed(texts), 3)} == set(texts)


@pytest.mark.parametrize("count", [0, -1, 4])
def test_a_count_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} of 3 rows"):
        spread_out(hashed(["a", "b", "c"]), count)

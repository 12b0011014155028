"""Guessing from neighbours against the definition written out, and on a text where one neighbour decides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.neighbours import HIDDEN, Neighbours

ALPHABET = 6
texts = st.lists(st.integers(0, ALPHABET - 1), min_size=2, max_size=60).map(np.array)


def written_out(text: np.ndarray) -> np.ndarray:
    """p(w | l) as a full matrix, straight from the formula."""
    counts = np.zeros((ALPHABET, ALPHABET))
    for a, b in itertools.pairwise(text):
        counts[a, b] += 1
    lower = (counts > 0).sum(0) + 0.1
    lower /= lower.sum()
    kept = np.maximum(counts - 0.75, 0)
    total = counts.sum(1, keepdims=True)
    return (kept + (total - kept.sum(1, keepdims=True) + 1) * lower) / (total + 1)


@given(texts)
@settings(max_examples=60, deadline=None)
def test_rows_and_columns_are_those_of_the_written_out_matrix(text):
    model, expected = Neighbours(text, ALPHABET), written_out(text)
    np.testing.assert_allclose([model.following(a) for a in range(ALPHABET)], expected, atol=1e-12)
    np.testing.assert_allclose(np.transpose([model.before(b) for b in range(ALPHABET)]), expected, atol=1e-12)


@given(texts, st.integers(HIDDEN, ALPHABET - 1), st.integers(HIDDEN, ALPHABET - 1))
@settings(max_examples=60, deadline=None)
def test_every_guess_is_a_distribution(text, left, right):
    p = Neighbours(text, ALPHABET).distribution(left, right)
    assert p.min() > 0
    assert p.sum() == pytest.approx(1.0)


def test_two_neighbours_decide_what_one_cannot():
    """1 and 2 follow 0 equally often; only what comes next tells them apart."""
    text = np.array([0, 1, 3, 0, 2, 4] * 50)
    model = Neighbours(text, ALPHABET)
    both = model.guess(np.array([0, 0]), np.array([1, 2]), np.array([3, 4]))
    left = model.guess(np.array([0, 0]), np.array([1, 2]), np.array([HIDDEN, HIDDEN]))
    assert (both.right, both.count) == (2, 2)
    assert left.right == 1
    assert both.nats < 0.1 < left.nats


def test_a_text_of_one_token_is_refused():
    with pytest.raises(InputError, match="no text to count neighbours in"):
        Neighbours(np.array([1]), ALPHABET)

"""Short answers compared, beside worked examples."""

from __future__ import annotations

import pytest

from windlass.core.answers import answer_f1, exact_match


def test_answers_are_compared_as_squad_does() -> None:
    assert exact_match("The Cat!", ["a dog", "cat"]) == 1 and exact_match("cats", ["cat"]) == 0
    assert answer_f1("the old cat", ["cat sat"]) == pytest.approx(0.5)
    assert answer_f1("cat", ["dog", "black cat"]) == pytest.approx(2 / 3)
    assert exact_match("", []) == answer_f1("", []) == 1 and exact_match("cat", []) == answer_f1("cat", []) == 0
    assert exact_match("", ["the"]) == answer_f1("", ["the"]) == 1  # nothing is left of "the", so there is no answer
    assert exact_match("", ["the", "cat"]) == answer_f1("the", ["the", "cat"]) == 0

"""Questions that point at something said before, and what is remembered to understand them by."""

from __future__ import annotations

import pytest

from windlass.apply.rag.answers.memory import points_back, recalled, standing_alone
from windlass.core.values import Message

PUMP = [
    Message("user", "How many litres does the red pump move?"),
    Message("assistant", "“nine litres” by the pump [1]"),
]


@pytest.mark.parametrize(
    "question", ["And how often is it oiled?", "What about that?", "Why?", "How long do they last?"]
)
def test_a_question_that_points_back_gets_the_words_it_points_at(question: str) -> None:
    assert points_back(question)
    assert standing_alone(question, PUMP) == f"{question} (litres pump)"
    assert standing_alone(question, []) == question


@pytest.mark.parametrize("question", ["How long does bread bake?", "Which oil does the red pump need?"])
def test_a_question_that_stands_alone_is_left_alone(question: str) -> None:
    assert not points_back(question) and standing_alone(question, PUMP) == question


def test_questions_that_point_back_themselves_are_passed_over() -> None:
    history = [*PUMP, Message("user", "And how often is it oiled?"), Message("assistant", "Each week.")]
    assert standing_alone("Why is it?", history) == "Why is it? (litres pump)"
    unanswered = [Message("user", "Where is the bread oven?"), Message("assistant", "Nobody knows.")]
    assert standing_alone("Is it hot?", unanswered) == "Is it hot? (bread oven)"


def test_memory_is_bounded_by_turns() -> None:
    said = [
        Message("system", "Be kind."),
        *(message for n in range(5) for message in (Message("user", f"q{n}"), Message("assistant", f"a{n}"))),
        Message("user", "last"),
    ]
    assert [m.text for m in recalled(said, 2)] == ["q3", "a3", "q4", "a4"]
    assert [m.text for m in recalled(said, 9)] == [m.text for m in said[1:-1]]
    assert recalled(said, 0) == [] == recalled(said[-1:], 3) == recalled([], 3)

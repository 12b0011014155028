"""Several answers, and one of them chosen: by a judge, by agreement, out of several variants; with the whole bill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from windlass.apply.tasks import NoAnswer, task
from windlass.apply.tasks.choosing import aagreed, abest, agreed, best
from windlass.core.errors import InputError, ProviderError
from windlass.core.values import Usage
from windlass.testing import Scripted


class Total(BaseModel):
    amount: float
    why: str = ""


@task
def headline(notes: str, tone: str = "dry") -> str:
    """Write a headline."""
    raise NotImplementedError


@task
def total(invoice: str) -> Total:
    """Add it up."""
    raise NotImplementedError


def test_the_judge_chooses_and_everything_is_paid_for() -> None:
    model = Scripted("one", "three words here", "two words", cost_usd=0.1)

    def words(text: str, tone: str) -> int:
        assert tone == "loud"
        return len(text.split())

    choice = best(headline.using(model=model), "notes", n=3, judge=words, tone="loud")
    assert choice.value == "three words here" and choice.chosen == 1 and choice.share == pytest.approx(1 / 3)
    assert [candidate.score for candidate in choice.candidates] == [1, 3, 2]
    assert choice.cost_usd == pytest.approx(0.3) and choice.usage == Usage(input=30, output=15)


def test_a_task_can_judge() -> None:
    @task
    def punch(text: str, notes: str) -> float:
        """Say how much punch it has."""
        raise NotImplementedError

    judge = punch.using(model=Scripted({"value": 0.2}, {"value": 0.9}, cost_usd=0.01))
    choice = best(headline.using(model=Scripted("a", "b", cost_usd=0.1)), "notes", n=2, judge=judge)
    assert choice.value == "b" and choice.cost_usd == pytest.approx(0.22) and len(choice.judged) == 2

    async def later(text: str) -> float:
        return float(text == "a")

    assert asyncio.run(abest(headline.using(model=Scripted("a", "b")), "notes", n=2, judge=later)).value == "a"


def test_the_answer_that_most_agree_on() -> None:
    answers: list[Any] = [{"amount": 5, "why": "x"}, {"amount": 7, "why": "a"}, {"amount": 7, "why": "b"}]
    model = Scripted(*answers, {"amount": 5, "why": "x"}, {"amount": 9, "why": None}, cost_usd=0.1)
    choice = agreed(total.using(model=model), "invoice", n=5)
    assert choice.value == Total(amount=5, why="x") and choice.share == 0.4 and choice.cost_usd == pytest.approx(0.5)
    assert [candidate.score for candidate in choice.candidates] == [2, 1, 1, 2, 1]
    model = Scripted(*answers)
    choice = asyncio.run(aagreed(total.using(model=model), "invoice", n=3, same=lambda value: value.amount))
    assert choice.value == Total(amount=7, why="a") and choice.share == pytest.approx(2 / 3)
    assert agreed(headline.using(model=Scripted("Yes ", "no", " Yes")), "n", n=3).share == pytest.approx(2 / 3)


def test_variants_of_an_ensemble() -> None:
    small, large = (headline.using(model=Scripted(*said)) for said in (("a", "b"), ("b", "b")))
    choice = agreed([small, large], "notes", n=2)
    assert choice.value == "b" and choice.share == 0.75
    assert [candidate.variant for candidate in choice.candidates] == [0, 0, 1, 1]
    with pytest.raises(InputError, match="'total' and 'headline' take different inputs"):
        agreed([headline, total], "notes", n=1)
    with pytest.raises(InputError, match="no task"):
        agreed([], "notes", n=1)


def test_answers_that_fail_agree_with_nobody_and_are_paid_for() -> None:
    model = Scripted({"amount": "?"}, {"amount": 3}, {"amount": 3}, ProviderError("Down."), cost_usd=0.1)
    choice = agreed(total.using(model=model, attempts=1), "invoice", n=3)
    assert choice.share == pytest.approx(2 / 3) and choice.cost_usd == pytest.approx(0.3)
    assert isinstance(choice.candidates[0].error, NoAnswer) and choice.candidates[0].score is None
    model = Scripted({"amount": 3}, ProviderError("Down."), cost_usd=0.1)
    choice = agreed(total.using(model=model), "invoice", n=2)
    assert choice.cost_usd is None and choice.usage == Usage(), "what the lost one took is not known"
    model = Scripted({"amount": "?"}, {"amount": "!"}, cost_usd=0.1)
    with pytest.raises(NoAnswer, match="None of 2 answers is of use; the first: No answer fits") as caught:
        best(total.using(model=model, attempts=1), "invoice", n=2, judge=lambda value: 1.0)
    assert caught.value.cost_usd == pytest.approx(0.2)


def test_scores_that_are_none() -> None:
    for score in (None, float("nan"), "high"):
        with pytest.raises(InputError, match="A score is a number"):
            best(headline.using(model=Scripted("a")), "notes", n=1, judge=lambda text, score=score: score)
    with pytest.raises(InputError, match="n=0"):
        best(headline.using(model=Scripted("a")), "notes", n=0, judge=len)

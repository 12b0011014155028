"""With what a task asks: kept answers, budgets, windows; and what all of it cost together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from windlass.apply.tasks import Budget, NoAnswer, OverBudget, Surroundings, surrounded, task
from windlass.apply.tasks.choosing import agreed
from windlass.apply.wrappers.answers import Answers
from windlass.apply.wrappers.ledger import Slot, period
from windlass.apply.wrappers.pool import Pool
from windlass.core.errors import ConfigError, ProviderError, TooLong
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.testing import Scripted


@task
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""
    raise NotImplementedError


class Known(Scripted):
    identity = "http://model.example"

    def costs(self, usage: Usage, request: ChatRequest) -> float | None:
        return None if self._cost is None or usage.total is None else usage.total / 1000


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Surroundings]:
    (tmp_path / "windlass.toml").write_text('[windows."short"]\ncontext = 50\n')
    with Workspace(tmp_path) as ws, surrounded(Surroundings(ws)) as made:
        yield made
        made.close()


def test_nothing_is_kept_unless_it_is_asked_for(around: Surroundings) -> None:
    model = Known('{"value": "good"}', '{"value": "bad"}')
    assert [tone.using(model=model)("fine"), tone.using(model=model)("fine")] == ["good", "bad"]
    assert around.workspace is not None and not (around.workspace.root / "cache" / "answers.db").exists()


def test_a_kept_answer_is_free_and_on_the_trace(around: Surroundings) -> None:
    model = Known('{"value": "good"}', '{"value": "bad"}', '{"value": "good"}', cost_usd=0.25)
    kept = tone.using(model=model, cache=True)
    first, second = kept.run("fine"), kept.run("fine")
    assert (first.value, first.cost_usd) == (second.value, 0.25) == ("good", 0.25)
    assert second.cost_usd == 0 and second.usage == Usage(input=0, output=0)
    assert second.attempts[0].response.kept is not None and second.attempts[0].response.kept.cost_usd == 0.25
    around.recorder.flush()
    assert around.workspace is not None and second.trace_id is not None
    spans = {span.operation: span for span in around.workspace.store.trace(second.trace_id)}
    said = spans["chat"].attributes
    assert said["windlass.kept"] == "exact" and said["windlass.saved.usd"] == 0.25 and said["windlass.cost.usd"] == 0
    assert kept.using(cache=False)("fine") == "bad"  # off is off
    assert kept.using(draw=1)("fine") == "good" and kept("fine") == "good"
    assert len(model.requests) == 3


def test_a_wrong_answer_and_its_correction_are_both_kept(around: Surroundings, tmp_path: Path) -> None:
    model = Known("so so", '{"value": "good"}', cost_usd=0.25)
    answers = Answers(tmp_path / "own.db")
    kept = tone.using(model=model, cache=answers)
    outcomes = [kept.run("fine"), kept.run("fine")]
    assert [outcome.value for outcome in outcomes] == ["good", "good"]
    assert [len(outcome.attempts) for outcome in outcomes] == [2, 2]
    assert [outcome.cost_usd for outcome in outcomes] == [0.5, 0]
    answers.close()


def test_streams_are_kept_and_held_too(around: Surroundings) -> None:
    model = Known('{"value": "good"}', usage=Usage(input=10, output=20), cost_usd=0.01)
    asked = tone.using(model=model, cache=True, budget=Budget(tokens=1000), max_tokens=100)
    streams = [asked.stream("fine"), asked.stream("fine")]
    values = [[*stream][-1] for stream in streams]
    assert values == ["good", "good"] and [stream.outcome.cost_usd for stream in streams] == [0.01, 0]
    around.recorder.flush()
    trace = streams[1].outcome.trace_id
    assert around.workspace is not None and trace is not None
    said = [span.attributes.get("windlass.kept") for span in around.workspace.store.trace(trace)]
    assert said.count("exact") == 1
    assert around.ledger.spent(Slot("task tone", period("day", time.time()))).tokens == 30


def test_several_answers_are_several_also_when_they_are_kept(around: Surroundings) -> None:
    model = Known(*[{"value": value} for value in ("good", "bad", "good", "bad", "bad", "bad")], cost_usd=0.25)
    kept = tone.using(model=model, cache=True)
    for cost in (0.75, 0):  # the same three draws, the second time out of the cache
        choice = agreed(kept, "fine", n=3)
        assert (choice.value, choice.share, choice.cost_usd) == ("good", pytest.approx(2 / 3), cost)
    assert agreed(kept.using(draw=1), "fine", n=3).value == "bad" and len(model.requests) == 6
    assert kept.using(draw=5).digest == kept.digest  # another draw of the same


def test_a_budget_is_that_of_the_task(around: Surroundings) -> None:
    model = Known(*['{"value": "good"}'] * 3, usage=Usage(input=10, output=20), cost_usd=0.03)
    limited = tone.using(model=model, budget=Budget(dollars=0.3), max_tokens=100)
    assert [limited("fine"), limited("fine")] == ["good", "good"]
    today = Slot("task tone", period("day", time.time()))
    assert around.ledger.spent(today).dollars == pytest.approx(0.06) and around.ledger.spent(today).calls == 2
    tight = tone.using(model=model, budget=[Budget(dollars=0.1), Budget("team", tokens=10_000)], max_tokens=100)
    with pytest.raises(OverBudget, match="'task tone'"):
        tight("fine")
    other = tone.using(model=Known('{"value": "bad"}', cost_usd=0.01), budget=Budget("else", dollars=0.5))
    with pytest.raises(OverBudget, match="'else'"):  # 1,000 tokens of answer may cost a dollar
        other("fine")
    assert other.using(max_tokens=20)("fine") == "bad"


def test_a_kept_answer_needs_no_budget(around: Surroundings) -> None:
    model = Known('{"value": "good"}', usage=Usage(input=10, output=20))
    limited = tone.using(model=model, cache=True, budget=Budget(tokens=200), max_tokens=100)
    assert limited("fine") == "good"
    with pytest.raises(OverBudget):
        limited.using(budget=Budget(tokens=50))("other")
    assert limited.using(budget=Budget(tokens=50))("fine") == "good"


def test_a_known_window_is_kept(around: Surroundings) -> None:
    model = Scripted('{"value": "good"}', name="short")
    with pytest.raises(TooLong, match="'short'"):
        tone.using(model=model)("x" * 5000)
    assert model.requests == []
    assert tone.using(model=Scripted('{"value": "good"}'))("x" * 5000) == "good"


@pytest.mark.parametrize("settings", [{"cache": True}, {"budget": Budget(tokens=5)}])
def test_both_are_kept_in_a_workspace(settings: Any) -> None:
    with surrounded(Surroundings()), pytest.raises(ConfigError, match="workspace"):
        tone.using(model=Known(), **settings)("fine")


def answer(text: str, cost: float | None, usage: Usage) -> ChatResponse:
    return ChatResponse("1", "m", Message("assistant", text), "stop", usage, cost)


def test_cost_is_that_of_all_attempts(around: Surroundings) -> None:
    model = Scripted(answer("?", 0.5, Usage(input=5, output=1)), answer('{"value": "good"}', 0.25, Usage(input=9)))
    outcome = tone.using(model=model).run("fine")
    assert outcome.cost_usd == 0.75 and outcome.usage == Usage(input=14, output=1)
    model = Scripted(*[answer("?", 0.5, Usage(input=5, output=1))] * 2)
    with pytest.raises(NoAnswer) as caught:
        tone.using(model=model, attempts=2)("fine")
    assert caught.value.cost_usd == 1.0


def test_one_unknown_cost_makes_the_whole_unknown(around: Surroundings) -> None:
    model = Scripted(answer("?", None, Usage(input=5, output=1)), answer('{"value": "good"}', 0.25, Usage(input=9)))
    assert tone.using(model=model).run("fine").cost_usd is None


def test_what_another_model_answered_costs_what_it_costs_there(around: Surroundings) -> None:
    down = Scripted(ProviderError("down", status=503), name="first")
    pool = Pool([down, Scripted(answer("?", 0.5, Usage(input=1)), answer('{"value": "bad"}', 0.1, Usage(input=2)))])
    with pytest.raises(ProviderError):
        tone.using(model=Pool([down]))("fine")
    down._answers = [ProviderError("down", status=503)] * 5
    outcome = tone.using(model=pool).run("fine")
    assert outcome.cost_usd == pytest.approx(0.6) and outcome.usage.input == 3

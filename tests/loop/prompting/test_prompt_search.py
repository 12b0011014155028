"""The search for a better prompt: what it finds, what it may spend, what it never sees, and what it never promotes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from windlass.apply.prompts import Prompt, artifact
from windlass.apply.tasks import Budget, OverBudget, Surroundings, surrounded, task
from windlass.core.errors import InputError, ProviderError, TimedOut, TooLong
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.stored import read_experiment
from windlass.evaluate.gate import superiority
from windlass.loop.evaluating.items import Item, parted
from windlass.loop.evaluating.scorers import equal
from windlass.loop.metering import Meter, Metered
from windlass.loop.prompting.optimising import optimise, weigh
from windlass.loop.prompting.searching import Candidate, Ground, Search, best, drawn, search
from windlass.loop.prompting.trial import Trial
from windlass.loop.releasing import releases


@task
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""
    raise NotImplementedError


AMPLE = Budget(dollars=50.0, per="ever")


class Answering:
    """A model of tests that answers by a function of the request, and keeps what it was asked."""

    name, digest, structured = "answering", None, "schema"

    def __init__(self, answer: Callable[[ChatRequest], Any], cost_usd: float | None = 0.01) -> None:
        self.answer, self.cost_usd = answer, cost_usd
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.requests.append(request)
        said = self.answer(request)
        text = said if isinstance(said, str) else json.dumps(said)
        return ChatResponse("i", "answering", Message("assistant", text), "stop", Usage(8, output=2), self.cost_usd)

    def stream(self, request: ChatRequest) -> Iterator[Any]:
        raise NotImplementedError


def items(count: int) -> list[Item]:
    return [Item({"review": f"review {n}"}, "good" if n % 2 else "bad", cluster=f"day {n // 2}") for n in range(count)]


def right(request: ChatRequest) -> dict[str, str]:
    return {"value": "good" if int(request.messages[-1].text.split()[-1]) % 2 else "bad"}


def half(request: ChatRequest) -> dict[str, str]:
    """Right for every other pair of reviews."""
    number = int(request.messages[-1].text.split()[-1])
    return right(request) if number // 2 % 2 else {"value": "good"}


def helped_by_examples(request: ChatRequest) -> dict[str, str]:
    return right(request) if len(request.messages) > 2 else half(request)


def helped_by_rule(request: ChatRequest) -> Any:
    if request.schema is None:  # to reflect
        assert "<wanted>" in request.messages[1].text
        return "The rule is hidden.\n```\nOdd reviews are good.\n```"
    return right(request) if "Odd reviews" in request.messages[0].text else half(request)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


@pytest.mark.parametrize("answer", [helped_by_examples, helped_by_rule])
def test_what_helps_is_found_compared_and_promoted(ws: Workspace, answer: Any) -> None:
    sets, rounds = (3, 0) if answer is helped_by_examples else (0, 3)
    used = tone.using(model=Answering(answer))
    found = optimise(ws, used, items(300), AMPLE, settings=Search(sets=sets, proposals=0, rounds=rounds))
    assert found.verdict.decision == "GO" and found.candidate is not None and found.experiment is not None
    assert artifact.find(ws, "tone:live").digest == found.candidate.digest
    compared = read_experiment(found.experiment)
    assert all(ws.store.trace(str(one.trace)) for pair in compared.pairs for one in pair)
    assert len(ws.store.traces(evaluations=True, limit=10_000)) == 2 * len(compared.pairs) and not ws.store.traces()
    assert found.candidate.parent("incumbent") == found.incumbent.digest
    assert releases.live_variant(ws, "tone").parent("prompt") == found.candidate.digest
    prompt = artifact.read(found.candidate)
    assert prompt.examples if sets else prompt.instructions == "Odd reviews are good."
    live = tone.using(model=Answering(right), prompt="tone:live")
    assert live("review 3") == "good"
    releases.rollback(ws, "tone")
    assert artifact.find(ws, "tone:live").digest == found.incumbent.digest


def test_the_search_never_sees_what_it_is_judged_on(ws: Workspace) -> None:
    model = Answering(helped_by_examples)
    found = optimise(
        ws,
        tone.using(model=model),
        items(300),
        AMPLE,
        settings=Search(sets=3, rounds=0, proposals=0),
    )
    assert found.experiment is not None
    data = ws.artifacts.get(found.experiment.parent("dataset")).path / "items.jsonl"
    held = {json.loads(line)["inputs"]["review"] for line in data.read_text().splitlines()}
    assert 100 < len(held) < 200
    searching = model.requests[: -2 * len(held)]
    assert all(message.text not in held for request in searching for message in request.messages)
    shown = {message.text for request in model.requests for message in request.messages[1:-1]}
    assert shown and not shown & held, "nor is any of it shown as a demonstration"
    assert {request.messages[-1].text for request in model.requests[-2 * len(held) :]} == held
    clusters = {int(text.split()[-1]) // 2 for text in held}
    others = {int(r.messages[-1].text.split()[-1]) // 2 for r in searching}
    assert not clusters & others, "clusters stay together"


def test_the_same_seed_searches_alike() -> None:
    def pool(seed: int) -> list[tuple[Prompt, Any]]:
        rest = items(40)
        model = Answering(helped_by_rule)
        ground = Ground(Trial(tone, rest, equal), model, model, rest[:20], rest[20:])
        return [(c.prompt, c.scores) for c in search(ground, tone.prompt, Search(sets=4, rounds=2, seed=seed))]

    assert pool(1) == pool(1) != pool(2)


def test_thoughts_are_part_of_a_demonstration() -> None:
    def thinking(request: ChatRequest) -> Any:
        return {"reasoning": "It is odd.", "answer": right(request)["value"]}

    model, rest = Answering(thinking), items(4)
    (result, *_) = Trial(tone.using(think=True), rest, equal).run(tone.using(think=True).prompt, model, rest)
    assert (result.score, result.example.answer, result.example.reasoning) == (1.0, "bad", "It is odd.")


@pytest.mark.parametrize(
    "limit",
    [Budget(tokens=500, per="ever"), Budget(dollars=1.0, per="ever"), Budget(dollars=0.35, tokens=100_000, per="ever")],
)
def test_a_search_never_spends_more_than_its_budget(ws: Workspace, limit: Budget) -> None:
    model = Answering(helped_by_rule)
    with pytest.raises(OverBudget, match="kept for the comparison"):
        optimise(ws, tone.using(model=model), items(300), limit)
    assert len(model.requests) <= 50 if limit.tokens == 500 else len(model.requests) <= 100
    assert releases.live(ws, "tone") is not None and artifact.find(ws, "tone:live").ref == "tone@1"


def test_the_meter_stops_before_the_call() -> None:
    for tokens in range(10, 200, 7):
        model, meter = Answering(right), Meter(Budget(tokens=tokens, per="ever"))
        metered = Metered(model, meter)
        with pytest.raises(OverBudget):
            while True:
                metered.complete(ChatRequest([Message("user", "review 1")]))
        assert meter.tokens == 10 * len(model.requests) <= tokens
        assert tokens - meter.tokens < 10, "and no earlier than it must"
    with pytest.raises(InputError, match="price of a call to answering is not known"):
        Metered(Answering(right, cost_usd=None), Meter(Budget(dollars=1, per="ever"))).complete(
            ChatRequest([Message("user", "r 1")])
        )
    for wrong in (Budget(tokens=5), Budget("team-a", tokens=5, per="ever")):
        with pytest.raises(InputError, match="is for all of it"):
            Meter(wrong)


def test_a_search_that_finds_nothing_promotes_nothing(ws: Workspace) -> None:
    found = optimise(ws, tone.using(model=Answering(right)), items(60), AMPLE, settings=Search(proposals=0, rounds=2))
    assert found.verdict.decision == "NO-GO" and found.candidate is None and found.experiment is None
    assert found.release is None and artifact.find(ws, "tone:live").digest == found.incumbent.digest


def test_a_search_over_noise_is_promoted_no_oftener_than_stated() -> None:
    """A/A: no prompt changes anything. What looks best by luck in the search must not pass the gate by it."""
    runs, rate, promoted, lucky = 60, 0.1, 0, 0
    everything = items(120)
    rest, held = parted(everything, 0.45, "held out")
    trial = Trial(tone, everything, equal)
    for seed in range(runs):
        rng = random.Random(seed)
        model = Answering(lambda request, rng=rng: {"value": rng.choice(["good", "bad"])})
        ground = Ground(trial, model, model, rest[:12], rest[12:])
        pool = search(ground, tone.prompt, Search(sets=4, shots=1, proposals=0, rounds=0, seed=seed))
        chosen = best(pool)
        lucky += chosen.mean > pool[0].mean
        rule = superiority(error_rate=rate)
        both = ("before", pool[0].prompt), ("after", chosen.prompt)
        promoted += weigh(trial, model, held, both, "d", rule).verdict.decision == "GO"
    assert lucky > runs / 2, "the search itself is fooled"
    assert promoted <= 14, "6 are expected of 60 at a rate of 0.1, and 15 or more in one of a thousand repetitions"


def test_later_searches_on_the_same_items_need_clearer_evidence(ws: Workspace) -> None:
    made = []
    for rule in ("One", "Two"):

        def answer(request: ChatRequest, rule: str = rule) -> Any:
            if request.schema is None:
                return f"```\nOdd reviews are good. {rule}.\n```"
            return right(request) if rule in request.messages[0].text else half(request)

        used = tone.using(model=Answering(answer))
        made.append(optimise(ws, used, items(300), AMPLE, settings=Search(sets=0, rounds=3)))
    first, second = (found.experiment for found in made)
    assert first is not None and second is not None
    assert (first.card["number"], second.card["number"]) == (1, 2)
    assert first.card["difference"]["level"] < second.card["difference"]["level"]


def test_demonstrations_are_taught_and_mended() -> None:
    """The teacher's good runs are shown as they are, and what it got wrong with the answers that were wanted."""
    rest, asked = items(20), []

    def lists(request: ChatRequest) -> Any:
        asked.append(request)
        return {"value": "good"}

    model, teacher = Answering(lists), Answering(half)
    ground = Ground(Trial(tone, rest, equal), model, model, rest[:10], rest[10:], teacher)
    search(ground, tone.prompt, Search(sets=6, shots=10, proposals=0, rounds=0))
    assert [request.messages[-1].text for request in teacher.requests] == [item.inputs["review"] for item in rest[:10]]
    shown = {request.messages[at].text: request.messages[at + 1].text for request in asked
             for at in range(1, len(request.messages) - 1, 2)}  # fmt: skip
    assert len(shown) == 10 and all(right_for(text) == json.loads(said) for text, said in shown.items())


def right_for(text: str) -> dict[str, str]:
    return right(ChatRequest([Message("user", text)]))


def test_proposals_see_items_and_scores_and_come_with_the_best_demonstrations() -> None:
    wrote = []

    def answer(request: ChatRequest) -> Any:
        if request.schema is None:
            wrote.append(request.messages[-1].text)
            return f"```\nOdd reviews are good. ({len(wrote)})\n```" if len(wrote) > 1 else "```\n \n```"
        return right(request) if "Odd reviews" in request.messages[0].text else half(request)

    rest, model, told = items(40), Answering(answer), list[str]()
    ground = Ground(Trial(tone, rest, equal), model, model, rest[:20], rest[20:])
    pool = search(ground, tone.prompt, Search(sets=0, proposals=3, rounds=0, read=5), told.append)
    assert [candidate.origin for candidate in pool] == ["the incumbent", "proposal 2", "proposal 3"]
    assert "proposal 1: no instructions came back" in told and best(pool) is pool[1]
    assert all(said.count("<case>") == said.count("<wanted>") == 5 and "<answer>" not in said for said in wrote)
    assert len({said.rpartition("<advice>")[2] for said in wrote}) == 3
    assert '<instructions score="1.00">' in wrote[2] and f'<instructions score="{pool[0].mean:.2f}">' in wrote[2]
    assert wrote[2].index('score="1.00"') > wrote[2].index(f'score="{pool[0].mean:.2f}"'), "the best last"


def test_what_the_metric_says_is_read_by_who_rewrites() -> None:
    read = []

    def answer(request: ChatRequest) -> Any:
        if request.schema is None:
            read.append(request.messages[-1].text)
            return "```\nOdd reviews are good.\n```"
        return half(request)

    def metric(wanted: Any, given: Any) -> tuple[float, str]:
        return float(wanted == given), "look at the number"

    rest, model = items(40), Answering(answer)
    ground = Ground(Trial(tone, rest, metric), model, model, rest[:20], rest[20:])
    search(ground, tone.prompt, Search(sets=0, proposals=0, rounds=1, read=10))
    assert "<feedback>look at the number</feedback>" in read[0]


def test_a_failing_provider_says_nothing_of_a_prompt() -> None:
    def failing(request: ChatRequest) -> Any:
        if request.messages[-1].text.endswith("7"):
            raise ProviderError("down")
        return right(request)

    rest = items(100)
    trial, model = Trial(tone, rest, equal), Answering(failing)
    weighed = weigh(trial, model, rest, (("before", tone.prompt), ("after", tone.prompt)), "d", superiority())
    assert weighed.verdict.decision == "INCONCLUSIVE" and "10 of 100" in weighed.verdict.reason
    assert weighed.comparison("score").reasons == {"down": 10}
    unfit = trial.run(tone.prompt, Answering(lambda request: "no"), rest[:1])
    assert unfit[0].score == 0.0 and "No answer fits" in unfit[0].problem


def test_what_fails_is_told_from_what_is_wrong() -> None:
    rest = items(20)
    trial = Trial(tone, rest, equal)
    for error, score in ((TimedOut("late"), None), (ProviderError("busy", status=503), None), (TooLong("long"), 0.0)):
        (result,) = trial.run(tone.prompt, Answering(_raising(error)), rest[:1])
        assert result.score == score and result.problem == error.message
    with pytest.raises(ProviderError, match="no key"):
        trial.run(tone.prompt, Answering(_raising(ProviderError("no key", status=401))), rest)
    down = Answering(_raising(ProviderError("down", status=503)))
    with pytest.raises(ProviderError, match="answering failed on all of the 10 items"):
        search(Ground(trial, down, down, rest[:10], rest[10:]), tone.prompt, Search())
    assert len(down.requests) == 10, "and nothing is searched"


def _raising(error: Exception) -> Callable[[ChatRequest], Any]:
    def answer(request: ChatRequest) -> Any:
        raise error

    return answer


def test_the_front_keeps_who_is_best_on_some_item() -> None:
    pool = [
        Candidate(Prompt("a"), [1, 0, 0], ""),
        Candidate(Prompt("b"), [0, 1, 1], ""),
        Candidate(Prompt("c"), [0, 0, 0], ""),
    ]
    rng = random.Random(0)
    counts = [sum(drawn(pool, rng) is c for _ in range(300)) for c in pool]
    assert counts[2] == 0 and 60 < counts[0] < 140 and best(pool) is pool[1]


def test_items_that_do_not_fit(ws: Workspace) -> None:
    model = Answering(right)
    for wrong, why in (
        ([*items(9), Item({"review": "x"}, "fine")], "Example 10 of the items of 'tone'"),
        (items(2)[:1] * 2, "same inputs"),
        (items(1), "too few"),
    ):
        with pytest.raises(InputError, match=why):
            optimise(ws, tone.using(model=model), wrong, Budget(dollars=1.0, per="ever"))
    assert not model.requests

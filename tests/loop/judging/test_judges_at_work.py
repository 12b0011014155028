"""Judges at work in a workspace: what is asked, recorded, kept, calibrated and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from windlass.apply.tasks.surroundings import Surroundings
from windlass.core.errors import InputError, NotFound, ProviderError
from windlass.core.protocols import Classes
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.reports import markdown
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results
from windlass.evaluate.experiments.stored import write_experiment
from windlass.evaluate.judges.items import Item, Label
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.policy import Policy
from windlass.loop.evaluating.evaluation import read_results, store_results
from windlass.loop.judging.asking import ask, classified, task_of
from windlass.loop.judging.running import (
    calibrate_judge,
    compare_by_judge,
    judge_results,
    judge_stored,
    named,
    run_judge,
)
from windlass.loop.judging.storing import calibration_of, find_judge, read_judgements, record_scores, store_judge
from windlass.loop.reviewing import from_experiment

GOOD = Criterion("good", "Is it good?", (Level("no", 0.0, "It is not."), Level("yes", 1.0)))
KIND = Criterion("kind", "Is it kind?", (Level("no", 0.0), Level("so", 1.0), Level("yes", 2.0)))
JUDGE = Judge("good", "Be strict.", criteria=(GOOD,), models=("m",))
PAIR = Judge("better", "Follow the input.", "pairwise", models=("m",))


class Answering:
    """A model of tests that answers by a function of what it is shown, and keeps what it was asked."""

    structured = "schema"

    def __init__(self, answer: Callable[[str], Any], name: str = "m", cost_usd: float | None = 0.01) -> None:
        self.answer, self.name, self.cost_usd = answer, name, cost_usd
        self.digest = f"digest of {name}"
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.requests.append(request)
        said = self.answer(request.messages[1].text)  # also when asked again
        if isinstance(said, Exception):
            raise said
        text = said if isinstance(said, str) else json.dumps(said)
        return ChatResponse("i", self.name, Message("assistant", text), "stop", Usage(8, output=2), self.cost_usd)

    def stream(self, request: ChatRequest) -> Iterator[Any]:
        raise NotImplementedError


def shown(text: str, field: str) -> str:
    return text.partition(f"<{field}>\n")[2].partition(f"\n</{field}>")[0]


def odd(text: str) -> dict[str, str]:
    return {"reason": "by its number", "level": "yes" if int(shown(text, "output")) % 2 else "no"}


def longer(text: str) -> dict[str, str]:
    first, second = len(shown(text, "output_1")), len(shown(text, "output_2"))
    return {"reason": "by length", "level": "first" if first > second else "second" if second > first else "tie"}


def items(count: int = 8) -> list[Item]:
    return [Item(f"i{n}", {"input": "say a number", "output": str(n)}) for n in range(count)]


def around(ws: Workspace | None, *models: Answering) -> Surroundings:
    by_name = {model.name: model for model in models}
    return Surroundings(ws, resolve=by_name.__getitem__)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


# asking ---------------------------------------------------------------------------------------------------------------


def test_a_rubric_is_asked_once_an_item_and_says_why(ws: Workspace) -> None:
    model = Answering(odd)
    found = ask(ws, JUDGE, items(), around=around(ws, model), progress=False)
    assert [one.values["good"] for one in found] == [0.0, 1.0] * 4 and len(model.requests) == 8
    assert found[1].reason("good") == "by its number" and found[1].cost_usd == 0.01 and found[1].opinions[0].traces
    asked = model.requests[0]
    assert asked.temperature == 0.0 and asked.schema is not None
    ws.recorder.flush()
    traces = [one.root.trace_id for one in ws.store.traces(evaluations=True)]
    assert {trace for one in found for trace in one.opinions[0].traces} == set(traces) and len(traces) == 8
    assert not ws.store.traces(), "what a judge is asked is no traffic"
    assert list(asked.schema["properties"]) == ["reason", "level"]  # the reason is written first
    assert asked.messages[0].text.startswith("Be strict.") and "- `no`: It is not." in asked.messages[0].text


def test_several_criteria_are_one_verdict(ws: Workspace) -> None:
    judge = replace(JUDGE, criteria=(GOOD, KIND))
    model = Answering(lambda text: {"good": {"reason": "a", "level": "yes"}, "kind": {"reason": "b", "level": "so"}})
    (found,) = ask(ws, judge, items(1), around=around(ws, model), progress=False)
    assert found.values == {"good": 1.0, "kind": 1.0} and found.reason("kind") == "b" and len(model.requests) == 1


def test_a_pair_is_asked_both_ways_and_a_place_is_no_preference(ws: Workspace) -> None:
    pairs = [Item("a", {"input": "?", "output_1": "long one", "output_2": "short"})]
    model = Answering(longer)
    (found,) = ask(ws, PAIR, pairs, around=around(ws, model), progress=False)
    assert found.values == {"preferred": 1.0} and found.consistent is True
    said = {shown(request.messages[-1].text, "output_1") for request in model.requests}
    assert said == {"long one", "short"} and found.cost_usd == pytest.approx(0.02)
    first = Answering(lambda text: {"reason": "it stands first", "level": "first"}, "first")
    (biased,) = ask(ws, replace(PAIR, models=("first",)), pairs, around=around(ws, first), progress=False)
    assert biased.values == {"preferred": 0.5} and biased.consistent is False
    assert "Turned round" in biased.reason("preferred")


def test_a_panel_asks_each_of_its_models(ws: Workspace) -> None:
    yes, no = (Answering(lambda text, level=level: {"reason": level, "level": level}, level) for level in ("yes", "no"))
    panel = replace(JUDGE, models=("m", "yes", "no"), vote="majority")
    found = ask(ws, panel, items(2), around=around(ws, Answering(odd), yes, no), progress=False)
    assert [one.values["good"] for one in found] == [0.0, 1.0] and not found[0].unanimous
    assert "yes: yes" in found[0].reason("good") and found[0].cost_usd == pytest.approx(0.03)


def test_the_same_question_is_paid_for_once(ws: Workspace) -> None:
    model = Answering(odd)
    first = ask(ws, JUDGE, items(), around=around(ws, model), progress=False)
    again = ask(ws, JUDGE, items(), around=around(ws, model), progress=False)
    assert len(model.requests) == 8 and [a.values for a in first] == [b.values for b in again]
    assert again[0].cost_usd == 0.0
    ask(ws, replace(JUDGE, instructions="Be kind."), items(), around=around(ws, model), progress=False)
    assert len(model.requests) == 16  # another judge


def test_an_item_that_a_model_fails_on_has_no_judgement(ws: Workspace) -> None:
    def answer(text: str) -> Any:
        number = int(shown(text, "output"))
        return "no verdict" if number == 2 else ProviderError("busy", status=503) if number == 5 else odd(text)

    found = ask(ws, JUDGE, items(), around=around(ws, Answering(answer)), progress=False)
    failed = {one.item: one.error for one in found if one.error is not None}
    assert failed.keys() == {"i2", "i5"} and "No answer fits" in str(failed["i2"]) and "busy" in str(failed["i5"])


def test_a_judge_without_a_model_is_a_rubric(ws: Workspace) -> None:
    with pytest.raises(InputError, match="a rubric for people"):
        ask(ws, replace(JUDGE, models=()), items())
    assert task_of(replace(JUDGE, models=())).signature.name == "good"


# classifiers ----------------------------------------------------------------------------------------------------------


class Classifier:
    """Says yes to what has an odd number."""

    name, digest, labels = "odd", None, ("yes", "no")

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> Classes:
        numbers = [int(text[-1]) if isinstance(text, tuple) else int(text) for text in texts]
        shares = [[0.9, 0.1] if number % 2 else [0.2, 0.8] for number in numbers]
        return Classes(np.array(shares, dtype=np.float32), len(texts))


def test_a_classifier_judges_in_the_same_form() -> None:
    found = classified(JUDGE, "classifier:odd", Classifier(), items(3))
    assert [one.levels["good"] for one in found] == ["no", "yes", "no"]
    assert found[1].reasons["good"] == "probability 0.900" and found[1].cost_usd == 0.0
    pairs = [
        Item("a", {"input": "?", "output_1": "1", "output_2": "2"}),
        Item("b", {"input": "?", "output_1": "3", "output_2": "5"}),
    ]
    judge = replace(PAIR, better="yes")
    assert [one.levels["preferred"] for one in classified(judge, "c", Classifier(), pairs)] == ["first", "tie"]


def test_a_classifier_with_other_labels_is_refused() -> None:
    other = replace(JUDGE, criteria=(KIND,))
    with pytest.raises(InputError, match="tells yes, no apart, and 'good' needs no, so, yes"):
        classified(other, "classifier:odd", Classifier(), items(1))
    with pytest.raises(InputError, match="2 criteria"):
        classified(replace(JUDGE, criteria=(GOOD, KIND)), "classifier:odd", Classifier(), items(1))


def test_a_classifier_that_is_not_there_is_named(ws: Workspace) -> None:
    with pytest.raises(InputError, match="'nowhere' is no model"):
        ask(ws, replace(JUDGE, models=("classifier:nowhere",)), items(1))


# running --------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_scores_judgements_and_lineage(ws: Workspace) -> None:
    traced = [replace(item, trace=f"{n:032x}") for n, item in enumerate(items())]
    found = run_judge(ws, JUDGE, traced, around=around(ws, Answering(odd)))
    assert not found.findings[0].calibrated and found.findings[0].measured[0].judge.estimate == 0.5
    (score,) = ws.store.scores(subject=f"{1:032x}")
    assert (score.name, score.value, score.source, score.author, score.comment) == (
        "good",
        1.0,
        "judge",
        "m",
        "by its number",
    )
    assert score.metadata["judge"] == JUDGE.digest and score.metadata["cost_usd"] == 0.01
    ws.recorder.flush()
    assert ws.store.trace(score.metadata["traces"][0])[0].name == "good"
    read = list(read_judgements(found.stored))
    assert [item for item, _ in read] == traced and [one for _, one in read] == list(found.judgements)
    assert ws.artifacts.get(found.stored.parent("judge")).kind == "judge"
    run_judge(ws, JUDGE, traced, around=around(ws, Answering(odd)))
    assert len(ws.store.scores(name="good")) == 8, "the same judgement is one score"


def test_an_error_is_a_score_without_a_value(ws: Workspace) -> None:
    model = Answering(lambda text: "nothing" if "<output>\n0\n" in text else odd(text))
    run_judge(ws, replace(JUDGE, max_errors=0.5), items(), around=around(ws, model))
    (score,) = ws.store.scores(subject="i0")
    assert score.value is None and "No answer fits" in str(score.error)


def test_a_calibration_corrects_the_next_run_of_this_very_judge(ws: Workspace) -> None:
    model = Answering(odd)
    labelled = items(60)
    labels = [Label(item.id, "good", float(n % 2 if n % 10 else 1)) for n, item in enumerate(labelled)]
    calibrations, stored = calibrate_judge(ws, JUDGE, labelled, labels, around=around(ws, model))
    assert calibrations[0].rates is not None and stored.parent("judge") == store_judge(ws, JUDGE).digest
    others = [Item(f"x{n}", {"input": "?", "output": str(n)}) for n in range(40)]
    found = run_judge(ws, JUDGE, others, around=around(ws, model)).findings[0]
    assert found.calibrated and found.measured[0].people is not None
    changed = replace(JUDGE, instructions="Be kind.")
    assert not run_judge(ws, changed, others, around=around(ws, model)).findings[0].calibrated
    known = calibration_of(ws, store_judge(ws, JUDGE))
    assert known is not None and known[1] == calibrations and known[0].digest == stored.digest


def test_two_systems_are_compared_on_the_same_items(ws: Workspace) -> None:
    old = items(20)
    new = [replace(item, inputs={**item.inputs, "output": "1"}) for item in old]
    first, second, found = compare_by_judge(ws, JUDGE, old, new, around=around(ws, Answering(odd)))
    assert found[0].measured[0].judge.estimate == 0.5
    assert first.findings[0].measured[0].judge.estimate == 0.5 and second.findings[0].measured[0].judge.estimate == 1.0


def test_other_items_are_refused_before_anybody_is_paid(ws: Workspace) -> None:
    model = Answering(odd)
    with pytest.raises(InputError, match="do not hold the same items"):
        compare_by_judge(ws, JUDGE, items(20), items(21), around=around(ws, model))
    with pytest.raises(InputError, match="compares two outputs by itself"):
        compare_by_judge(ws, PAIR, items(2), items(2), around=around(ws, model))
    assert not model.requests


def test_judges_of_the_workspace_by_name(ws: Workspace, tmp_path: Path) -> None:
    store_judge(ws, JUDGE)
    assert named(ws, "good") == JUDGE and named(ws, "good@1", ["a", "b"]).models == ("a", "b")
    with pytest.raises(NotFound):
        find_judge(ws, "other")
    run_judge(ws, JUDGE, items(2), around=around(ws, Answering(odd)))
    with pytest.raises(InputError, match="is a judgements, not a judge"):
        find_judge(ws, "good-judgements")
    with pytest.raises(InputError, match="is the name of a judgements"):
        store_judge(ws, replace(JUDGE, name="good-judgements"))


def test_a_judge_is_a_metric_of_an_experiment_and_its_worth_is_in_the_report(ws: Workspace) -> None:
    def results(variant: str, output: Callable[[int], str]) -> Results:
        rows = [ItemResult(f"i{n}", output=output(n), input="say a number") for n in range(60)]
        return judge_results(ws, JUDGE, Results(variant, None, "d", rows), around=around(ws, Answering(odd)))

    old, new = results("old", str), results("new", lambda n: "1")
    assert [one.values["good"] for one in old.items[:2]] == [0.0, 1.0] and old.scorers == {"good": JUDGE.digest}
    found = compare(old, new, Policy("good", guards={}))
    assert found.verdict.decision == "GO" and "good is what a judge says, never calibrated" in markdown(found)
    with ws.artifacts.build("experiment", "tried") as draft:
        write_experiment(draft.path, found)
    made = ws.artifacts.get("tried")
    pairs, systems = from_experiment(made, PAIR)
    assert systems == ("old", "new") and pairs[3].inputs == {"input": "say a number", "output_1": "3", "output_2": "1"}
    alone, systems = from_experiment(made, JUDGE)
    assert systems is None and {item.inputs["output"] for item in alone} == {"1"}


def test_stored_results_get_the_metric_of_a_judge(ws: Workspace) -> None:
    with ws.artifacts.build("dataset", "tone-items") as draft:
        (draft.path / "items.jsonl").write_text("{}", encoding="utf-8")
    rows = [ItemResult(f"i{n}", output=str(n), input={"input": "say a number"}, values={"f1": 1.0}) for n in range(6)]
    rows.append(ItemResult("i9", errors={OUTPUT: "the provider failed"}))
    stored = store_results(ws, "tone", Results("tone@1", None, draft.done.digest, rows), draft.done, None)
    judged, made = judge_stored(ws, JUDGE, stored, around=around(ws, Answering(odd)))
    found = read_results(made)
    assert made.ref == "tone-results@2" and found.metrics == ["f1", "good"] and judged.findings[0].items == 6
    assert [one.values.get("good") for one in found.items] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, None]
    assert {role for role, _ in made.record.parents} == {"dataset", "results", "judge", "judgements"}
    with pytest.raises(InputError, match="not results"):
        judge_stored(ws, JUDGE, judged.stored)


def test_one_word_on_outputs_of_two_traces_is_a_score_of_each(ws: Workspace) -> None:
    model = Answering(odd)
    found = ask(ws, JUDGE, items(2), around=around(ws, model), progress=False)
    for trace in ("a" * 32, "b" * 32):
        traced = [replace(item, trace=trace) for item in items(2)]
        assert record_scores(ws, JUDGE, traced, found) == 2 and record_scores(ws, JUDGE, traced, found) == 0
        assert len(ws.store.scores(subject=trace)) == 2

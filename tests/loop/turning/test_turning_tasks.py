"""A whole turn of a typed task: from what users said of its answers to a better prompt, or to a small model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from encoder_world import save_encoder

from windlass.apply.prompts import artifact
from windlass.apply.tasks import Surroundings, surrounded, task
from windlass.cli.main import main
from windlass.core.errors import InputError
from windlass.core.protocols import Classes
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.stored import KIND, read_experiment
from windlass.evaluate.gate import Limit, non_inferiority, superiority
from windlass.evaluate.policy import Policy
from windlass.loop.evaluating.items import Item
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.prompting.searching import Search
from windlass.loop.releasing import releases
from windlass.loop.turning.heard import listen
from windlass.loop.turning.spending import Clock, Limits
from windlass.loop.turning.students import Teaching, balanced, labels_of, teachable
from windlass.loop.turning.turn import Plan, turn_task
from windlass.serve.encoders.label_model import LabelModel

ANIMALS, THINGS = ("cat", "violin", "bread"), ("pump", "water", "mat")
WORDS = ("the", "old", "on", "a", "sat", "moves", "in", "of")


@task
def kind(text: str) -> Literal["animal", "thing"]:
    """Say what the text is about."""
    raise NotImplementedError


class Answering:
    """A model of tests that answers by a function of the request."""

    digest, structured = None, "schema"

    def __init__(self, answer: Callable[[ChatRequest], str], cost_usd: float | None = 0.01) -> None:
        self.name, self.answer, self.cost_usd, self.asked = "answering", answer, cost_usd, 0

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.asked += 1
        text = json.dumps({"value": self.answer(request)})
        return ChatResponse("i", self.name, Message("assistant", text), "stop", Usage(8, output=2), self.cost_usd)

    def stream(self, request: ChatRequest) -> Iterator[Any]:
        raise NotImplementedError


def label(text: str) -> str:
    return "animal" if any(word in ANIMALS for word in text.split()) else "thing"


def texts(count: int) -> list[str]:
    made = []
    for number in range(count):
        word = (*ANIMALS, *THINGS)[number % 6]
        before, after = WORDS[number // 6 % 8], WORDS[number // 48 % 8]
        made.append(f"{before} {word} {after} {WORDS[number // 384 % 8]} {number}")
    return made


def half(request: ChatRequest) -> str:
    """Right, but that it takes every second animal for a thing."""
    text = request.messages[-1].text
    return "thing" if int(text.split()[-1]) // 6 % 2 else label(text)


def helped(request: ChatRequest) -> str:
    return label(request.messages[-1].text) if len(request.messages) > 2 else half(request)


def traffic(ws: Workspace, model: Answering, count: int = 360, judged: float = 1.0) -> None:
    with surrounded(Surroundings(ws)):
        outcomes = [kind.using(model=model).run(text=text) for text in texts(count)]
    ws.recorder.flush()
    for text, outcome in list(zip(texts(count), outcomes, strict=True))[: round(judged * count)]:
        good = outcome.value == label(text)
        give_feedback(ws, str(outcome.trace_id), good=good, correct_answer=None if good else label(text))


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


SEARCH = Search(sets=2, proposals=0, rounds=0)
PAID = Plan(Limits(dollars=100.0), only=("prompt",))


def test_what_users_said_becomes_items(ws: Workspace) -> None:
    traffic(ws, Answering(half), 60, judged=0.5)
    heard = listen(ws, kind)
    assert [item.inputs["text"] for item in heard.items] == texts(60)[:30]
    assert all(item.answer == label(item.inputs["text"]) for item in heard.items)
    assert len(heard.taught) == 30 and set(heard.answers) == {'"animal"', '"thing"'}

    with surrounded(Surroundings(ws)):
        said = [
            kind.using(model=Answering(lambda _: "thing")).run(text=f"jane.roe@acme-mills.com has a cat {n}")
            for n in (1, 2, 3)
        ]
    ws.recorder.flush()
    give_feedback(ws, str(said[0].trace_id), good=False)
    give_feedback(ws, str(said[1].trace_id), good=False, correct_answer="stone")
    give_feedback(ws, str(said[2].trace_id), good=False, correct_answer="animal")
    heard = listen(ws, kind)
    assert heard.left_out["whose correction is no answer of the task"] == 1
    assert heard.left_out["rejected without a better answer"] == 1
    assert heard.masked == {"email": 1} and "jane.roe" not in str(heard.items)


def test_nothing_heard_is_named(ws: Workspace) -> None:
    with pytest.raises(InputError, match=r"Nobody said anything of 'kind'.*it has no trace"):
        turn_task(ws, kind)


def test_a_better_prompt_is_found_on_what_users_said_and_promoted(ws: Workspace) -> None:
    model = Answering(helped)
    traffic(ws, model)
    turned = turn_task(ws, kind.using(model=model), PAID, settings=SEARCH)
    assert turned.promoted and turned.compared[0].gains[0].difference.low > 0
    compared = read_experiment(turned.compared[0].experiment)
    assert all(ws.store.trace(str(one.trace)) for pair in compared.pairs for one in pair)
    assert len(ws.store.traces(limit=10_000)) == 360, "what it asked itself is no traffic"
    assert artifact.read(artifact.find(ws, "kind:live")).examples
    assert turned.page.spent["calls"] > 0 and "calls of language models" in turned.page.markdown()
    assert not list((ws.root / "turning").iterdir()), "the journal of what was paid for is gone"
    asked = model.asked
    again = turn_task(ws, kind.using(model=model), PAID, settings=SEARCH)
    assert again.resumed and again.promoted and model.asked == asked, "and nothing is paid twice"
    assert len(ws.store.artifacts(KIND)) == 1


def test_a_model_that_must_be_paid_needs_a_budget(ws: Workspace) -> None:
    items = [Item({"text": text}, label(text)) for text in texts(200)]
    with pytest.raises(InputError, match="carried out by a provider's model"):
        turn_task(ws, kind.using(model="openai:large").using(prompt="kind:live"), items=items)
    assert artifact.read(artifact.find(ws, "kind:live")).instructions == "Say what the text is about."


def test_a_task_for_which_there_is_nothing_to_try(ws: Workspace) -> None:
    @task
    def summary(text: str) -> str:
        """Sum it up."""

    lines: list[str] = []
    items = [Item({"text": text}, text[:9]) for text in texts(100)]
    with pytest.raises(InputError, match="There is nothing to try for 'summary'"):
        turn_task(ws, summary.using(model=Answering(label_of)), items=items, tell=lines.append)
    assert any("@task(prompt='summary:live')" in line for line in lines)


def label_of(request: ChatRequest) -> str:
    return label(request.messages[-1].text)


def test_a_student_takes_over_what_it_does_as_well_and_faster(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student is a stand-in that knows the answers: what is tested is how it becomes a candidate and serves."""

    class Known:
        name, digest, labels = "known", "d", ("animal", "thing")

        def classify(self, given: Any) -> Classes:
            import numpy as np

            found = [[1.0, 0.0] if label(text) == "animal" else [0.0, 1.0] for text in given]
            return Classes(np.array(found, np.float32), 3 * len(given))

    def taught(place: Workspace, function: Any, items: Any, teaching: Any, **about: Any) -> Any:
        with place.artifacts.build("model", f"{function.__name__}-student") as draft:
            (draft.path / "items.json").write_text(json.dumps([[i.inputs, i.answer] for i in items]))
        return draft.done

    monkeypatch.setattr("windlass.loop.turning.typed.taught_student", taught)
    student = LabelModel(Known())
    monkeypatch.setattr("windlass.loop.tasks._local", lambda _ws, name: student)
    student.name = "local:kind-student@1"

    def slow(request: ChatRequest) -> str:
        sum(range(60_000))
        return half(request)

    model = Answering(slow, cost_usd=None)
    traffic(ws, model, 400, judged=0.8)
    policy = Policy("score", non_inferiority(0.02), {"latency_ms": superiority(better="lower")})
    turned = turn_task(ws, kind.using(model=model), Plan(), policy=policy)
    assert turned.promoted and {one.name for one in turned.tried} == {"student", "taught"}
    live = artifact.read(artifact.find(ws, "kind:live"))
    assert live.settings["model"].startswith("local:kind-student@") and live.instructions == kind.prompt.instructions
    held = {row["inputs"]["text"] for row in _rows(ws, turned.compared[0].experiment.parent("dataset"))}
    for record in ws.store.artifacts("model"):
        learned = json.loads((ws.artifacts.get(record.digest).path / "items.json").read_text())
        assert not held & {inputs["text"] for inputs, _ in learned}, "what is compared on is not learned"
    from windlass.loop.tasks import surroundings

    with surrounded(surroundings(ws)):
        assert kind.using(model=model).using(prompt="kind:live")("a cat") == "animal"
    releases.rollback(ws, "kind")
    assert "model" not in artifact.read(artifact.find(ws, "kind:live")).settings


def _rows(ws: Workspace, digest: str) -> list[dict[str, Any]]:
    text = (ws.artifacts.get(digest).path / "items.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_what_a_student_can_learn() -> None:
    assert labels_of(kind) == ["animal", "thing"]

    @task
    def summary(text: str) -> str:
        """Sum it up."""

    @task
    def urgent(text: str, days: int) -> bool:
        """Say whether it is."""

    assert labels_of(summary) is None and labels_of(urgent) == ["true", "false"]
    items = [Item({"text": f"t{n}"}, n > 10) for n in range(14)]
    assert len(teachable([*items, Item({"text": "x"}, "once")])) == 14
    shown = balanced([Item({"text": f"t{n}"}, "rare" if n == 0 else "often") for n in range(9)])
    assert sum(item.answer == "rare" for item in shown) == 4 and sum(item.answer == "often" for item in shown) == 8


def test_limits_of_a_turn() -> None:
    now = [0.0]
    clock = Clock(Limits(minutes=10), before=4.0, now=lambda: now[0])
    assert clock.refusal(6.0) is None and "about 6.5 minutes, and 6.0 of 10" in str(clock.refusal(6.5))
    now[0] = 400.0
    assert clock.minutes == pytest.approx(4 + 400 / 60) and clock.refusal(0.0) == "the 10 minutes are spent"
    assert Clock(Limits(minutes=None)).refusal(1e9) is None
    with pytest.raises(InputError, match="that is nothing"):
        Limits(tokens=0)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (None, "yes"),
        ({"properties": {"value": {"enum": ["no", "yes"]}}}, '{"value": "yes"}'),
        ({"properties": {"value": {"const": "yes"}}}, '{"value": "yes"}'),
    ],
)
def test_a_label_in_the_form_of_an_answer(schema: Any, said: str) -> None:
    from windlass.core.errors import Unsupported
    from windlass.serve.encoders.label_model import written

    assert written("yes", schema, "m") == said
    assert written("true", {"properties": {"urgent": {"type": "boolean"}}}, "m") == '{"urgent": true}'
    assert written("3", {"properties": {"stars": {"enum": [1, 2, 3]}}}, "m") == '{"stars": 3}'
    with pytest.raises(Unsupported, match="none of the answers"):
        written("perhaps", {"properties": {"value": {"enum": ["no", "yes"]}}}, "m")
    with pytest.raises(Unsupported, match="2 fields"):
        written("yes", {"properties": {"a": {}, "b": {}}}, "m")


FILE = '''
from typing import Literal

from windlass import task


@task(max_tokens=30)
def kind(text: str) -> Literal["animal", "thing"]:
    """Say what the text is about."""
'''

KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_turning_tasks import Answering, PAID, SEARCH, helped, kind
from windlass.core.workspace import Workspace
from windlass.loop.turning.turn import turn_task
with Workspace(Path(sys.argv[1])) as ws:
    print("ready", flush=True)
    model = kind.using(model=Answering(helped))
    turn_task(ws, model, PAID, settings=SEARCH, tell=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=pytest.mark.slow) for stage in ("make 'prompt'", "race", "compare '", "promoted")],
)
def test_killed_anywhere_and_run_again(ws: Workspace, stage: str) -> None:
    traffic(ws, Answering(helped))
    here = Path(__file__)
    places = [str(ws.home), str(here.parent), str(here.parents[3]), str(here.parents[2] / "serve")]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *places], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(stage):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    turned = turn_task(ws, kind.using(model=Answering(helped)), PAID, settings=SEARCH)
    assert turned.promoted and turned.compared[-1].number == 1
    assert len(ws.store.artifacts(KIND)) == 1 and len(releases.history(ws, "kind")) == 2


@pytest.mark.slow
def test_a_real_student_on_the_command_line(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """From labelled items to a small encoder that serves the task, and back."""
    save_encoder(ws.home / "bert", "Bert", "Model", initializer_range=0.1)
    (ws.home / "kinds.py").write_text(FILE, encoding="utf-8")
    rows = [{"inputs": {"text": text}, "expected": label(text)} for text in texts(600)]
    (ws.home / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (ws.home / "windlass.toml").write_text('[model]\nbase_url = "http://127.0.0.1:9"\nmodel = "large"\n')
    words = [f"{ws.home / 'kinds.py'}:kind", "--items", str(ws.home / "items.jsonl"), "--workspace", str(ws.home)]
    assert main(["turn", *words]) == 2
    assert "--dollars" in capsys.readouterr().err
    with Workspace(ws.home) as own:
        weak = Answering(half, cost_usd=None)
        items = [Item(row["inputs"], row["expected"]) for row in rows]  # type: ignore[arg-type]
        quick = {"optimizer.matrix_rate": 3e-3, "data.batch": 8, "run.precision": "fp32"}
        teaching = Teaching(base=str(ws.home / "bert"), epochs=6.0, changes=quick)
        turned = turn_task(own, kind.using(model=weak), items=items, teaching=teaching)
    assert turned.promoted, turned.page.markdown()
    (ws.home / "served.py").write_text(FILE.replace("max_tokens=30", 'prompt="kind:live"'), encoding="utf-8")
    ask = ["run", f"{ws.home / 'served.py'}:kind", "--input", "text=on a cat sat", "--workspace", str(ws.home)]
    assert main(ask) == 0
    assert "animal" in capsys.readouterr().out


def test_a_better_prompt_that_costs_too_much_is_refused(ws: Workspace) -> None:
    model = Answering(helped)
    items = [Item({"text": text}, label(text)) for text in texts(360)]
    dear = Policy("score", limits=[Limit("cost_usd", at_most=0.001)])
    turned = turn_task(ws, kind.using(model=model), PAID, items=items, policy=dear, settings=SEARCH)
    assert not turned.promoted and turned.compared[0].decision == "NO-GO"
    assert "cost" in turned.page.verdict

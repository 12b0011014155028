"""A whole turn of an assistant on a small world: the race, one comparison, the report, kills, and made-up questions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.loop.loop_world import NoisyEmbedder, make_served_world, make_world

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.retrieving import RetrieveSettings
from windlass.build.adapt.contrastive import AdaptSettings
from windlass.cli.main import main
from windlass.core.errors import InputError
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.policy import Policy
from windlass.loop.assistants.variant import VariantSpec, read_variant
from windlass.loop.harvesting.harvest import check_leak, harvest, load_harvest
from windlass.loop.releasing import releases
from windlass.loop.releasing.routing import assigned
from windlass.loop.releasing.trial import end, must_run
from windlass.loop.turning.candidate import Recipe, first_variant
from windlass.loop.turning.comparison import turns_before
from windlass.loop.turning.curate import curate_questions
from windlass.loop.turning.spending import Limits
from windlass.loop.turning.synthetic import synthetic_questions
from windlass.loop.turning.turn import Plan, turn_assistant

EMBEDDER = NoisyEmbedder()
RECIPE = Recipe(adapt=AdaptSettings(rank=16, learning_rate=0.01, batch=32, lexical_weight=0.0))
QUICK = Plan(only=("weights", "ranks"))
WEAK = VariantSpec(settings=AssistantSettings(search=SearchSettings(dense=0.0)))


def prepare(home: Path) -> Workspace:
    """It searches by words alone."""
    return make_served_world(home, pages=200, spec=WEAK)


def test_the_best_of_several_is_compared_and_promoted(ws: Workspace) -> None:
    lines: list[str] = []
    turned = turn_assistant(ws, plan=QUICK, recipe=RECIPE, embedder=EMBEDDER, tell=lines.append)
    assert turned.promoted and len(turned.compared) == 1
    assert {one.name for one in turned.tried} == set(QUICK.only)
    assert turned.compared[0].number == 1 and turned.compared[0].error_rate == 0.025
    assert releases.live_variant(ws, "assistant").digest == turned.compared[0].candidate.digest
    assert turned.compared[0].gains[0].difference.low > 0
    assert turns_before(ws, ws.artifacts.get("exam")) == 1, "those that lost the race used no test question"
    text = (turned.report.path / "report.md").read_text()
    assert "PROMOTED" in text and "`windlass rollback assistant`" in text and "more of a hundred" in text
    assert dict(turned.report.record.parents)["experiment"] == turned.compared[0].experiment.digest

    again = turn_assistant(ws, plan=QUICK, recipe=RECIPE, embedder=EMBEDDER)
    assert again.resumed and again.promoted and again.report.digest == turned.report.digest
    assert len(releases.history(ws, "assistant")) == 2

    releases.rollback(ws, "assistant")
    third = turn_assistant(ws, plan=QUICK, recipe=RECIPE, embedder=EMBEDDER)
    assert third.resumed and not third.promoted and "rolled back since" in third.page.verdict
    assert turns_before(ws, ws.artifacts.get("exam")) == 1


def test_what_passes_may_go_to_some_users_first(ws: Workspace) -> None:
    plan = replace(QUICK, canary=0.2)
    before = releases.live_variant(ws, "assistant")
    turned = turn_assistant(ws, plan=plan, recipe=RECIPE, embedder=EMBEDDER)
    candidate = turned.compared[0].candidate.digest
    assert turned.trial is not None and not turned.promoted
    assert turned.trial.shares == {before.digest: 0.8, candidate: 0.2} and turned.trial.trial.promotes
    assert releases.live_variant(ws, "assistant").digest == before.digest
    assert "20 of a hundred users" in (turned.report.path / "report.md").read_text()
    users = [assigned(ws, "assistant", f"user-{n}").variant for n in range(500)]
    assert 50 <= users.count(candidate) <= 150, "of 500, a fifth are meant"

    again = turn_assistant(ws, plan=plan, recipe=RECIPE, embedder=EMBEDDER)
    assert again.resumed and again.trial is not None and again.trial.trial.id == turned.trial.trial.id
    end(ws, must_run(ws, "assistant"), "rolled back", "it failed", 1.0)
    third = turn_assistant(ws, plan=plan, recipe=RECIPE, embedder=EMBEDDER)
    assert third.trial is None and not third.promoted and "on trial" in third.page.verdict
    with pytest.raises(InputError, match="share between 0 and 1"):
        turn_assistant(ws, plan=replace(QUICK, canary=10), recipe=RECIPE, embedder=EMBEDDER)


@pytest.mark.slow
def test_vectors_that_learned_race_too(ws: Workspace) -> None:
    plan = Plan(only=("weights", "ranks", "adapter"), finalists=2)
    turned = turn_assistant(ws, plan=plan, recipe=RECIPE, embedder=EMBEDDER)
    assert len(turned.compared) <= 2
    assert all(one.gain is not None for one in turned.tried), "each was made, and raced"
    assert ws.store.artifacts("adapter"), "vectors that learned among them"


def test_where_nobody_gains_nothing_is_compared(ws: Workspace) -> None:
    same = Policy(primary="right_decision", guards={})  # what it answers at all is decided by the plain search
    turned = turn_assistant(ws, plan=Plan(only=("diverse",)), policy=same, embedder=EMBEDDER)
    assert not turned.promoted and not turned.compared
    assert turns_before(ws, ws.artifacts.get("exam")) == 0
    assert "no evidence was used up" in turned.page.verdict and "There is nothing to undo" in turned.page.markdown()


def test_what_there_is_no_time_for_is_named(ws: Workspace) -> None:
    only = ("weights", "reranker", "short")
    plan = Plan(Limits(minutes=1.0), only=only)
    turned = turn_assistant(ws, plan=plan, recipe=RECIPE, embedder=EMBEDDER)
    fates = {one.name: one.fate for one in turned.tried}
    assert "it takes about" in fates["reranker"] and "of 1 are left" in fates["reranker"]
    with pytest.raises(InputError, match="There is no candidate 'magic'"):
        turn_assistant(ws, plan=Plan(only=("magic",)), embedder=EMBEDDER)


def test_other_passages_and_a_second_search_are_candidates_too(ws: Workspace) -> None:
    plan = Plan(only=("sentences", "feedback"))
    turned = turn_assistant(ws, plan=plan, recipe=RECIPE, embedder=EMBEDDER)
    assert {one.name for one in turned.tried if one.gain is not None} == {"sentences", "feedback"}
    live = read_variant(releases.live_variant(ws, "assistant"))
    if turned.promoted:
        assert live != WEAK
    else:
        assert live.settings.retrieve == RetrieveSettings()


def test_when_to_decline_is_tuned_where_that_is_the_aim(ws: Workspace) -> None:
    policy = Policy(primary="right_decision", guards={})
    turned = turn_assistant(ws, plan=Plan(only=("abstention",)), policy=policy, embedder=EMBEDDER)
    (one,) = turned.tried
    assert one.name == "abstention"
    with pytest.raises(InputError, match="no candidate 'abstention'"):
        turn_assistant(ws, plan=Plan(only=("abstention",)), embedder=EMBEDDER)


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_turning_assistants import EMBEDDER, QUICK, RECIPE
from windlass.core.workspace import Workspace
from windlass.loop.turning.turn import turn_assistant
with Workspace(Path(sys.argv[1])) as ws:
    print("ready", flush=True)
    turn_assistant(ws, plan=QUICK, recipe=RECIPE, embedder=EMBEDDER, tell=lambda line: print(line, flush=True))
"""


def slowly(stage: str) -> object:
    return pytest.param(stage, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "stage", ["compare '", slowly("promoted"), slowly("make 'ranks'"), slowly("race"), slowly("  "), slowly("report")]
)
def test_killed_anywhere_and_run_again(ws: Workspace, stage: str) -> None:
    here = Path(__file__)
    command = [sys.executable, "-c", KILLED, str(ws.home), str(here.parent), str(here.parents[3])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(stage):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    turned = turn_assistant(ws, plan=QUICK, recipe=RECIPE, embedder=EMBEDDER)
    assert turned.promoted and turned.compared[-1].number == 1
    assert len(releases.history(ws, "assistant")) == 2
    assert len(ws.store.artifacts("experiment")) == 1 and len(ws.store.artifacts("report")) == 1


# what is learned from -----------------------------------------------------------------------------------------------


def test_curation_leaves_out_what_repeats_and_masks_people(ws: Workspace) -> None:
    exam = ws.artifacts.get("exam")
    harvested = harvest(ws, ws.artifacts.get("corpus"), exam)
    rows = [json.loads(line) for line in (harvested.path / "items.jsonl").read_text().splitlines()]
    long = "which of the many valves near the old northern pump house must be closed before the winter comes again"
    rows[0]["question"] = f"{long} please"
    rows[1]["question"] = f"{long} thanks"
    rows[2]["question"] = "who is jane.roe@acme-mills.com and what does she want"
    rows[3]["question"] = next(item.question for item in load_items(exam, "test")).upper()
    with ws.artifacts.build("dataset", "harvest") as draft:
        (draft.path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curated = curate_questions(ws, draft.done, exam)
    asked = [item.question for item in load_harvest(curated)]
    assert sum(long in question for question in asked) == 1
    assert curated.card["masked"] == {"email": 1} and not any("jane.roe" in question for question in asked)
    assert rows[2]["document"] in {item.document for item in load_harvest(curated)}
    assert curate_questions(ws, draft.done, exam).digest == curated.digest


def test_made_up_questions_are_marked_and_keep_away_from_the_exam(ws: Workspace) -> None:
    index, exam = ws.artifacts.get("index"), ws.artifacts.get("exam")
    made = synthetic_questions(ws, index, exam, EMBEDDER, most=60)
    items = load_harvest(made)
    assert made.card["synthetic"] is True and {item.how for item in items} == {"synthetic"}
    assert 10 < len(items) <= 60 and "Nobody asked them" in (made.path / "README.md").read_text()
    check_leak(made, exam)
    guarded = {item.cluster for item in load_items(exam) if item.split != "harvest"}
    assert not guarded & {item.cluster for item in items}
    assert synthetic_questions(ws, index, exam, EMBEDDER, most=60).digest == made.digest
    opened = HybridIndex.open(index, EMBEDDER)
    texts = dict.fromkeys({item.document for item in items}, "")
    for passage in opened.passages():
        texts[passage.document] = (
            texts.get(passage.document, "") + f" {passage.title} {passage.heading} {passage.quote}"
        )
    for item in items:
        words = [word for word in item.question.split() if word.isalpha() and len(word) > 6]
        assert all(word in texts[item.document] for word in words), "each is about its own document"


class Asking:
    """A model of tests that asks for the first words of what it is shown."""

    name, digest, structured = "asking", None, "schema"

    def __init__(self) -> None:
        self.asked = 0

    def complete(self, request: ChatRequest) -> ChatResponse:
        self.asked += 1
        words = request.messages[-1].text.replace("<", " ").replace(">", " ").split()
        said = Message("assistant", f"Where are {' '.join(words[3:9])} told?" if self.asked % 5 else "None.")
        return ChatResponse("i", self.name, said, "stop", Usage(30, output=10), 0.001)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        raise NotImplementedError


def test_a_model_writes_questions_within_its_budget(ws: Workspace) -> None:
    model = Asking()
    with pytest.raises(InputError, match="asking would be asked for up to 80 questions"):
        turn_assistant(ws, plan=QUICK, synthetic=model, most=80, embedder=EMBEDDER)
    plan = Plan(Limits(tokens=40 * 30), only=("ranks",))
    turned = turn_assistant(ws, plan=plan, synthetic=model, most=80, embedder=EMBEDDER)
    assert turned.dataset.card["by"] == "asking" and 0 < turned.dataset.card["items"] <= 24
    assert turned.dataset.card["skipped"]["not asked for, as the budget is spent"] == 1
    assert turned.dataset.card["skipped"]["without a question"] > 0 and model.asked == 30
    turn_assistant(ws, plan=plan, synthetic=model, most=80, embedder=EMBEDDER)
    assert model.asked == 30, "and none is paid for twice"


def test_a_turn_before_anybody_asked_says_so(tmp_path: Path) -> None:
    with make_world(tmp_path, pages=200) as ws:
        first = first_variant(ws, ws.artifacts.get("index"), ws.artifacts.get("exam"), EMBEDDER, spec=WEAK)
        releases.promote(ws, "assistant", first, None, "the first")
        with pytest.raises(InputError, match="No feedback"):
            turn_assistant(ws, plan=QUICK, embedder=EMBEDDER)
        turned = turn_assistant(ws, plan=QUICK, recipe=RECIPE, synthetic=True, most=200, embedder=EMBEDDER)
        assert turned.page.synthetic and "made-up questions" in turned.page.markdown()
        assert turned.dataset.card["synthetic"] is True


def test_a_turn_of_everything_on_the_command_line(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--workspace", str(ws.home)]
    assert main(["turn", *place]) == 2
    assert "not an embedder of this installation" in capsys.readouterr().err
    monkeypatch.setattr("windlass.loop.turning.turn.load_embedder", lambda index: EMBEDDER)
    assert main(["turn", "--only", "weights", "ranks", *place]) == 0
    shown = capsys.readouterr()
    assert "PROMOTED: 'assistant' now serves" in shown.out and "report:" in shown.out
    assert "race: weights, ranks on" in shown.err
    assert main(["turn", "--margin", "0.02", *place]) == 2
    assert "--margin is for a typed task" in capsys.readouterr().err
    assert main(["turn", "--metric", "magic", *place]) == 2
    assert "no metric 'magic'" in capsys.readouterr().err
    assert main(["turn", "--minutes", "0", *place]) == 2
    assert "that is nothing" in capsys.readouterr().err

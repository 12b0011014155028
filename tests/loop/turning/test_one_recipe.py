"""A whole turn on a small world: promotion, refusal, resumption after a kill, and what later turns must show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.loop.loop_world import NoisyEmbedder, make_served_world, make_world

from windlass.build.adapt.contrastive import AdaptSettings
from windlass.cli.main import main
from windlass.core.artifacts import Artifact
from windlass.core.errors import ConfigError, InputError, NotFound, WorkspaceBusy
from windlass.core.files import exclusive
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.deriving import derive_exam
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.exam.outcomes import Answer
from windlass.evaluate.exam.outcomes import ask as ask_each
from windlass.evaluate.experiments.stored import read_experiment
from windlass.evaluate.repeated import error_rate
from windlass.loop.assistants.assemble import load_assistant
from windlass.loop.assistants.measure import measure
from windlass.loop.assistants.variant import VariantSpec, make_variant, parts, read_variant
from windlass.loop.harvesting.harvest import harvest, load_harvest
from windlass.loop.lineage.following import lineage
from windlass.loop.lineage.tree import render_tree
from windlass.loop.releasing import releases
from windlass.loop.turning.candidate import Recipe, first_variant, make_candidate
from windlass.loop.turning.comparison import turns_before
from windlass.loop.turning.one_recipe import render_turn, turn
from windlass.loop.turning.users import AUTHOR, simulate_users

ADAPT = AdaptSettings(rank=16, learning_rate=0.01, batch=32, lexical_weight=0.0)
LEARNED = Recipe(adapt=ADAPT)
SHUFFLED = Recipe(kind="shuffled", adapt=ADAPT)
SAME = Recipe(kind="same", adapt=ADAPT)
EMBEDDER = NoisyEmbedder()


def prepare(home: Path) -> Workspace:
    return make_served_world(home)


def snapshot(ws: Workspace) -> tuple[list[str], list[str]]:
    """What is released, and the experiments there are."""
    rows = [row.variant for row in releases.history(ws, "assistant")]
    return rows, [record.digest for record in ws.store.artifacts("experiment")]


def test_a_better_candidate_is_promoted_and_a_worse_one_refused(ws: Workspace) -> None:
    lines: list[str] = []
    report = turn(ws, recipe=LEARNED, embedder=EMBEDDER, tell=lines.append)
    assert report.promoted and report.decision == "GO"
    assert (report.number, report.error_rate) == (1, 0.025)
    assert releases.live_variant(ws, "assistant").digest == report.candidate.digest
    experiment = read_experiment(report.experiment)
    assert experiment.comparison("ndcg@10").difference.low > 0
    assert experiment.incumbent.split == "test"
    assert {role for role, _ in report.experiment.record.parents} == {"exam", "dataset", "incumbent", "candidate"}
    assert any("harvested" in line for line in lines) and any("epoch 1" in line for line in lines)

    worse = turn(ws, recipe=SHUFFLED, embedder=EMBEDDER)
    assert not worse.promoted and worse.decision == "NO-GO"
    assert (worse.number, worse.error_rate) == (2, 0.05 / 8)
    assert read_experiment(worse.experiment).comparison("ndcg@10").difference.high < 0
    assert releases.live_variant(ws, "assistant").digest == report.candidate.digest
    assert "REFUSED" in render_turn(worse) and "PROMOTED" in render_turn(report)

    assert releases.rollback(ws, "assistant").variant == report.incumbent.digest
    again = turn(ws, recipe=LEARNED, embedder=EMBEDDER)
    assert again.resumed and not again.promoted and "rolled back since" in again.reason
    assert turns_before(ws, ws.artifacts.get("exam")) == 2


def test_run_again_repeats_the_verdict_without_another_test(ws: Workspace) -> None:
    first = turn(ws, recipe=LEARNED, embedder=EMBEDDER)
    before = snapshot(ws)
    again = turn(ws, recipe=LEARNED, embedder=EMBEDDER)
    assert again.resumed and again.promoted
    assert again.experiment.digest == first.experiment.digest
    assert snapshot(ws) == before


def test_a_candidate_that_changes_nothing_is_refused(ws: Workspace) -> None:
    report = turn(ws, recipe=SAME, embedder=EMBEDDER)
    assert not report.promoted
    difference = read_experiment(report.experiment).comparison("ndcg@10").difference
    assert (difference.low, difference.high) == (0.0, 0.0)


def test_lineage_leads_from_an_answer_of_the_new_variant_to_the_feedback(ws: Workspace) -> None:
    turn(ws, recipe=LEARNED, embedder=EMBEDDER)
    question = load_items(ws.artifacts.get("exam"), "harvest")[0].question
    answer = load_assistant(ws, embedder=EMBEDDER).complete(ChatRequest([Message("user", question)]))
    ws.recorder.flush()
    graph = lineage(ws, answer.trace_id or "")
    kinds = {node.kind for node in graph.nodes}
    assert {"answer", "variant", "index", "adapter", "dataset", "traces", "corpus", "release", "experiment"} <= kinds
    (traces,) = (node for node in graph.nodes if node.kind == "traces")
    assert all(ws.store.trace(trace) for trace in traces.detail["traces"])
    assert "harvested from" in render_tree(graph)


def test_users_speak_once_and_say_who_they_are(ws: Workspace) -> None:
    items = load_items(ws.artifacts.get("exam"), "harvest")
    scores = ws.store.scores(name="feedback")
    assert len(scores) == sum(item.answerable for item in items)
    assert all(score.author == AUTHOR and score.metadata["simulated"] is True for score in scores)
    assert all(ws.store.trace(score.subject) for score in scores)
    again = simulate_users(ws, load_assistant(ws, embedder=EMBEDDER), items)
    assert (again.asked, again.already) == (0, len(scores))
    with pytest.raises(ValueError, match="harvest questions only"):
        simulate_users(ws, load_assistant(ws, embedder=EMBEDDER), load_items(ws.artifacts.get("exam"), "test"))


def test_measuring_all_at_once_equals_asking_one_by_one(ws: Workspace) -> None:
    assistant = load_assistant(ws, embedder=EMBEDDER)
    items = load_items(ws.artifacts.get("exam"), "test")

    def system(question: str) -> Answer:
        response = assistant.complete(ChatRequest([Message("user", question)]))
        found = [hit.citation.document for hit in assistant.index.search(question, 50)]
        return Answer(found, response.abstained)

    one_by_one = [replace(outcome, latency_ms=None) for outcome in ask_each(items, system)]
    together = [replace(outcome, confidence=None) for outcome in measure(assistant, items)]
    assert together == one_by_one
    assert {outcome.abstained for outcome in together} == {True, False}


def test_error_rates_add_up_under_every_history() -> None:
    total = sum(2 ** (k - 1) * error_rate(k, 0.05) for k in range(1, 60))
    assert total == pytest.approx(0.05)
    assert total <= 0.05


def test_an_exam_that_shares_questions_counts_earlier_turns(ws: Workspace) -> None:
    exam, corpus = ws.artifacts.get("exam"), ws.artifacts.get("corpus")
    turn(ws, recipe=SAME, embedder=EMBEDDER)
    assert turns_before(ws, exam) == 1
    assert turns_before(ws, derive_exam(ws, corpus, seed=1, name="another")) == 1


# what must not happen -----------------------------------------------------------------------------------------------


def test_refuses_without_release_exam_or_feedback(tmp_path: Path) -> None:
    with make_world(tmp_path, pages=80) as ws:
        with pytest.raises(NotFound, match="Nothing is released"):
            turn(ws, embedder=EMBEDDER)
        first = first_variant(ws, ws.artifacts.get("index"), ws.artifacts.get("exam"), EMBEDDER)
        releases.promote(ws, "assistant", first, None, "the first")
        with pytest.raises(InputError, match="No feedback"):
            turn(ws, embedder=EMBEDDER)
        with exclusive(ws.root / "turn-assistant.lock", "a turn"), pytest.raises(WorkspaceBusy):
            turn(ws, embedder=EMBEDDER)


def test_a_dataset_with_an_exam_question_is_not_trained_on(ws: Workspace) -> None:
    exam, incumbent = ws.artifacts.get("exam"), releases.live_variant(ws, "assistant")
    harvested = harvest(ws, ws.artifacts.get("corpus"), exam)
    tested = load_items(exam, "test")[0]
    with ws.artifacts.build("dataset", "leaky") as draft:
        text = (harvested.path / "items.jsonl").read_text()
        (draft.path / "items.jsonl").write_text(text.replace(load_harvest(harvested)[0].question, tested.question))
    with pytest.raises(InputError, match="a comparison would be worthless"):
        make_candidate(ws, incumbent, draft.done, exam, EMBEDDER, LEARNED)
    assert ws.store.artifacts("adapter") == []


def test_variants_are_read_strictly(ws: Workspace) -> None:
    variant = releases.live_variant(ws, "assistant")
    assert parts(ws, variant) == (ws.artifacts.get("index"), None)
    spec = read_variant(variant)
    assert make_variant(ws, spec, ws.artifacts.get("index")).digest == variant.digest
    assert read_variant(make_variant(ws, VariantSpec(), ws.artifacts.get("index"))) == VariantSpec()
    (variant.path / "variant.json").write_text('{"task": "assistant", "setings": {}}')
    with pytest.raises(Exception, match="unknown key 'setings'"):
        read_variant(variant)
    (variant.path / "variant.json").write_text("cut o")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_variant(variant)
    with pytest.raises(InputError, match="not a variant"):
        read_variant(ws.artifacts.get("index"))


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_one_recipe import EMBEDDER, LEARNED
from windlass.core.workspace import Workspace
from windlass.loop.turning.one_recipe import turn
with Workspace(Path(sys.argv[1])) as ws:
    print("ready", flush=True)
    turn(ws, recipe=LEARNED, embedder=EMBEDDER, tell=lambda line: print(line, flush=True))
"""


def slowly(stage: str) -> object:
    return pytest.param(stage, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "stage", ["compare on", "GO", slowly("harvested"), slowly("epoch 2"), slowly("adapt the index")]
)
def test_killed_anywhere_and_run_again(ws: Workspace, stage: str) -> None:
    """After a kill at each stage: nothing half promoted, and the next turn ends as an undisturbed one does."""
    command = [sys.executable, "-c", KILLED, str(ws.home), str(Path(__file__).parent), str(Path(__file__).parents[3])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(stage):
            if stage == "compare on":
                time.sleep(float(np.random.default_rng().uniform(0, 0.3)))
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    rows, experiments = snapshot(ws)
    assert len(rows) <= 2 and len(experiments) <= 1
    if len(rows) == 2:
        assert releases.history(ws, "assistant")[0].experiment == experiments[0]
    for record in ws.store.artifacts():
        ws.artifacts.verify(Artifact(record, ws.artifacts.folder / record.digest))
    report = turn(ws, recipe=LEARNED, embedder=EMBEDDER)
    assert report.promoted and report.number == 1
    rows, experiments = snapshot(ws)
    assert (len(rows), len(experiments)) == (2, 1)


def test_turn_on_the_command_line(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--workspace", str(ws.home)]
    assert main(["turn", *place]) == 2
    assert "not an embedder of this installation" in capsys.readouterr().err
    for place_of in ("windlass.loop.turning.one_recipe", "windlass.loop.turning.turn"):
        monkeypatch.setattr(f"{place_of}.load_embedder", lambda index: EMBEDDER)
    assert main(["turn", "--shuffled", *place]) == 3
    assert "REFUSED: 'assistant' goes on serving assistant@1" in capsys.readouterr().out
    status = main(["turn", "--only", "adapter", *place])
    shown = capsys.readouterr()
    assert ("PROMOTED" in shown.out) == (status == 0)
    assert "a search that learned from the questions" in shown.out
    assert "epoch 1: loss" in shown.err

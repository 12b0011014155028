"""Releases, traces, feedback, lineage, artifacts and runs on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.loop.releasing import releases


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with Workspace(tmp_path) as ws:
        for name in ("first", "second"):
            with ws.runs.start("adapt", name, seed=1) as run, ws.artifacts.build("variant", name, run=run.id) as draft:
                (draft.path / "variant.json").write_text(f'"{name}"')
                draft.card = {"purpose": name}
                for step in range(10):
                    run.log(step, loss=10.0 - step)
            releases.promote(ws, "assistant", draft.done, None, f"the {name}")
        with ws.recorder.span("assistant") as root:
            root.input = [{"role": "user", "content": "How is a rope spliced?"}]
            root["windlass.variant.digest"] = draft.done.digest
            root["gen_ai.response.id"] = "chatcmpl-77"
            with ws.recorder.span("generate", "chat") as call:
                call.attributes.update({"gen_ai.usage.input_tokens": 1200, "windlass.cost.usd": None})
            root.output = {"role": "assistant", "content": "By tucking strands."}
    yield tmp_path


def say(home: Path, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main([*words, "--workspace", str(home)]) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_releases_and_rollback(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = say(home, capsys, "releases")
    assert listing.index("second@1") < listing.index("first@1")
    assert listing.count("LIVE") == 1
    assert "serves first@1" in say(home, capsys, "rollback", "--reason", "too slow")
    assert "too slow" in say(home, capsys, "releases", "assistant")
    assert "nothing before it" in say(home, capsys, "rollback", status=2)
    assert "Nothing is released" in say(home, capsys, "rollback", "unknown", status=2)


def test_a_variant_of_another_task_is_not_promoted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt task would be released, by the looks of it, and nobody served by it."""
    with Workspace(home) as ws, ws.artifacts.build("variant", "assistant") as draft:
        (draft.path / "variant.json").write_text('{"task": "assistant"}')
    words = ("promote", "asistant", "assistant@1", "--reason", "better")
    assert "carries out the task 'assistant', not 'asistant'" in say(home, capsys, *words, status=2)
    assert "Nothing is released" in say(home, capsys, "rollback", "asistant", status=2)
    assert "serves assistant@1" in say(home, capsys, "promote", "assistant", *words[2:])


def test_a_running_trial_stands_below_the_releases(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "canary" not in say(home, capsys, "releases")
    say(home, capsys, "canary", "start", "assistant", "first@1", "--share", "0.2")
    listing = say(home, capsys, "releases")
    assert "canary of 'assistant'" in listing and "20.0%" in listing
    assert "What must hold: failed at most 0.02 worse." in listing
    say(home, capsys, "canary", "stop", "assistant")
    assert "canary" not in say(home, capsys, "releases")
    assert "stopped by hand" in say(home, capsys, "releases", "assistant")


def test_an_index_is_promoted_by_what_answers_from_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(home) as ws, ws.artifacts.build("index", "docs") as draft:
        (draft.path / "index.json").write_text("{}")
    assert "serves assistant@1" in say(home, capsys, "promote", "assistant", "docs", "--reason", "the first")
    with Workspace(home) as ws:
        assert releases.live_variant(ws, "assistant").parent("index") == draft.done.digest


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--canary", "2"], "share between 0 and 1"),
        (["--finalists", "0"], "0 finalists are none"),
        (["--minutes", "0"], "that is nothing"),
        (["--margin", "0.1"], "is for a typed task"),
    ],
)
def test_a_turn_that_makes_no_sense_is_refused_at_once(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert why in say(home, capsys, "turn", *words, status=2)


def test_a_margin_is_a_share(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 for 2 of a hundred would let anything through that is faster."""
    assert "share of the answers, not 2" in say(home, capsys, "turn", "kinds.py:kind", "--margin", "2", status=2)


def test_traces_as_list_and_waterfall(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = say(home, capsys, "traces")
    assert "How is a rope spliced?" in listing
    assert "1,200 + ?" in listing
    trace = listing.splitlines()[2].split()[0]
    shown = say(home, capsys, "traces", trace)
    assert "  generate" in shown
    assert "1,200 + ? tokens, cost unknown" in shown
    assert "answered  By tucking strands." in shown
    assert shown == say(home, capsys, "traces", "chatcmpl-77")
    assert "no trace 'ffffffff'" in say(home, capsys, "traces", "ffffffff", status=2)


def test_feedback_is_stored_and_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "down, by ann" in say(home, capsys, "feedback", "chatcmpl-77", "down", "--document", "d1", "--author", "ann")
    assert "feedback=0" in say(home, capsys, "traces")
    with Workspace(home) as ws:
        (score,) = ws.store.scores(name="feedback")
    assert (score.source, score.metadata) == ("user", {"correct_document": "d1"})


def test_lineage_as_text_and_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "variant second@1" in say(home, capsys, "lineage", "chatcmpl-77")
    graph = json.loads(say(home, capsys, "lineage", "second", "--json"))
    assert {node["kind"] for node in graph["nodes"]} == {"variant", "release", "run"}
    assert "no trace, response or artifact" in say(home, capsys, "lineage", "nothing", status=2)


def test_artifacts_and_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing = say(home, capsys, "artifacts", "--kind", "variant")
    assert listing.count(" variant ") == 2
    shown = say(home, capsys, "artifacts", "first@1", "--verify")
    assert '"purpose": "first"' in shown
    assert "files as they were stored" in shown
    with Workspace(home) as ws:
        artifact = ws.artifacts.get("first")
    (artifact.path / "variant.json").chmod(0o644)
    (artifact.path / "variant.json").write_text("changed")
    assert "was changed" in say(home, capsys, "artifacts", "first", "--verify", status=1)
    runs = say(home, capsys, "runs")
    assert runs.count("done") == 2
    identifier = artifact.record.run or ""
    assert "█▇▆▆▅▄▃▃▂▁" in say(home, capsys, "runs", identifier)
    assert "no run 'x'" in say(home, capsys, "runs", "x", status=2)
    other = runs.splitlines()[3].split()[0]
    assert "The settings are the same." in say(home, capsys, "runs", "compare", identifier, other)
    assert "10 points" in say(home, capsys, "runs", "export", identifier, str(home / "out"), "--to", "csv")
    assert (home / "out" / f"{identifier}.csv").read_text().startswith("step,loss\n0,10.0\n")
    assert "format" in say(home, capsys, "runs", "export", identifier, str(home), status=2)
    assert "needs a run" in say(home, capsys, "runs", "export", identifier, status=2)
    assert "at least two" in say(home, capsys, "runs", "compare", identifier, status=2)
    assert "not understood" in say(home, capsys, "runs", identifier, other, status=2)


def test_an_empty_workspace_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(tmp_path):
        pass
    for command in ("releases", "traces", "artifacts", "runs"):
        assert "windlass" in say(tmp_path, capsys, command)


def test_traces_of_evaluations_are_not_passed_over_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Workspace(tmp_path) as ws:
        with ws.recorder.span("evaluate tone") as span:
            span["windlass.evaluation"] = "an evaluation"
        ws.recorder.flush()
    assert "windlass traces --evaluations" in say(tmp_path, capsys, "traces")
    assert "evaluate tone" in say(tmp_path, capsys, "traces", "--evaluations")

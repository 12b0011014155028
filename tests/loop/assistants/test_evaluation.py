"""Variants are scored and compared on the exam of their index; nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.loop.loop_world import NoisyEmbedder, make_world

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.index import build_index
from windlass.cli.main import main
from windlass.core.errors import InputError, NotFound
from windlass.core.workspace import Workspace
from windlass.loop.assistants.evaluation import compare_variants, evaluate_variant
from windlass.loop.assistants.variant import VariantSpec, make_variant
from windlass.loop.releasing.releases import promote


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    ws = make_world(tmp_path_factory.mktemp("world") / "home", pages=250)
    index = ws.artifacts.get("index")
    first = make_variant(ws, VariantSpec(), index, name="plain")
    mute = AssistantSettings(abstention=AbstentionRule(threshold=1.0))
    make_variant(ws, VariantSpec(settings=mute), index, name="mute")
    promote(ws, "assistant", first, None, "the first")
    return ws


def test_what_is_live_is_scored_on_its_exam(world: Workspace) -> None:
    found = evaluate_variant(world, "live", embedder=NoisyEmbedder())
    counts = world.artifacts.get("exam").card["counts"]["test"]
    assert found.items == counts["answerable"] + counts["unanswerable"]
    assert found.metrics["ndcg@10"].n == counts["answerable"]
    assert 0 < found.metrics["ndcg@10"].low < 1
    assert not world.store.traces(), "an exam is no traffic"


def test_comparison_is_paired_and_promotes_nothing(world: Workspace) -> None:
    before = world.store.releases("assistant")
    experiment = compare_variants(world, "mute", "live", embedder=NoisyEmbedder())
    assert (experiment.incumbent.variant, experiment.candidate.variant) == ("plain@1", "mute@1")
    assert experiment.comparison("ndcg@10").difference.estimate == 0
    assert all(one.output["abstained"] for one in experiment.candidate.items)
    assert experiment.verdict.decision == "NO-GO"
    assert world.store.releases("assistant") == before


def test_what_cannot_be_compared_is_refused(world: Workspace, tmp_path: Path) -> None:
    bare = build_index(world, world.artifacts.get("corpus"), NoisyEmbedder(), name="bare")
    make_variant(world, VariantSpec(), bare, name="unexamined")
    with pytest.raises(InputError, match="without an exam"):
        evaluate_variant(world, "unexamined", embedder=NoisyEmbedder())
    with pytest.raises(InputError, match="not a variant"):
        evaluate_variant(world, "corpus", embedder=NoisyEmbedder())
    with Workspace(tmp_path) as empty, pytest.raises(NotFound, match="Nothing is released"):
        evaluate_variant(empty, "live")


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Workspace(tmp_path).close()
    assert main(["eval", "live", "--workspace", str(tmp_path)]) == 2
    assert "Nothing is released" in capsys.readouterr().err

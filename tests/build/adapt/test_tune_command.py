"""`windlass tune` as a person types it: a look before training, and learning from the workspace's own traces."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_world import WORDS, save_encoder
from safetensors.torch import save_file
from tuned_world import asked, echoes, make_home, write_rows

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import build_index
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.tuning import OBJECTIVES
from windlass.cli.main import main
from windlass.core.documents import Document, write_documents
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.conversations import Wanted, form_of, harvest_conversations
from windlass.loop.harvesting.feedback import give_feedback

QUICK = ("--set", "run.compile=no", "--set", "run.precision=fp32", "--steps", "2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("home"))
    write_rows(home / "rows.jsonl", echoes(40))
    return home


def say(home: Path, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert (
        main(["tune", *words, "--workspace", str(home), *(["--device", "cpu"] if words[0] == "chat" else [])]) == status
    )
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_a_check_prints_the_report_and_stops(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = str(home / "rows.jsonl")
    exam = f'data.evaluation=["{write_rows(home / "exam.jsonl", echoes(40)[:1])}"]'
    shown = say(home, capsys, "chat", "--base", "base", "--data", rows, *QUICK, "--check", "--set", exam)
    leaks, kept = re.search(r"leakage into evaluation +(\d+)", shown), re.search(r"curated: (\d+) of 40 rows", shown)
    assert leaks is not None and kept is not None  # the report is of what was given, before curation
    assert int(leaks[1]) == 40 - int(kept[1]) > 0
    for told in ("tokens learned", "exact duplicates", "memory in all", "parameters trained", "ready to train", "█"):
        assert told in shown
    with Workspace(home) as ws:
        assert not ws.runs.list("tune")


def test_traces_are_learned_from(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Workspace(home) as ws:
        for number, row in enumerate(echoes(30, seed=5)):
            with ws.recorder.span("painter", "chat") as span:
                span.input = [{"role": "user", "content": f"{row['messages'][0]['content']} {number}"}]
                span.output = row["messages"][1]
            ws.recorder.flush()
            give_feedback(ws, span.trace_id, good=number % 3 > 0)
    shown = say(home, capsys, "chat", "--base", "base", "--from", "traces", "--task", "painter", *QUICK)
    assert "conversations@1: 20 examples from traces (20 approved)" in shown
    assert "left out: 10 rejected without a better answer" in shown
    with Workspace(home) as ws:
        tuned = ws.artifacts.get("tuned")
        assert tuned.parent("dataset") == ws.artifacts.get("conversations").digest


def test_an_index_teaches_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(tmp_path / "bert", "Bert", "Model")
    monkeypatch.setattr("windlass.loop.assistants.assemble.load_embedder", lambda index: HashingEmbedder())
    with Workspace(tmp_path) as ws:
        texts = [" ".join(WORDS[n:] + WORDS[:n])[:60] for n in range(10)]
        documents = [
            Document(f"d{n}", f"d{n}", "", f"{text.capitalize()}. {text.title()} {n}.") for n, text in enumerate(texts)
        ]
        with ws.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", documents)
        build_index(ws, draft.done, HashingEmbedder(), name="notes")
    asked = ("rank", "--from", "index", "--index", "notes", "--base", str(tmp_path / "bert"), "--name", "ranker")
    shown = say(tmp_path, capsys, *asked, *QUICK)
    assert "ranking@1: 10 questions (0 of users, 10 headings and sentences of the documents)" in shown
    with Workspace(tmp_path) as ws:
        ranker = ws.artifacts.get("ranker")
        assert ranker.parent("dataset") == ws.artifacts.get("ranking").digest
    wrong = say(tmp_path, capsys, "classify", "--from", "index", "--base", str(tmp_path / "bert"), status=2)
    assert "an index teaches ranking" in wrong


def test_options_that_contradict_each_other_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = say(home, capsys, "chat", "--data", "x.jsonl", "--from", "traces", status=2)
    assert "Both --data and --from traces are given" in both
    alone = say(home, capsys, "chat", "--data", "x.jsonl", "--minimum", "0", status=2)
    assert "Add --from traces" in alone
    lost = say(home, capsys, "rank", "--data", "x.jsonl", "--questions", "harvest", status=2)
    assert "Add --from index" in lost
    several = say(home, capsys, "chat", "--data", "x.jsonl", "--search", "2", "--workers", "2", status=2)
    assert "A search trains with one worker" in several
    assert "RANK" not in os.environ


def test_every_objective_of_questions_and_answers_learns_from_traces(home: Path, tmp_path: Path) -> None:
    save_encoder(tmp_path / "bert", "Bert", "Model")
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("model", "base") as draft, Workspace(home) as other:
            shutil.copytree(other.artifacts.get("base").path, draft.path, dirs_exist_ok=True)
        for number in range(24):
            for good in (True, False):
                with ws.recorder.span("painter", "chat") as span:
                    span.input = [{"role": "user", "content": f"{WORDS[number % 12]} {WORDS[number // 12]}"}]
                    span.output = {"role": "assistant", "content": f"{number % 2 if good else 5}"}
                ws.recorder.flush()
                give_feedback(ws, span.trace_id, good=good)
        for kind in ("sft", "dpo", "orpo", "simpo", "reward", "kto", "grpo", "ppo", "classify", "regress"):
            dataset = harvest_conversations(ws, Wanted("painter", form_of(kind)), None)
            assert dataset.card["items"] == (48 if kind == "kto" else 24)
            encoder = kind in ("classify", "regress")
            more = {"rl__rewards": ["number"], "rl__answer_tokens": 3} if kind in ("grpo", "ppo") else {}
            base = str(tmp_path / "bert") if encoder else "base"
            settings = asked(dataset.digest, model__base=base, objective__kind=kind, **more)
            prepared = OBJECTIVES[kind](open_inputs(ws, settings))
            assert len(prepared.examples) > 0, kind


REFUSED: dict[str, tuple[str, list[Any], tuple[str, ...], str]] = {
    "three rows": ("chat", echoes(3), (), "3 different examples, too few"),
    "no rows": ("chat", [], (), "holds no rows"),
    "row 17 broken": ("chat", [*echoes(16), '{"messages": ['], (), ":17: row not JSON"),
    "a column missing": ("chat", [*echoes(10), {"text": "x"}], (), "row 11: the columns are text"),
    "equal answers": ("dpo", [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 8, (), "row 1: chosen and"),
    "a reward of NaN": (
        "reward",
        [
            *({"prompt": "a", "completion": f"{n}", "reward": n} for n in range(7)),
            '{"prompt": "a", "completion": "b", "reward": NaN}',
        ],
        (),
        "row 8: the reward is NaN",
    ),
    "a template that leaves the assistant out": ("chat", echoes(8), ("model.template=silent.jinja",), "no token of it"),
    "a decoder to classify": (
        "classify",
        [{"text": f"{n}", "label": n % 2} for n in range(8)],
        (),
        "which trains encoders",
    ),
    "other roles": (
        "chat",
        [{"messages": [{"role": role, "content": f"{n}"} for role in ("human", "bot")]} for n in range(8)],
        (),
        "its roles are human, bot.",
    ),
    "a folder": ("chat", echoes(8), ("data.dataset=.",), "is a folder, not a file of rows"),
    "nothing there": ("chat", echoes(8), ("data.dataset=nowhere.jsonl",), "neither a file nor an artifact"),
    "an adapter of another base": ("chat", echoes(8), ("model.adapter_from=strange",), "was trained on a base whose"),
    "an adapter's folder without one": ("chat", echoes(8), ("model.adapter_from=hollow",), "config.json is missing"),
    "a name that cannot be": ("chat", echoes(8), ("run.name=a b",), "'a b' cannot be the name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_error_before_training(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    recipe, rows, changes, told = REFUSED[case]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    silent = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    (tmp_path / "silent.jinja").write_text(silent, encoding="utf-8")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}', encoding="utf-8")
    (tmp_path / "strange/base.json").write_text('{"weights": "0"}', encoding="utf-8")
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "strange/adapter_model.safetensors")
    (tmp_path / "hollow").mkdir()
    monkeypatch.chdir(tmp_path)
    with Workspace(home) as ws:
        before = len(ws.runs.list("tune"))
        stored = len(ws.store.artifacts("adapter"))
    words = [word for change in ("data.dataset=rows.jsonl", *changes) for word in ("--set", change)]
    assert main(["tune", recipe, "--base", "base", *words, *QUICK, "--workspace", str(home), "--device", "cpu"]) == 2
    shown = capsys.readouterr().err
    assert told in shown and "Traceback" not in shown and shown.count("windlass:") == 1
    with Workspace(home) as ws:
        tried = ws.runs.list("tune")[: len(ws.runs.list("tune")) - before]
        assert not any(ws.store.metrics(run.id) for run in tried) and len(ws.store.artifacts("adapter")) == stored


@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize("recipe", ["instruct", "dpo", "grpo", "seq2seq"])
def test_an_objective_that_does_not_fit_is_told_before_the_rows_are_looked_at(
    home: Path, capsys: pytest.CaptureFixture[str], recipe: str, check: tuple[str, ...]
) -> None:
    """What is wrong with the rows for one architecture, or with its template, may be right for another."""
    if not (home / "bert").exists():
        save_encoder(home / "bert", "Bert", "Model")
    rows = write_rows(home / "labelled.jsonl", [{"text": f"{n}", "label": n % 2} for n in range(8)])
    shown = say(home, capsys, recipe, "--base", str(home / "bert"), "--data", str(rows), *QUICK, *check, status=2)
    assert "which trains decoders" in shown and "bert is an encoder." in shown
    assert "What trains an encoder: classify" in shown

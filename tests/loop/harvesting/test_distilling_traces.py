"""A small model takes over a typed task: from calls to a provider, over their traces, to a model that is served."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from encoder_world import save_encoder
from engine_world import make_folder
from tests.apply.provider_world import Loopback, reply

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.conversations import Wanted, harvest_conversations
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.lineup import load_lineup

TASK = '''
from typing import Literal

from windlass import task


@task(max_tokens=30, attempts=2)
def topic(text: str) -> Literal["animal", "thing"]:
    """Say what the text is about."""
'''
ANIMALS, THINGS = ("cat", "violin", "bread"), ("pump", "water", "mat")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}" + (
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = {
    f"{before} {word} {after}": "animal" if word in ANIMALS else "thing"
    for word in (*ANIMALS, *THINGS)
    for before in ("the old", "on a")
    for after in ("sat", "moves")
}


def said(label: str) -> tuple[int, dict[str, str], bytes]:
    return reply(json.dumps({"value": label}))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a large model was asked: once it had to be asked again, and once no answer fitted."""
    home = tmp_path_factory.mktemp("home")
    (home / "topics.py").write_text(TASK, encoding="utf-8")
    save_encoder(home / "bert", "Bert", "Model", initializer_range=0.1)
    make_folder(home / "base", context=1024, template=TEMPLATE)
    with Loopback() as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        (home / "windlass.toml").write_text(f'[model]\nbase_url = "{server.url}"\nmodel = "large"\n')
        assert main(["init"]) == 0

        def ask(text: str, *labels: str) -> int:
            server.answer(*map(said, labels))
            return main(["run", "topics.py", "--input", f"text={text}"])

        for number, (text, label) in enumerate(TEXTS.items()):
            assert ask(text, *(["plant", label] if number == 3 else [label])) == 0
        assert ask("a riddle", "plant", "stone") == 1
    return home


def tune(home: Path, *words: str) -> int:
    quick = ("--set", "run.precision=fp32", "--set", "data.batch=8", "--workspace", str(home), "--device", "cpu")
    return main(["tune", *words, "--from", "traces", "--task", "topic", *quick])


def items(ws: Workspace, name: str) -> list[dict[str, Any]]:
    text = (ws.artifacts.get(name).path / "items.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_an_encoder_takes_a_task_over_from_its_teacher(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--base", str(home / "bert"), "--teacher", "large", "--steps", "80", "--name", "topics")
    assert tune(home, "classify", *words, "--set", "optimizer.matrix_rate=3e-3") == 0
    shown = capsys.readouterr().out
    assert f"{len(TEXTS)} examples from traces ({len(TEXTS)} taught)" in shown
    assert "left out: 1 whose call failed" in shown
    with Workspace(home) as ws:
        model = ws.artifacts.get("topics")
        rows = items(ws, str(model.parent("dataset")))
        assert {row["text"]: row["label"] for row in rows} == TEXTS  # also of what had to be asked again
        served = load_lineup(ws, ["topics"]).classifiers["topics"]
        found = served.classify(list(TEXTS)).probabilities.argmax(1)
    right = sum(served.labels[number] == label for number, label in zip(found, TEXTS.values(), strict=True))
    assert served.labels == ("animal", "thing") and right >= 0.9 * len(TEXTS)


def test_a_decoder_learns_what_its_teacher_answered_at_last(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--base", str(home / "base"), "--teacher", "large", "--steps", "2", "--name", "writer")
    assert tune(home, "chat", *words, "--set", "run.compile=no") == 0
    assert f"({len(TEXTS)} taught)" in capsys.readouterr().out
    with Workspace(home) as ws:
        adapter = ws.artifacts.get("writer")
        rows = items(ws, str(adapter.parent("dataset")))
    assert adapter.kind == "adapter"
    talks = [[turn["role"] for turn in row["messages"]] for row in rows]
    assert Counter(map(tuple, talks)) == {("system", "user", "assistant"): len(TEXTS)}
    answers = {row["messages"][1]["content"]: json.loads(row["messages"][2]["content"]) for row in rows}
    assert answers == {text: {"value": label} for text, label in TEXTS.items()}


def test_a_teacher_that_never_answered_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(home, "classify", "--base", str(home / "bert"), "--teacher", "larger") == 2
    told = capsys.readouterr().err
    assert "No trace of 'topic' can be learned from" in told and "25 without an answer of larger" in told


def test_what_people_said_of_a_task_is_learned_too(home: Path) -> None:
    """Approval, and the answer in the place of a wrong one."""
    with Workspace(home) as ws:
        traces = {one.root.input["text"]: one.root.trace_id for one in ws.store.traces(name="topic", limit=100)}
        right, wrong = list(TEXTS)[:2]
        give_feedback(ws, traces[right], good=True)
        give_feedback(ws, traces[wrong], good=False, correct_answer="thing")
        rows = items(ws, harvest_conversations(ws, Wanted("topic", "texts"), None).digest)
    assert {row["text"]: (row["label"], row["how"]) for row in rows} == {
        right: (TEXTS[right], "approved"), wrong: ("thing", "corrected"),
    }  # fmt: skip

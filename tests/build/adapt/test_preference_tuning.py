"""Preference optimisation from end to end on a tiny decoder: a planted preference is learned by every objective."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from windlass.build.adapt.data.answers import CHOSEN, MISMATCHED, REJECTED, AnswerExamples, Answers
from windlass.build.adapt.data.conversations import Encoded
from windlass.build.adapt.objectives import preference
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES, tune
from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import train_tokenizer
from windlass.build.tokenizer.chat import CHATML
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.loop import accumulate
from windlass.build.training.objectives import arithmetic
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.build.transformer.adapters.recipe import WEIGHTS
from windlass.build.transformer.hf import load_model
from windlass.build.transformer.reward_model import load_reward_model
from windlass.core.errors import InputError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

GOOD, BAD = ("red", "blue", "green"), ("black", "white", "brown")
WORDS = (*GOOD, *BAD)
PAIRED = ("dpo", "orpo", "simpo", "reward")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A workspace with a tiny pre-trained decoder that knows a chat format."""
    home = tmp_path_factory.mktemp("home")
    texts = home / "texts"
    texts.mkdir()
    generator = random.Random(0)
    for i in range(20):
        (texts / f"{i}.txt").write_text(" ".join(generator.choices(WORDS, k=200)), encoding="utf-8")
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2))
        tokenizer = train_tokenizer(ws, corpus, 330, allow_smaller=True, chat_template=CHATML)
        settings = read_recipe(
            None,
            {
                "model.depth": 1, "model.context": 96, "schedule.steps": 5, "run.compile": "no", "data.batch": 4,
                "run.name": "base",
            },
        )  # fmt: skip
        pretrain(ws, corpus, tokenizer, settings, say=lambda line: None)
    return home


def pairs(path: Path, count: int = 60) -> Path:
    """Answers of one to three colours; those with good ones are preferred."""
    generator = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            asked = " ".join(generator.choices(WORDS, k=generator.randint(2, 5)))
            chosen, rejected = (" ".join(generator.choices(kind, k=generator.randint(1, 3))) for kind in (GOOD, BAD))
            file.write(json.dumps({"prompt": asked, "chosen": chosen, "rejected": rejected}) + "\n")
    return path


def singles(path: Path, count: int = 60) -> Path:
    generator = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            label = generator.random() < 0.4
            asked = " ".join(generator.choices(WORDS, k=generator.randint(2, 5)))
            said = " ".join(generator.choices(GOOD if label else BAD, k=generator.randint(1, 3)))
            file.write(json.dumps({"prompt": asked, "completion": said, "label": label}) + "\n")
    return path


def asked(kind: str, rows: Path, **changes) -> TuneSettings:
    """The recipe that comes with windlass, for a tiny model."""
    values = {
        "model.base": "base", "data.dataset": str(rows), "data.batch": 8, "data.micro_batch": 8, "data.heldout": 0.3,
        "adapter.rank": 4, "optimizer.matrix_rate": 5e-3, "schedule.steps": 30, "run.name": kind, "run.compile": "no",
        "run.precision": "fp32", "run.checkpoint_steps": 10,
    }  # fmt: skip
    return TUNING.read(kind, values | {name.replace("__", "."): value for name, value in changes.items()})


def quietly(line: str) -> None:
    """What is said is of no interest."""


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dpo", {}),
        ("dpo", {"objective__loss": "hinge", "adapter__kind": "none"}),
        ("dpo", {"objective__loss": "ipo"}),
        ("dpo", {"adapter__kind": "prompt", "optimizer__matrix_rate": 5e-2}),
        ("kto", {"schedule__steps": 60}),
        ("kto", {"rows": "pairs", "objective__beta": 0.5, "optimizer__matrix_rate": 1e-2, "schedule__steps": 60}),
        ("orpo", {"objective__beta": 1.0, "schedule__steps": 60}),
        ("simpo", {}),
        ("reward", {}),
    ],
)
def test_a_planted_preference_is_learned(home, tmp_path, kind, changes):
    changes = dict(changes)
    rows = singles if kind == "kto" and changes.pop("rows", None) is None else pairs
    said: list[str] = []
    with Workspace(home) as ws:
        stored = tune(ws, asked(kind, rows(tmp_path / "rows.jsonl"), **changes), say=said.append)
        metric = {
            name: [point.value for point in ws.store.metrics(stored.record.run, f"heldout_{name}")]
            for name in ("loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "kl")
        }
    before, after = metric["loss"]
    assert after < before
    assert metric["accuracy"][1] >= 0.9 and metric["margin"][1] > metric["margin"][0]
    assert metric["margin"][1] == pytest.approx(metric["chosen_reward"][1] - metric["rejected_reward"][1])
    if kind == "reward":
        assert metric["kl"] == []
    else:
        assert metric["kl"][0] == pytest.approx(0, abs=1e-9) and metric["kl"][1] > 1e-4
    if kind in ("dpo", "kto"):  # the model is its own reference as training begins
        assert metric["accuracy"][0] == 0.5 and metric["margin"][0] == pytest.approx(0, abs=1e-5)
    assert stored.card["objective"] == kind and stored.card["heldout_accuracy"] == metric["accuracy"][1]
    assert any("held out" in line and "answers that count" in line for line in said)
    assert sum("right" in line and "margin" in line for line in said) == 2


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dpo", {}), ("dpo", {"objective__loss": "hinge"}), ("dpo", {"objective__loss": "ipo"}), ("kto", {}),
        ("orpo", {}), ("simpo", {}), ("reward", {}), ("dpo", {"adapter__kind": "none"}),
    ],
)  # fmt: skip
def test_eight_passes_of_one_are_one_of_eight(home, tmp_path, kind, changes):
    rows = (singles if kind == "kto" else pairs)(tmp_path / "rows.jsonl")
    with Workspace(home) as ws:
        inputs = open_inputs(ws, asked(kind, rows, **changes))
    prepared = OBJECTIVES[kind](inputs)
    loss_of = Spread(prepared.model, prepared.loss, ALONE, "ddp", prepared.survey)
    if prepared.begin is not None:
        prepared.begin(loss_of)
    generator = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in prepared.model.parameters() if parameter.requires_grad]
    with torch.no_grad():  # away from the reference, where everything counts
        for parameter in trained:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    found = {}
    for size in (8, 3, 1):
        prepared.model.zero_grad()
        numbers = [(0, number) for number in range(8)]
        batches = [prepared.examples.batch(numbers[i : i + size]) for i in range(0, 8, size)]
        loss, counted = accumulate(loss_of.surveyed(batches), loss_of)
        assert counted == 8
        found[size] = loss, torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    assert found[8][1].abs().max() > 1e-6
    for size in (3, 1):
        assert found[size][0] == pytest.approx(found[8][0], rel=1e-5)
        assert (found[size][1] - found[8][1]).norm() < 1e-4 * found[8][1].norm()


def test_a_run_that_was_stopped_keeps_its_reference(home, tmp_path):
    rows = pairs(tmp_path / "rows.jsonl")
    with Workspace(home) as ws:
        straight = tune(ws, asked("dpo", rows, run__name="straight"), say=quietly)

        def stop(line: str) -> None:
            if line.startswith("held-out"):
                raise KeyboardInterrupt

        settings = asked("dpo", rows, run__name="stopped")
        with pytest.raises(KeyboardInterrupt):
            tune(ws, settings, say=stop)
        (run,) = (one for one in ws.runs.list("tune") if one.name == "stopped")
        folder = home / ".windlass/runs" / run.id
        shutil.rmtree(folder / checkpoint.FOLDER / f"step-{checkpoint.steps(folder)[-1]:08d}")
        said: list[str] = []
        again = tune(ws, settings, say=said.append)
        assert any("going on from step 20" in line for line in said)
        assert again.record.files[WEIGHTS] == straight.record.files[WEIGHTS]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's use of transformers
def test_a_reward_model_scores_in_transformers_as_it_does_here(home, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    rows = pairs(tmp_path / "rows.jsonl")
    with Workspace(home) as ws:
        whole = tune(ws, asked("reward", rows, adapter__merge=True), say=quietly)
        beside = tune(ws, asked("reward", rows), say=quietly)
        base = ws.artifacts.get("base").path
    assert (whole.kind, beside.kind) == ("model", "adapter")
    texts = [torch.arange(5, 5 + length) for length in (7, 3, 12)]
    ours = load_reward_model(whole.path)(torch.cat(texts), [len(text) for text in texts])
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(whole.path)
    assert theirs.config.num_labels == 1
    rows_BT = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=theirs.config.pad_token_id)
    seen = (rows_BT != theirs.config.pad_token_id).long()
    with torch.no_grad():
        torch.testing.assert_close(theirs(rows_BT, attention_mask=seen).logits[:, 0], ours, atol=1e-5, rtol=1e-4)
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    trunk = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, pad_token_id=theirs.config.pad_token_id
    )
    with_adapter = peft.PeftModel.from_pretrained(trunk, beside.path).eval()
    with torch.no_grad():
        logits = with_adapter(rows_BT, attention_mask=seen).logits[:, 0]
    torch.testing.assert_close(logits, ours, atol=1e-4, rtol=1e-3)


def test_texts_of_a_pass_are_what_each_is_alone(home):
    """Whatever stands beside an answer, and in however many parts a batch is taken."""
    with Workspace(home) as ws:
        model = load_model(ws.artifacts.get("base").path)
    generator = np.random.default_rng(0)

    def text(length: int) -> Encoded:
        return Encoded(generator.integers(5, 200, length), np.arange(length) >= length // 2)

    examples = AnswerExamples(
        [Answers((text(9), text(5), None)), Answers((text(5), text(14), text(3))), Answers((None, text(9), text(9)))]
    )
    math = arithmetic(model)
    batch = examples.batch([(0, 2), (0, 0), (0, 1)])
    assert batch.counted == 3 and batch.inputs_BT.shape == (1, examples.tokens)
    there = batch.there()
    assert there.tolist() == [[False, True, True], [True, True, False], [True, True, True]]

    def likelihoods(part) -> torch.Tensor:
        found = []
        preference.preference(
            model, part, lambda seen: (found.append(seen.own) or seen.own[:, REJECTED], seen.own), math
        )
        return found[0].detach()

    together = likelihoods(batch)
    assert torch.equal(together != 0, there)
    for place, number in enumerate((2, 0, 1)):
        alone = examples.batch([(0, number)])
        torch.testing.assert_close(likelihoods(alone)[0], together[place])
        torch.testing.assert_close(likelihoods(batch.rows(slice(place, None, 3)))[0], together[place])
    some = batch.rows(slice(0, None, 2)).of_sides(REJECTED, MISMATCHED)
    torch.testing.assert_close(likelihoods(some)[:, REJECTED], together[0::2, REJECTED])
    assert not likelihoods(some)[:, CHOSEN].any()
    assert (batch.targets_BT != IGNORE).sum() == batch.by_side((batch.targets_BT != IGNORE).float()).sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective__margin": 1.0}, "objective.margin is set, but objective.kind 'dpo' has no use"),
        ({"objective__label_smoothing": 0.5}, "label_smoothing is 0.5, but must be"),
        ({"objective__beta": 0.0}, "objective.beta is 0, but must be"),
        ({"run__compile": "yes"}, "rows of whole answers have no two passes of one shape"),
        ({"model__context": 12}, "examples are longer than a row of 12 tokens"),
    ],
)
def test_what_cannot_work_is_refused_before_training(home, tmp_path, changes, message):
    with Workspace(home) as ws, pytest.raises(InputError, match=message):
        tune(ws, asked("dpo", pairs(tmp_path / "rows.jsonl", 12), **changes), say=quietly)


def test_feedback_of_one_kind_is_refused(home, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": word, "completion": "red", "label": True} for word in WORDS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with Workspace(home) as ws, pytest.raises(InputError, match="answers to train on were liked"):
        tune(ws, asked("kto", path), say=quietly)
    path.write_text("".join(json.dumps({**row, "prompt": "red"}) + "\n" for row in rows), encoding="utf-8")
    with Workspace(home) as ws, pytest.raises(InputError, match="all answers are to the same prompt"):
        tune(ws, asked("kto", path), say=quietly)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "parallel"), [("kto", "ddp"), ("dpo", "fsdp"), ("reward", "ddp")])
def test_two_workers_end_where_one_does(home, tmp_path, kind, parallel):
    rows = (singles if kind == "kto" else pairs)(tmp_path / "rows.jsonl")
    changes = {"schedule__steps": 6, "data__micro_batch": 2}
    with Workspace(home) as ws:
        one = tune(ws, asked(kind, rows, run__name=f"one-{kind}", **changes), say=quietly)
        command = [sys.executable, "-m", "windlass", "tune", kind, "--base", "base", "--data", str(rows)]
        command += [
            "--steps",
            "6",
            "--name",
            f"two-{kind}",
            "--workers",
            "2",
            "--parallel",
            parallel,
            "--device",
            "cpu",
        ]
        same = {
            "data.batch": 8, "data.micro_batch": 2, "data.heldout": 0.3, "adapter.rank": 4, "run.compile": "no",
            "optimizer.matrix_rate": 5e-3, "run.precision": "fp32",
        }  # fmt: skip
        for name, value in same.items():
            command += ["--set", f"{name}={value}"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        two = ws.artifacts.get(f"two-{kind}")
    figures = [name for name in one.card if name.startswith("heldout_")]
    assert len(figures) >= 5
    for name in figures:
        assert two.card[name] == pytest.approx(one.card[name], rel=1e-3, abs=1e-5)

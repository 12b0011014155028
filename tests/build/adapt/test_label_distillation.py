"""A small encoder learns a larger classifier's opinions: the loss by its definition, and from texts without labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoder_rows import asked, rows_for, written
from encoder_world import save_encoder
from engine_world import make_folder

from windlass.build.adapt.checking import check_tuning, describe_dataset, open_uncompiled
from windlass.build.adapt.data.texts import Example, TextExamples, Tokens
from windlass.build.adapt.objectives.label_distillation import imitated, measured
from windlass.build.adapt.objectives.lessons import Lesson
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.sections import TuneObjectiveSettings, TuneScheduleSettings
from windlass.build.adapt.tuning import tune
from windlass.build.transformer.classifier_files import load_classifier
from windlass.cli.main import main
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.serve.encoders.cross_encoder import TextClassifier

LENGTHS = (5, 9, 3, 7)
SEVERAL = {"problem_type": "multi_label_classification"}


def quiet(line: str) -> None:
    """What is said is of no interest."""


def examples(given: np.ndarray, taught: np.ndarray) -> TextExamples:
    draw = np.random.default_rng(0)
    return TextExamples(
        [
            Example([Tokens(draw.integers(5, 20, length), np.zeros(length, np.int64))], np.stack([own, theirs])[None])
            for length, own, theirs in zip(LENGTHS, given, taught, strict=True)
        ]
    )


@pytest.mark.parametrize("kind", ["one of", "any of"])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_that_of_its_definition(tmp_path: Path, kind: Any, weight: float) -> None:
    save_encoder(tmp_path, "Bert", "ForSequenceClassification", num_labels=3, **(SEVERAL if kind == "any of" else {}))
    model, draw = load_classifier(tmp_path), np.random.default_rng(1)
    taught = draw.normal(size=(4, 3)).astype(np.float32) * 2
    given = np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]
    if kind == "any of":
        given = draw.integers(0, 2, (4, 3)).astype(np.float32)
    lesson = Lesson("forward", 0.5, 2.0, weight)
    batch = examples(given, taught).batch([(0, number) for number in range(4)])
    loss = imitated(model, batch, lesson, kind)
    logits = loss.metrics["logits"]
    right, theirs = torch.from_numpy(given), torch.from_numpy(taught)
    if kind == "one of":
        hard = F.cross_entropy(logits, right.argmax(1), reduction="sum")
        soft = F.kl_div((logits / 2).log_softmax(1), (theirs / 2).softmax(1), reduction="sum")
    else:
        hard = F.binary_cross_entropy_with_logits(logits, right, reduction="sum") / 3
        p, q = (theirs / 2).sigmoid(), (logits / 2).sigmoid()
        soft = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / 3
    assert loss.counted == 4
    torch.testing.assert_close(loss.sum.detach(), weight * hard + (1 - weight) * 4 * soft, rtol=1e-4, atol=1e-5)
    alone = [examples(given, taught).batch([(0, number)]) for number in range(4)]
    apart = sum(imitated(model, one, lesson, kind).sum for one in alone)
    torch.testing.assert_close(apart, loss.sum, rtol=1e-4, atol=1e-5)  # whatever else is in the pass


def test_a_student_that_is_its_teacher_has_nothing_to_learn(tmp_path: Path) -> None:
    save_encoder(tmp_path, "Bert", "ForSequenceClassification", num_labels=3)
    model, lesson = load_classifier(tmp_path), Lesson("jsd", 0.5, 1.0, 0.0)
    first = examples(np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32))
    own = imitated(model, first.batch([(0, number) for number in range(4)]), lesson, "one of").metrics["logits"]
    same = examples(np.zeros((4, 3), np.float32), own.numpy())
    found = measured(lambda batch: imitated(model, batch, lesson, "one of"), same, "one of", False, None, None)
    assert found.values["agreement"] == 1.0 and abs(found.loss) < 1e-6 and "accuracy" not in found.values


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that tells animals from things, and a smaller encoder that numbers the same words otherwise."""
    root = tmp_path_factory.mktemp("world")
    save_encoder(root / "bert", "Bert", "Model", initializer_range=0.1)
    written(root / "rows.jsonl", rows := rows_for("classify"))
    written(root / "texts.jsonl", [{"text": row["text"]} for row in rows])
    save_encoder(root / "small", "Bert", "Model", initializer_range=0.1, num_hidden_layers=1)
    path = root / "small/tokenizer.json"
    values = json.loads(path.read_text())
    words = [word for word in values["model"]["vocab"] if not word.startswith("[")]
    numbers = [values["model"]["vocab"][word] for word in words]
    values["model"]["vocab"] |= dict(zip(words, reversed(numbers), strict=True))
    path.write_text(json.dumps(values))
    with Workspace(root) as ws:
        steps = TuneScheduleSettings(steps=100)
        taught = tune(ws, asked(root / "bert", root / "rows.jsonl", "classify", schedule=steps), say=quiet)
    (root / "teacher").symlink_to(taught.path)
    return root


def taking(world: Path, rows: str = "texts.jsonl", steps: int = 120, **more: Any) -> Any:
    lesson = TuneObjectiveSettings("distil", **{"teacher": str(world / "teacher"), "temperature": 2.0, **more})
    return asked(world / "small", world / rows, "distil", objective=lesson, schedule=TuneScheduleSettings(steps=steps))


def test_texts_without_labels_make_a_student_that_says_what_its_teacher_says(world: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with Workspace(tmp_path) as ws:
        made = tune(ws, taking(world), say=said.append)
        before = [point.value for point in ws.store.metrics(made.record.run, "heldout_agreement")]
    assert made.card["heldout_agreement"] >= 0.95 > before[0]
    assert "heldout_accuracy" not in made.card and made.card["labels"] == ["animal", "thing"]
    assert any("forward KL at temperature 2 weighs 1, the labels of the rows 0" in line for line in said)
    student = TextClassifier.from_folder(made.path)
    assert student.labels == ("animal", "thing")
    assert student.classify(["the cat", "the pump"]).probabilities.argmax(1).tolist() == [0, 1]


@pytest.mark.slow
def test_labels_are_learned_beside_it_and_both_are_measured(world: Path, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        made = tune(ws, taking(world, "rows.jsonl", 60, label_weight=0.5), say=quiet)
    assert made.card["heldout_accuracy"] >= 0.9 and made.card["heldout_teacher_accuracy"] >= 0.95


def test_it_is_checked_before_anything_is_trained(world: Path, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        opened = open_uncompiled(ws, taking(world))
        assert describe_dataset(ws, opened).rows[0][1] == "120"
        assert check_tuning(ws, opened, say=quiet).fits
        assert not ws.runs.list("tune")


def test_the_recipe_does_it_on_the_command_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert TUNING.read("distil-classify", {}).objective.kind == "distil"
    words = ["--base", str(world / "small"), "--data", str(world / "texts.jsonl"), "--name", "pupil", "--steps", "2"]
    teacher = ["--set", f"objective.teacher={world / 'teacher'}", "--workspace", str(tmp_path), "--device", "cpu"]
    Workspace(tmp_path).close()
    assert main(["tune", "distil-classify", *words, *teacher]) == 0
    assert "% as the teacher" in capsys.readouterr().out
    with Workspace(tmp_path) as ws:
        assert "windlass serve pupil" in (ws.artifacts.get("pupil").path / "README.md").read_text()


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        ("texts.jsonl", {"label_weight": 0.5}, "label_weight is 0.5, but the rows have no labels"),
        ("texts.jsonl", {"labels": ("thing", "animal")}, "names thing, animal, but .*teacher knows animal, thing"),
        ("texts.jsonl", {"divergence": "sorted"}, "divergence is 'sorted', but .*small is an encoder"),
        ("texts.jsonl", {"hidden_weight": 1.0}, r"hidden_weight is 1\.0, but .*small is an encoder"),
        ("texts.jsonl", {"own_share": 0.5}, r"own_share is 0\.5, but .*small is an encoder"),
        ("texts.jsonl", {"answers": "teacher"}, "answers is 'teacher', but .*small is an encoder, which writes none"),
        ("texts.jsonl", {"teacher": "small"}, "small is no classifier of texts"),
        ("texts.jsonl", {"teacher": "number"}, "number gives numbers and no labels"),
        ("texts.jsonl", {"teacher": "writer"}, "writer is no classifier of texts"),
        ("other.jsonl", {}, "row 1: the label is 'plant', which the teacher does not name"),
        ("lists.jsonl", {}, "hold lists of labels, but those of the teacher exclude each other"),
        ("half.jsonl", {}, "row 2: there is no label"),
        ("blank.jsonl", {}, "row 1: text is blank"),
    ],
)
def test_what_cannot_be_taught_is_named_before_training(
    world: Path, tmp_path: Path, rows: str, more: dict[str, Any], told: str
) -> None:
    texts = [row["text"] for row in rows_for("classify", 16)]
    marks: dict[str, Any] = {"other.jsonl": "plant", "lists.jsonl": ["animal"]}
    if rows in marks:
        written(tmp_path / rows, [{"text": text, "label": marks[rows]} for text in texts])
    elif rows == "half.jsonl":
        written(tmp_path / rows, [{"text": texts[0], "label": "animal"}, *({"text": text} for text in texts[1:])])
    elif rows == "blank.jsonl":
        written(tmp_path / rows, [{"text": " "}] * 8)
    settings = taking(world, str(tmp_path / rows if (tmp_path / rows).exists() else world / rows))
    teacher = more.get("teacher")
    if teacher == "number":
        save_encoder(tmp_path / "number", "Bert", "ForSequenceClassification", num_labels=1)
    elif teacher == "writer":
        make_folder(tmp_path / "writer")
    if teacher is not None:
        more = {"teacher": str((world if teacher == "small" else tmp_path) / teacher)}
    settings = replace(settings, objective=replace(settings.objective, **more))
    with Workspace(tmp_path) as ws:
        with pytest.raises(InputError, match=told):
            tune(ws, settings, say=quiet)
        assert not ws.store.artifacts("model")

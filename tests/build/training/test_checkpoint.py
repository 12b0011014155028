"""Checkpoints: whole or absent on every failure, written beside the loop, and clear about what does not fit."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from windlass.build.training.checkpoints import checkpoint, saving
from windlass.build.training.checkpoints.saving import Saver
from windlass.build.training.distributed.pieces import Piece
from windlass.core.errors import DiskFull, InputError, WindlassError


def state(value: float, rows: int = 5) -> dict[str, torch.Tensor]:
    return {
        "model/w": torch.full((rows, 3), value),
        "optimizer/w/step": torch.tensor(value),
        "model/half": torch.full((2,), value, dtype=torch.bfloat16),
        "model/flags": torch.tensor([True, False]),
        "model/tail": torch.full((4, 6), value).T,  # not contiguous
    }


def assert_restores(run: Path, step: int, value: float) -> None:
    saved = checkpoint.load(run)
    assert saved is not None
    assert saved.step == step
    found = {name: torch.zeros_like(tensor) for name, tensor in state(0.0).items()}
    saved.restore(found)
    for name, expected in state(value).items():
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name], expected), name


def files(run: Path) -> list[str]:
    return sorted(str(p.relative_to(run / checkpoint.FOLDER)) for p in run.rglob("*") if p.is_file())


def whole(step: int) -> list[str]:
    return [f"step-{step:08d}/checkpoint.json", f"step-{step:08d}/part-0-of-1.safetensors"]


# Keeping --------------------------------------------------------------------------------------------------------


def test_the_newest_stay_and_the_best_one(tmp_path):
    assert checkpoint.load(tmp_path) is None
    with Saver(tmp_path, keep=2, best=True) as saver:
        for step, score in enumerate([3.0, 1.0, 2.0, 2.5, 4.0], start=1):
            saver.save(step, state(float(step)), {"loss": score}, score=score)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    assert_restores(tmp_path, 5, 5.0)
    assert checkpoint.load(tmp_path).facts == {"loss": 4.0}
    assert files(tmp_path) == sorted(whole(2) + whole(4) + whole(5))
    with Saver(tmp_path) as saver:
        saver.save(6, state(6.0), {})
    assert checkpoint.steps(tmp_path) == [5, 6]


def test_the_same_step_is_not_written_twice(tmp_path):
    with Saver(tmp_path) as saver:
        saver.save(1, state(1.0), {})
        saver.save(1, state(2.0), {})
    with Saver(tmp_path) as saver:
        saver.save(1, state(3.0), {})
    assert_restores(tmp_path, 1, 1.0)


# Beside the loop ------------------------------------------------------------------------------------------------


def test_the_loop_goes_on_while_a_slow_disk_writes_what_was_at_the_time_of_the_call(tmp_path, monkeypatch):
    gate = threading.Event()
    write = checkpoint.write_part
    monkeypatch.setattr(checkpoint, "write_part", lambda *args: gate.wait(30) and write(*args))
    tensors = state(1.0)
    with Saver(tmp_path) as saver:
        saver.save(1, tensors, {"data": [1]})
        assert saver.busy
        assert checkpoint.load(tmp_path) is None
        for tensor in tensors.values():
            tensor.fill_(9)
        gate.set()
        saver.wait()
        assert not saver.busy
        assert_restores(tmp_path, 1, 1.0)


def test_a_failure_of_the_writing_thread_reaches_the_loop(tmp_path, monkeypatch):
    with Saver(tmp_path) as saver:
        saver.save(1, state(1.0), {})
        saver.wait()
        with monkeypatch.context() as patch:

            def refuse(*args, **kwargs):
                raise OSError(30, "Read-only file system")

            patch.setattr(checkpoint, "save_file", refuse)
            saver.save(2, state(2.0), {})
            while saver.busy:
                time.sleep(0.01)
            with pytest.raises(OSError, match="Read-only"):
                saver.check()
        saver.check()
        assert_restores(tmp_path, 1, 1.0)
        assert files(tmp_path) == whole(1)
        saver.save(2, state(2.0), {})
    assert_restores(tmp_path, 2, 2.0)


def test_an_error_at_the_end_is_not_swallowed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "commit", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError), Saver(tmp_path) as saver:
        saver.save(1, state(1.0), {})


def test_a_worker_that_never_writes_its_part_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "PATIENCE", 0.1)
    cut = Piece(torch.zeros(2, 3), 0, (4, 3), cut=True)
    monkeypatch.setattr(saving, "piece_of", lambda tensor: cut)
    with pytest.raises(WindlassError, match="Worker 1 did not write"), Saver(tmp_path, workers=2) as saver:
        saver.save(1, {"w": torch.zeros(4, 3)}, {})
    assert files(tmp_path) == []


# A full disk ----------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_checkpoint_before_and_no_trace_of_the_new_one(small_disk):
    large = {"model/w": torch.ones(500_000)}  # 2 MB
    with Saver(small_disk) as saver:
        saver.save(1, large, {"a": 1})
        saver.wait()
        saver.save(2, large, {"a": 2})
        with pytest.raises(DiskFull, match="No space left"):
            saver.wait()
        assert files(small_disk) == whole(1)
        saved = checkpoint.load(small_disk)
        assert saved.facts == {"a": 1}
        assert torch.equal(saved.tensors["model/w"], large["model/w"])
        saver.save(3, {"model/w": torch.ones(100)}, {"a": 3})
    assert checkpoint.load(small_disk).step == 3


def test_a_disk_that_is_full_when_the_facts_are_written(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise DiskFull("No space left on the disk.")

    with Saver(tmp_path) as saver:
        saver.save(1, state(1.0), {})
        saver.wait()
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write_json", full)
            saver.save(2, state(2.0), {})
            with pytest.raises(DiskFull):
                saver.wait()
    assert files(tmp_path) == whole(1)
    assert_restores(tmp_path, 1, 1.0)


# Killed ---------------------------------------------------------------------------------------------------------

ENDLESS = """
import sys, torch
from pathlib import Path
from windlass.build.training.checkpoints.saving import Saver
run = Path(sys.argv[1])
with Saver(run) as saver:
    for step in range(1, 1_000_000):
        tensors = {f"model/{i}": torch.full((200, 300), float(step)) for i in range(4)}
        saver.save(step, tensors, {"step": step})
        if step == 3:
            print("going", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_of_a_save_the_newest_checkpoint_is_whole(tmp_path):
    random.seed(4)
    for trial in range(5):
        run = tmp_path / str(trial)
        process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(run)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        time.sleep(random.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        saved = checkpoint.load(run)
        assert saved.facts == {"step": saved.step}
        for i in range(4):
            assert torch.equal(saved.tensors[f"model/{i}"], torch.full((200, 300), float(saved.step)))
        checkpoint.discard_unfinished(run)
        assert len(files(run)) == 2 * len(checkpoint.steps(run))
        assert checkpoint.load(run).step == saved.step


def test_the_process_ends_only_when_the_checkpoint_is_written(tmp_path):
    code = """
import sys, time, torch
from pathlib import Path
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.checkpoints.saving import Saver
write = checkpoint.write_part
checkpoint.write_part = lambda *args: (time.sleep(0.5), write(*args))
Saver(Path(sys.argv[1])).save(7, {"w": torch.ones(3)}, {})
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert checkpoint.load(tmp_path).step == 7


# What does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model/w"), "holds the tensor 'model/w', which is not known here"),
        (lambda t: t.update({"model/new": torch.zeros(2)}), "lacks the tensor 'model/new'"),
        (lambda t: t.update({"model/w": torch.zeros(5, 4)}), r"'model/w' has shape \[5, 3\], but here it has \[5, 4\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_changed(tmp_path, change, message):
    with Saver(tmp_path) as saver:
        saver.save(1, state(1.0), {})
    targets = state(7.0)
    change(targets)
    before = {name: tensor.clone() for name, tensor in targets.items()}
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path).restore(targets)
    assert all(torch.equal(targets[name], before[name]) for name in targets)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.parent / checkpoint.FACTS).write_text("{"),
        lambda path: (path.parent / checkpoint.FACTS).write_text('{"step": 2}'),
    ],
)
def test_damage_is_found_and_the_way_out_is_said(tmp_path, damage):
    for step in (1, 2):
        with Saver(tmp_path) as saver:
            saver.save(step, state(float(step)), {})
    folder = checkpoint.step_folder(tmp_path, 2)
    damage(folder / checkpoint.part_name(0, 1))
    with pytest.raises(InputError, match="damaged") as caught:
        checkpoint.load(tmp_path).restore(state(0.0))
    assert caught.value.hint == f"Delete {folder} to go on from step 1."
    checkpoint.remove(folder)
    assert_restores(tmp_path, 1, 1.0)


# From many workers to one ---------------------------------------------------------------------------------------


def test_the_parts_of_several_workers_make_whole_tensors(tmp_path):
    table = torch.arange(21.0).reshape(7, 3)
    folder = checkpoint.step_folder(tmp_path, 4)
    for worker, (first, last) in enumerate([(0, 3), (3, 6), (6, 7)]):
        pieces = {"table": Piece(table[first:last], first, (7, 3), cut=True)}
        if worker == 0:
            pieces["scalar"] = Piece(torch.tensor(5.0), 0, (), cut=False)
        checkpoint.write_part(folder, pieces, worker, 3)
    assert checkpoint.steps(tmp_path) == []
    checkpoint.commit(tmp_path, 4, 3, {}, None)
    found = {"table": torch.zeros(7, 3), "scalar": torch.tensor(0.0)}
    checkpoint.load(tmp_path).restore(found)
    assert torch.equal(found["table"], table)
    assert found["scalar"] == 5
    shutil.copyfile(folder / checkpoint.part_name(0, 3), folder / checkpoint.part_name(1, 3))
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(tmp_path).restore(found)
    assert json.loads((folder / checkpoint.FACTS).read_text())["parts"] == 3

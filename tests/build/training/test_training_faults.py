"""Pre-training as a person runs it, in real processes that are killed, interrupted and cut off from the disk.

Whatever happens, the same command goes on, and the losses are those of a run that nothing happened to.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import train_tokenizer
from windlass.build.training.checkpoints import checkpoint
from windlass.core.readers import Folder
from windlass.core.records import RunRecord
from windlass.core.workspace import Workspace

pytestmark = pytest.mark.slow

STEPS = 240
# AdamW with low rates: Muon's bfloat16 and high rates make more of a sum's last bit than many steps can bear.
TINY = (
    "--depth=1", "--steps", str(STEPS), "--seed=3", "--no-baselines", "--device=cpu",
    "--set=model.context=32", "--set=data.batch=8", "--set=run.compile=no", "--set=run.precision=fp32",
    "--set=run.checkpoint_steps=4", "--set=optimizer.kind=adamw", "--set=optimizer.matrix_rate=0.001",
    "--set=optimizer.embedding_rate=0.003", "--set=optimizer.head_rate=0.001",
)  # fmt: skip
WINDLASS = (sys.executable, "-m", "windlass")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "windlass")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A workspace with a corpus and a tokenizer, and one run that nothing happened to."""
    home = tmp_path_factory.mktemp("home")
    generator = np.random.default_rng(0)
    texts = home / "texts"
    texts.mkdir()
    words = ["".join(generator.choice(list("abcdefghijklm"), size)) for size in range(2, 12) for _ in range(5)]
    for i in range(30):
        (texts / f"part{i}.txt").write_text(" ".join(generator.choice(words, 300)), encoding="utf-8")
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2))
        train_tokenizer(ws, corpus, 330)
    ended = finish(train(home, "straight"))
    assert ended.returncode == 0, ended.stderr
    return home


def train(home: Path, name: str, *more: str, command: Sequence[str] = WINDLASS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, "train", "corpus", "tokenizer", *TINY, "--name", name, "--workspace", str(home), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str], seconds: float = 300) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_of(home: Path, name: str) -> RunRecord:
    with Workspace(home) as ws:
        (record,) = (r for r in ws.runs.list("pretrain") if r.name == name)
    return record


def curve(home: Path, name: str) -> list[tuple[int, float]]:
    with Workspace(home) as ws:
        return [(p.step, p.value) for p in ws.store.metrics(run_of(home, name).id, "train_loss")]


def folder_of(home: Path, name: str) -> Path:
    return home / ".windlass/runs" / run_of(home, name).id


def wait_for_step(process: subprocess.Popen[str], home: Path, name: str, step: int) -> None:
    """Until the run has a checkpoint at or behind `step`."""
    deadline = time.monotonic() + 300
    runs = home / ".windlass/runs"
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended before it could be stopped: {process.communicate()}"
        with contextlib.suppress(ValueError):  # no such run yet
            if max(checkpoint.steps(runs / run_of(home, name).id), default=-1) >= step:
                return
        time.sleep(0.02)
    raise AssertionError("no checkpoint in 300 s")


def worker_processes(launcher: subprocess.Popen[str]) -> list[int]:
    """Process ids of the launcher's workers, in the order in which they were started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    if not children.exists():
        pytest.skip("this system does not tell which processes a process started")
    return [int(pid) for pid in children.read_text().split()]


def assert_same(found: list[tuple[int, float]], expected: list[tuple[int, float]], tolerance: float) -> None:
    assert [step for step, _ in found] == [step for step, _ in expected]
    worst = max(abs(a - b) for (_, a), (_, b) in zip(found, expected, strict=True))
    assert worst <= tolerance, f"the losses differ by up to {worst}"


# One process --------------------------------------------------------------------------------------------------------


def test_killed_three_times_at_random_moments_the_losses_are_the_same_to_the_bit(home):
    """A checkpoint every step, so that most moments lie within a save."""
    name, every = "killed", "--set=run.checkpoint_steps=1"
    begun = 0
    for _ in range(3):
        process = train(home, name, every)
        wait_for_step(process, home, name, begun + 10)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        ended = finish(process)
        assert ended.returncode == -signal.SIGKILL, "killed before its end"
        begun = checkpoint.steps(folder_of(home, name))[-1]  # the next one has taken up the run when it is past this
    ended = finish(train(home, name, every))
    assert ended.returncode == 0, ended.stderr
    assert "going on from step" in ended.stdout
    assert run_of(home, name).environment["resumed"] == 3
    assert curve(home, name) == curve(home, "straight")
    with Workspace(home) as ws:
        files = [ws.artifacts.get(n).record.files["model.safetensors"] for n in (name, "straight")]
    assert files[0] == files[1]


def test_the_disk_fills_up_while_training_and_later_has_room_again(home, tmp_path):
    disk = tmp_path / "disk"
    shutil.copytree(home, disk, ignore=shutil.ignore_patterns("runs"))
    runs = disk / ".windlass/runs"
    runs.mkdir()
    with mounted(runs, "8m"):
        process = train(disk, "full")
        wait_for_step(process, disk, "full", 8)
        ballast = runs / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(10_000))
        ended = finish(process)
        assert ended.returncode == 1
        assert "windlass: No space left on the disk" in ended.stderr
        record = run_of(disk, "full")
        assert record.status == "failed"
        assert "DiskFull" in record.message
        saved = checkpoint.load(runs / record.id)
        assert all(tensor.isfinite().all() for tensor in saved.tensors.values())
        ballast.unlink()
        ended = finish(train(disk, "full"))
        assert ended.returncode == 0, ended.stderr
        assert f"going on from step {saved.step}" in ended.stdout
        assert curve(disk, "full") == curve(home, "straight")


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A real, small file system at `folder`."""
    if shutil.which("mount") is None:
        pytest.skip("no `mount` on this machine")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "windlass-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# Several workers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_workers_have_the_losses_of_one(home, parallel):
    more = ("--workers=2", "--parallel", parallel, "--set", "data.micro_batch=2")
    ended = finish(train(home, parallel, *more))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("held-out: ") == 1, "one of them speaks"
    assert run_of(home, parallel).status == "done"
    assert_same(curve(home, parallel), curve(home, "straight"), 2e-3)


def test_a_run_goes_from_two_workers_with_parts_to_one_and_back(home):
    """Worker 1 of two is killed; one process goes on and is interrupted; two others, through torchrun, end the run."""
    process = train(home, "moved", "--workers=2", "--parallel=fsdp")
    wait_for_step(process, home, "moved", 12)
    assert list(folder_of(home, "moved").rglob("part-1-of-2.safetensors")), "each worker wrote what it held"
    _, second = worker_processes(process)
    os.kill(second, signal.SIGKILL)
    began = time.monotonic()
    ended = finish(process)
    assert time.monotonic() - began < 30, "the others do not wait for what cannot come"
    assert ended.returncode == 1
    assert f"windlass: Worker 1 (process {second}) was lost" in ended.stderr
    assert ended.stderr.count("windlass: ") == 1
    assert "Traceback" not in ended.stderr
    record = run_of(home, "moved")
    assert record.status == "failed"
    assert f"Worker 1 (process {second}) was lost" in record.message

    saved = checkpoint.steps(folder_of(home, "moved"))[-1]
    process = train(home, "moved")
    wait_for_step(process, home, "moved", saved + 12)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.returncode == 130
    assert "going on from step" in ended.stdout
    assert run_of(home, "moved").status == "interrupted"

    ended = finish(train(home, "moved", "--parallel=fsdp", command=TORCHRUN))
    assert ended.returncode == 0, ended.stderr
    assert "going on from step" in ended.stdout
    assert run_of(home, "moved").environment["resumed"] == 2
    assert_same(curve(home, "moved"), curve(home, "straight"), 2e-3)


def test_the_leader_is_killed_and_the_same_command_goes_on(home):
    process = train(home, "headless", "--workers=2")
    wait_for_step(process, home, "headless", 12)
    first, _ = worker_processes(process)
    os.kill(first, signal.SIGKILL)
    ended = finish(process)
    assert ended.returncode == 1
    assert f"windlass: worker 0 (process {first}) was killed by SIGKILL" in ended.stderr
    assert run_of(home, "headless").status == "interrupted"
    ended = finish(train(home, "headless", "--workers=2"))
    assert ended.returncode == 0, ended.stderr
    assert_same(curve(home, "headless"), curve(home, "straight"), 2e-3)


def test_ctrl_c_under_torchrun_saves_and_ends(home):
    process = train(home, "stopped", "--set=schedule.steps=100000", command=TORCHRUN)
    wait_for_step(process, home, "stopped", 8)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.returncode != 0
    assert ended.stderr.count("windlass: stopped. The same command goes on from here.") == 1
    assert run_of(home, "stopped").status == "interrupted"
    assert checkpoint.steps(folder_of(home, "stopped"))[-1] == curve(home, "stopped")[-1][0]


def test_what_all_workers_meet_is_said_once(home):
    ended = finish(train(home, "uneven", "--workers=3"))
    assert ended.returncode == 2
    assert "windlass: A step of 8 sequences cannot be shared evenly by 3 workers." in ended.stderr
    assert "Use --set data.batch=9" in ended.stderr
    assert ended.stderr.count("windlass: ") == 1
    assert run_of(home, "uneven").status == "failed"

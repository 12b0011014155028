"""Several processes as one: sums, notes, optimizers over cut matrices, and what happens when one of them goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from windlass.build.training.distributed import workers as module
from windlass.build.training.distributed.launch import launch
from windlass.build.training.distributed.workers import ALONE, Workers, device_of, joined
from windlass.build.training.optim.muon import Muon, orthogonal
from windlass.core.errors import InputError

PROLOGUE = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from windlass.build.training.distributed.workers import WorkerLost, joined
folder = Path(sys.argv[1])
torch.set_num_threads(1)
"""


def together(code: str, folder: Path, *, count: int = 2, grace: float = 30, **environment: str):
    """Runs the code in `count` workers; the finished process of the launcher."""
    (folder / "worker.py").write_text(PROLOGUE + code, encoding="utf-8")
    starter = (
        f"import sys\nfrom windlass.build.training.distributed import launch\nlaunch._GRACE_S = {grace}\n"
        f"sys.exit(launch.launch({count}, [sys.executable, {str(folder / 'worker.py')!r}, {str(folder)!r}]))"
    )
    return subprocess.run(
        [sys.executable, "-c", starter],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_one_process_is_a_worker_of_one():
    with joined("cpu") as workers:
        assert workers.leads
        assert workers.total(1.5, 2.0) == (1.5, 2.0)
        assert workers.any(True, False) == (True, False)
        assert workers.told("x", {"a": [1]}) == {"a": [1]}
        assert workers.share([1, 2, 3]) == [1, 2, 3]
        with pytest.raises(RuntimeError, match="gloo"), workers.together():
            raise RuntimeError("gloo is not to blame here")


def test_the_shares_of_all_workers_are_the_whole():
    shares = [Workers(i, 3).share(list(range(12))) for i in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(12))
    assert {len(share) for share in shares} == {4}


def test_a_device_that_is_not_there_is_refused():
    assert device_of("cpu", 3).type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no device of kind 'cuda'"):
            device_of("cuda", 0)
    assert ALONE.device.type == "cpu"


EVERYTHING = """
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.optim.muon import Muon
from windlass.build.training.distributed.pieces import piece_of, whole
from windlass.build.training.checkpoints.saving import Saver

from functools import partial
from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.training.loop import accumulate
from windlass.build.training.objectives import arithmetic, causal
from windlass.build.training.distributed.parallel import Spread, gathered
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise

def small():
    model = Decoder(TransformerConfig(
        vocab_size=50, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=48, context=12))
    initialise(model, 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return model

def objective(model, **how):
    return partial(causal, model, math=arithmetic(model, **how))

def batch(rows):
    tokens = torch.randint(50, (8, 13), generator=torch.Generator().manual_seed(2))
    targets = tokens[:, 1:].clone()
    for row in range(8):
        targets[row, : row] = IGNORE
    return Batch(tokens[list(rows), :-1], targets[list(rows)])

def stack():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24, bias=False), nn.ReLU(), nn.Linear(24, 7, bias=False))

with joined("cpu") as workers:
    first = workers.number == 0
    found = {
        "total": workers.total(1 + workers.number, 2.0**52),
        "any": workers.any(first, not first, False),
        "told": workers.told("plan", {"steps": 7} if first else None),
        "processes": len({pid for _, pid in workers.processes}),
    }

    # Muon over matrices cut into rows, unevenly, against the whole ones. Each worker's loss is half the rows'.
    cut, plain = stack(), stack()
    for module in (cut[0], cut[2], cut):
        fully_shard(module)
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    optimizers = [Muon(model.parameters(), lr=0.02, weight_decay=0.1) for model in (cut, plain)]
    for step in range(3):
        (cut(x[workers.number :: 2]).square().sum() * 2 / 8).backward()
        (plain(x).square().sum() / 8).backward()
        norms = [float(whole(clip_grad_norm_(model.parameters(), 1.0))) for model in (cut, plain)]
        assert abs(norms[0] - norms[1]) < 1e-5 * norms[1], norms
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    found["muon"] = max(float((whole(p) - q).abs().max()) for p, q in zip(cut.parameters(), plain.parameters()))
    found["rows"] = [piece_of(p).first for p in cut.parameters()]

    # A whole step, in two passes, with a different share of targets in each row: the sum over all rows, divided once.
    math = {"chunk": 10, "accuracy": True}
    expected_loss, expected_count = accumulate([batch(range(8))], objective(plain_model := small(), **math))
    expected_gradients = [p.grad for p in plain_model.parameters()]
    for kind in ("ddp", "fsdp"):
        model = small()
        spread = Spread(model, objective(model, **math), workers, kind)
        mine = workers.share(list(range(8)))
        loss, count = accumulate([batch(mine[:2]), batch(mine[2:])], spread, workers, spread.exchange)
        assert count == expected_count
        found[f"{kind} loss"] = abs(loss - expected_loss)
        found[f"{kind} gradients"] = max(
            float((whole(p.grad) - q).norm() / q.norm()) for p, q in zip(model.parameters(), expected_gradients)
        )
        shared = spread.shared(batch(range(8)))  # of which worker 0 has four rows, and worker 1 the others
        assert shared.counted == expected_count
        assert abs(float(shared.sum) / shared.counted - expected_loss) < 1e-6
        with torch.no_grad():  # a step of training does not count what is right
            alone = objective(small(), **math)(batch(range(8)))
        assert float(shared.metrics["right"]) == float(alone.metrics["right"])
        held = [p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in model.parameters()]
        share = sum(held) / sum(p.numel() for p in small().parameters())
        assert share < (0.6 if kind == "fsdp" else 1.1), "what was put together is let go again"
        assert spread.shared(batch([0])).counted == 12, "too few rows to share"
        assert spread.shared(batch([0, 0])).counted == 24
        gathered_model = gathered(model, workers)
        assert (gathered_model is not None) == first
        if first:
            for name, tensor in small().state_dict().items():
                assert torch.equal(gathered_model.state_dict()[name], tensor)

    # A checkpoint of the pieces, which this process reads back whole and in pieces.
    tensors = {f"model/{name}": p for name, p in cut.named_parameters()} | {"step": torch.tensor(3)}
    with Saver(folder, worker=workers.number, workers=2) as saver:
        saver.save(3, tensors, {"a": 1})
    workers.total(0)
    expected = {name: whole(tensor).clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.mul_(0)
    while checkpoint.load(folder) is None:  # the leader is about to make it one
        time.sleep(0.01)
    checkpoint.load(folder).restore(tensors)
    assert all(torch.equal(whole(tensors[name]), expected[name]) for name in tensors)
    if first:
        torch.save(expected, folder / "expected.pt")
    (folder / f"found-{workers.number}.json").write_text(json.dumps(found))
"""


def test_two_workers_compute_what_one_does_and_their_checkpoint_loads_on_one(tmp_path):
    ended = together(EVERYTHING, tmp_path)
    assert ended.returncode == 0, ended.stderr
    for number in (0, 1):
        found = json.loads((tmp_path / f"found-{number}.json").read_text())
        assert found["total"] == [3.0, 2.0**53]
        assert found["any"] == [True, True, False]
        assert found["told"] == {"steps": 7}
        assert found["processes"] == 2
        assert found["rows"] == [12 * number, 4 * number]
        for kind in ("ddp", "fsdp"):
            assert found[f"{kind} loss"] < 1e-6
            assert found[f"{kind} gradients"] < 1e-5
        assert found["muon"] < 1e-3, "bfloat16 inside, float32 sums in another order before it"
    from windlass.build.training.checkpoints import checkpoint

    saved = checkpoint.load(tmp_path)
    assert saved.facts == {"a": 1}
    assert len(list(saved.folder.glob("part-*-of-2.safetensors"))) == 2
    expected = torch.load(tmp_path / "expected.pt", weights_only=True)
    alone = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    saved.restore(alone)
    assert all(torch.equal(alone[name], expected[name]) for name in expected)


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_muon_is_torchs_to_the_bit(shape):
    generator = torch.Generator().manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone())
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = Muon([ours], **options), torch.optim.Muon([theirs], **options, adjust_lr_fn="original")
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(ours, theirs)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=generator)).float())
    assert 0.5 < singular.min() <= singular.max() < 1.3


def test_muon_takes_each_matrix_of_a_stack_for_itself():
    generator = torch.Generator().manual_seed(0)
    stack = torch.nn.Parameter(torch.randn(3, 24, 8, generator=generator))
    alone = [torch.nn.Parameter(one.detach().clone()) for one in stack]
    stack.grad = torch.randn(stack.shape, generator=generator)
    for parameter, gradient in zip(alone, stack.grad, strict=True):
        parameter.grad = gradient.clone()
    Muon([stack], lr=0.02).step()
    Muon(alone, lr=0.02).step()
    assert torch.equal(stack, torch.stack(list(alone)))


LOSING = """
try:
    with joined("cpu") as workers, workers.one_voice(), workers.together():
        workers.total(1)
        if workers.number == {lost}:
            os.kill(os.getpid(), signal.{signal})
        while True:
            workers.total(1)
            time.sleep(0.01)
except WorkerLost as error:
    print(f"worker {{workers.number}} says: {{error}}", file=sys.stderr)
    sys.exit(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 2])
def test_a_killed_worker_is_named_once_and_nobody_hangs(tmp_path, lost):
    began = time.monotonic()
    ended = together(LOSING.format(lost=lost, signal="SIGKILL"), tmp_path, count=3)
    assert time.monotonic() - began < 40
    assert ended.returncode == 1
    if lost == 0:
        assert "windlass: worker 0 (process" in ended.stderr
        assert "was killed by SIGKILL" in ended.stderr
        assert "says:" not in ended.stderr
    else:
        assert f"worker 0 says: Worker {lost} (process" in ended.stderr
        assert ended.stderr.count("says:") == 1


@pytest.mark.slow
def test_a_worker_that_hangs_is_given_up(tmp_path):
    began = time.monotonic()
    ended = together(LOSING.format(lost=1, signal="SIGSTOP"), tmp_path, grace=1, **{module.TIMEOUT: "3"})
    assert ended.returncode == 1
    assert "worker 0 says: A worker did not answer" in ended.stderr
    assert time.monotonic() - began < 90


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_launcher_passes_signals_on(tmp_path, number):
    code = """
import os, signal, sys, time
def stop(number, frame):
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"ready\\n")
time.sleep(60)
"""
    (tmp_path / "code.py").write_text(code)
    starter = (
        "import sys\nfrom windlass.build.training.distributed.launch import launch\n"
        f"sys.exit(launch(2, [sys.executable, {str(tmp_path / 'code.py')!r}]))"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        process.send_signal(number)
        assert process.wait(30) == 130


def test_a_launch_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        launch(0, ["true"])

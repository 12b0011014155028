"""For how long does saving hold up the training? Ours against waiting for the disk, and against the field's own.

One process trains nothing but does what training does: a step is some matrix products, and changes every tensor of the
state (weights and two moments in float32). Every so many steps it saves. "blocked" is the median time for which the
loop stands still per save, waiting for the save before it included. The limit is one copy of the state in memory.

    python -m bench.checkpoint [--megabytes 200] [--steps 40] [--every 10] [--rounds 3]

Peers: `torch.save`, and `torch.distributed.checkpoint.async_save`, which torchtitan uses; each synced to disk as ours
is, the peers with one `os.sync` of the file after they say they are done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from windlass.build.training.checkpoints.saving import Saver

Save = Callable[[int, dict[str, Tensor]], None]


def state_of(megabytes: int) -> dict[str, Tensor]:
    """Matrices of 1 MB, as many as asked for."""
    return {f"blocks.{i}.weight": torch.randn(512, 512) for i in range(megabytes)}


def train(state: dict[str, Tensor], steps: int, every: int, save: Save, finish: Callable[[], None]) -> list[float]:
    """Seconds that the loop stood still for each save but the first, which allocates."""
    x = torch.randn(512, 512)
    blocked = []
    for step in range(1, steps + 1):
        for weight in list(state.values())[:20]:
            x = torch.tanh(x @ weight)
        for weight in state.values():
            weight.mul_(0.999)
        if step % every == 0:
            start = time.perf_counter()
            save(step, state)
            blocked.append(time.perf_counter() - start)
    finish()
    return blocked[1:]


def ours(folder: Path, wait: bool) -> tuple[Save, Callable[[], None]]:
    saver = Saver(folder, keep=1)

    def save(step: int, state: dict[str, Tensor]) -> None:
        saver.save(step, state, {"step": step})
        if wait:
            saver.wait()

    return save, saver.wait


def with_torch_save(folder: Path) -> tuple[Save, Callable[[], None]]:
    def save(step: int, state: dict[str, Tensor]) -> None:
        path = folder / f"{step}.pt"
        torch.save(state, path)
        _synced(path)
        for old in folder.glob("*.pt"):
            if old != path:
                old.unlink()

    return save, lambda: None


def with_dcp(folder: Path) -> tuple[Save, Callable[[], None]]:
    pending: list[tuple[Any, Path]] = []

    def finish() -> None:
        while pending:
            future, path = pending.pop()
            future.result()
            for file in path.rglob("*.distcp"):
                _synced(file)
            for old in folder.iterdir():
                if old != path:
                    shutil.rmtree(old)

    def save(step: int, state: dict[str, Tensor]) -> None:
        finish()
        path = folder / str(step)
        pending.append((dcp.async_save(state, checkpoint_id=str(path), no_dist=True), path))

    return save, finish


def _synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


ROWS: dict[str, Callable[[Path], tuple[Save, Callable[[], None]]]] = {
    "ours, beside the loop": lambda folder: ours(folder, wait=False),
    "ours, waiting for the disk": lambda folder: ours(folder, wait=True),
    "torch.save": with_torch_save,
    "torch.distributed.checkpoint.async_save": with_dcp,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    state = state_of(args.megabytes)
    copy = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    began = time.perf_counter()
    for name, tensor in state.items():
        copy[name].copy_(tensor)
    limit = time.perf_counter() - began
    del copy
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(args.rounds):
        for name, make in ROWS.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name] += train(state, args.steps, args.every, *make(Path(folder)))
    middle = {name: statistics.median(values) for name, values in found.items()}
    print(f"{args.megabytes} MB of state, saved every {args.every} of {args.steps} steps, {args.rounds} rounds\n")
    print(f"{'':42}{'blocked ms':>12}")
    for name, seconds in middle.items():
        print(f"{name:42}{seconds * 1e3:12.0f}")
    print(f"{'limit: one copy in memory':42}{limit * 1e3:12.0f}")
    mine = middle["ours, beside the loop"]
    result = {
        "bench": "checkpoint",
        "ratio": round(middle["torch.distributed.checkpoint.async_save"] / mine, 2),
        "against": "blocked time of torch.distributed.checkpoint.async_save",
        "vs_waiting": round(middle["ours, waiting for the disk"] / mine, 2),
        "vs_torch_save": round(middle["torch.save"] / mine, 2),
        "blocked_ms": round(mine * 1e3, 1),
        "megabytes": args.megabytes,
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()

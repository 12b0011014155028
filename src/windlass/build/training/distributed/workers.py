"""Workers: the processes that train one model together, and the little they say to each other.

One process alone is a `Workers` of one, so the training code knows no second case. Several find each other as torchrun
arranges it (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), or `launch`. Worker 0 leads: it alone holds the
run, prints, logs and stores; the others follow. All must see the workspace folder.

Training is a function of the step, not of the number of workers: a step's examples are chosen for all workers at once,
each takes its share of the rows, and sums, never means, are added up over the workers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from windlass.core.errors import InputError, WindlassError

T = TypeVar("T")
DeviceKind = Literal["auto", "cpu", "cuda", "mps"]

TIMEOUT = "WINDLASS_WORKER_TIMEOUT"
"""Environment variable: seconds after which a worker that does not answer counts as lost."""
_TIMEOUT_S = 600.0
_LEADER_FIRST = timedelta(seconds=5)
"""How long the others wait for the leader to meet the same error."""
_PATIENCE = timedelta(days=7)
"""For the leader's preparations, such as tokenizing a large corpus."""


class WorkerLost(WindlassError):
    """Another worker ended or fell silent; nothing can be computed together any more."""


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among its equals."""

    number: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: tuple[tuple[str, int], ...] = ()
    """Host and process id of every worker, by number."""
    store: Any = None
    """Where workers leave each other notes, a `torch.distributed.Store`."""

    @property
    def leads(self) -> bool:
        return self.number == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's part of what a step works on."""
        return items[self.number :: self.count]

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums over all workers, exact for counts below 2^53. All must call it together."""
        if self.count == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return tuple(sums.tolist())

    def any(self, *values: bool) -> tuple[bool, ...]:
        """Which of the values hold on at least one worker. All must call it together."""
        return tuple(value > 0 for value in self.total(*map(float, values)))

    def led(self, *values: float) -> tuple[float, ...]:
        """The leader's values. All must call it together."""
        return self.total(*(value if self.leads else 0 for value in values))

    def told(self, topic: str, value: Any = None) -> Any:
        """The value (JSON) that the leader gives, on all workers, which wait for it for as long as it takes."""
        if self.count == 1:
            return value
        if self.leads:
            self.store.set(f"windlass/{topic}", json.dumps(value))
            return value
        self.store.wait([f"windlass/{topic}"], _PATIENCE)
        return json.loads(self.store.get(f"windlass/{topic}"))

    @property
    def screen(self) -> TextIO:
        """Where progress is shown: standard error for the leader, nowhere for the others."""
        return sys.stderr if self.leads else _Nowhere()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within the block, a failure to reach the other workers is a `WorkerLost` that names the lost one."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_about_others(error):
                raise
            lost = self._lost()
            if lost is None:
                what = f"A worker did not answer ({str(error).splitlines()[0]})"
            else:
                what = f"Worker {lost} (process {self.processes[lost][1]}) was lost"
            raise WorkerLost(
                f"{what}; training cannot go on without it.",
                "The last checkpoint is whole: the same command goes on from there, with any number of workers.",
            ) from error

    @contextlib.contextmanager
    def one_voice(self) -> Iterator[None]:
        """Within the block, an error that all workers meet ends the others without a word: the leader reports it."""
        try:
            yield
        except (KeyboardInterrupt, WindlassError) as error:
            if self.leads:
                with contextlib.suppress(RuntimeError):  # the notes may be gone with another worker
                    if self.count > 1:
                        self.store.set("ended", "")
                raise
            if isinstance(error, KeyboardInterrupt):
                sys.exit(130)
            if isinstance(error, WorkerLost) or self._leader_ended():
                sys.exit(error.exit_code)
            raise

    def _leader_ended(self) -> bool:
        """Whether the leader met an error too, or is gone: the notes are in its keeping, or in that of torchrun."""
        try:
            self.store.wait(["ended"], _LEADER_FIRST)
        except dist.DistStoreError:
            return False
        except RuntimeError:
            return True
        return True

    def _lost(self, patience: float = 2.0) -> int | None:
        """A worker on this machine whose process is no more: the one that was missed first, for others then end too."""
        here = [i for i, (host, _) in enumerate(self.processes) if host == platform.node() and i != self.number]
        deadline = time.monotonic() + patience
        while not (dead := [i for i in here if _is_dead(self.processes[i][1])]):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)
        try:
            return int(self.store.compare_set("lost", "", str(dead[0])))
        except RuntimeError:  # the notes went with the leader
            return 0 if 0 in dead else dead[0]


ALONE = Workers()


class _Nowhere(io.StringIO):
    def write(self, text: str, /) -> int:
        return len(text)


@dataclass(frozen=True, slots=True)
class Following:
    """The leader's run as the others see it: where it is, and nothing to write."""

    id: str
    folder: Path

    def log(self, step: int, **metrics: float) -> None:
        """The leader does."""

    def flush(self) -> None:
        """The leader does."""


@contextlib.contextmanager
def joined(device: DeviceKind = "auto") -> Iterator[Workers]:
    """This process among the workers that torchrun, or `launch`, started, or a `Workers` of one."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield Workers(device=device_of(device, 0))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = device_of(device, local)
    if chosen.type == "mps":
        raise InputError("Several workers cannot share an Apple GPU.", "Train with one worker, or with --device cpu.")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    timeout = timedelta(seconds=float(os.environ.get(TIMEOUT, _TIMEOUT_S)))
    cuda = chosen.type == "cuda"
    store, number, count = next(rendezvous("env://", timeout=timeout))
    notes = PrefixStore("notes", store)
    notes.set(f"worker/{number}", json.dumps([platform.node(), os.getpid()]))
    processes = tuple((host, pid) for host, pid in (json.loads(notes.get(f"worker/{i}")) for i in range(count)))
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=number,
        world_size=count,
        timeout=timeout,
        device_id=chosen if cuda else None,
    )
    try:
        yield Workers(number, count, chosen, processes, notes)
    finally:
        dist.destroy_process_group()


def device_of(kind: DeviceKind, local: int) -> torch.device:
    """The one place that chooses: CUDA if there is any, else the CPU; Apple's GPU when asked for. `local` numbers the
    workers of a machine.

    Raises `InputError` when what is asked for is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if kind == "auto":
        kind = "cuda" if there["cuda"] else "cpu"
    if not there[kind]:
        raise InputError(f"There is no device of kind '{kind}' on this machine.", "Use --device cpu.")
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"Worker {local} of this machine has no GPU: there are {torch.cuda.device_count()}.",
                "Start as many workers as there are GPUs.",
            )
        return torch.device("cuda", local)
    return torch.device(kind)


def _is_about_others(error: RuntimeError) -> bool:
    """Gloo raises plain `RuntimeError`s; its messages name its source files or what TCP said."""
    if isinstance(error, dist.DistError):
        return True
    signs = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe", "Timed out waiting")
    return any(sign in str(error) for sign in signs)


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # ended, but its parent has not asked yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return not Path("/proc/self").exists()

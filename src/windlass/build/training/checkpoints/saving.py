"""Saving while training goes on: a copy in host memory, which a thread writes while the loop does the next steps.

The loop waits for the copy only (docs/lab.md). At most one checkpoint is being written; a failure of the writing
thread reaches the loop at its next step; the process does not end before the thread has.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.distributed.pieces import Piece, piece_of
from windlass.core.errors import WindlassError

_LOOK_EVERY = 0.02
PATIENCE = 600.0
"""Seconds that worker 0 waits for the other workers' parts."""
_LAST_PATIENCE = 5.0
"""The same when the run ends by an error, perhaps since another worker is no more."""


class Saver:
    """The checkpoints of one run; a context manager that ends when all is written.

    `keep` newest checkpoints stay and, with `best`, the one saved with the lowest score. With several workers each
    makes its own `Saver` and calls it in the same steps; all see the same folder.
    """

    def __init__(self, run: Path, *, keep: int = 2, best: bool = False, worker: int = 0, workers: int = 1) -> None:
        self.run, self.keep, self.best = run, keep, best
        self.worker, self.workers = worker, workers
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._host: dict[str, Tensor] = {}
        self._give_up_at = float("inf")
        self._last = max(checkpoint.steps(run), default=-1)

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def save(
        self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, score: float | None = None
    ) -> None:
        """Begins to save and returns as soon as `tensors` may change again; does nothing for the step saved last.

        Waits for the save before it, and raises its error. `facts` is JSON.
        """
        self.wait()
        if step == self._last:
            return
        facts = json.loads(json.dumps(dict(facts)))  # a copy, and an error here rather than in the thread
        pieces = {name: piece_of(tensor) for name, tensor in tensors.items()}
        parts = self.workers if any(piece.cut for piece in pieces.values()) else 1
        copies = self._copied({name: piece for name, piece in pieces.items() if piece.cut or self.worker == 0})
        self._give_up_at = float("inf")
        self._thread = threading.Thread(
            target=self._guarded, args=(step, copies, parts, facts, score), name=f"checkpoint of step {step}"
        )
        self._thread.start()
        self._last = step

    def check(self) -> None:
        """Raises the error of the save in flight, if it has failed. Costs nothing; call it every step."""
        if self._error is not None:
            error, self._error = self._error, None
            self._last = -1
            raise error

    def wait(self) -> None:
        """Until nothing is in flight; raises its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
            return
        self._give_up_at = time.monotonic() + _LAST_PATIENCE
        with contextlib.suppress(WindlassError):  # the error that ends the run says more
            self.wait()

    def _copied(self, pieces: Mapping[str, Piece]) -> dict[str, Piece]:
        """Copies in host memory that is kept from save to save, pinned for a GPU, which then copies at full speed."""
        copies = {}
        for name, piece in pieces.items():
            host = self._host.get(name)
            if host is None or host.shape != piece.rows.shape or host.dtype != piece.rows.dtype:
                host = torch.empty(piece.rows.shape, dtype=piece.rows.dtype, pin_memory=piece.rows.is_cuda)
                self._host[name] = host
            host.copy_(piece.rows, non_blocking=piece.rows.is_cuda)
            copies[name] = replace(piece, rows=host)
        if any(piece.rows.is_cuda for piece in pieces.values()):
            torch.cuda.synchronize()
        return copies

    def _guarded(self, *args: Any) -> None:
        try:
            self._write(*args)
        except BaseException as error:  # noqa: BLE001 (raised again in the loop's thread)
            self._error = error

    def _write(
        self, step: int, pieces: Mapping[str, Piece], parts: int, facts: Mapping[str, Any], score: float | None
    ) -> None:
        folder = checkpoint.step_folder(self.run, step)
        try:
            if self.worker < parts:
                checkpoint.write_part(folder, pieces, self.worker, parts)
            if self.worker == 0:
                self._wait_for_parts(folder, parts)
                checkpoint.commit(self.run, step, parts, facts, score)
        except BaseException:
            if self.worker == 0 and folder.exists():
                checkpoint.remove(folder)
            raise
        if self.worker == 0:
            checkpoint.prune(self.run, self.keep, best=self.best)

    def _wait_for_parts(self, folder: Path, parts: int) -> None:
        deadline = time.monotonic() + PATIENCE
        missing = list(range(1, parts))
        while missing := [i for i in missing if not (folder / checkpoint.part_name(i, parts)).exists()]:
            if time.monotonic() > min(deadline, self._give_up_at):
                raise WindlassError(
                    f"Worker {missing[0]} did not write its part of the checkpoint {folder}.",
                    "The checkpoint before is whole; the same command goes on from there. "
                    "All workers must see the same workspace folder.",
                )
            time.sleep(_LOOK_EVERY)

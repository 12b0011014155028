"""Where documents are judged: in this process, or in several; in the order in which they came, whoever judged them."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Literal

from windlass.build.corpus.judging import Batch, Engine, Judge, Judged
from windlass.build.corpus.ray_engine import on_ray
from windlass.core.errors import InputError, WindlassError


def engine(name: Literal["local", "ray"] = "local", workers: int = 1) -> Engine:
    """The engine of that name. Raises `InputError` for a number of workers that makes no sense."""
    if workers < 1:
        raise InputError(f"{workers} workers cannot do anything.", "Give 1, or as many as there are processors.")
    if name == "ray":
        return on_ray(workers)
    return here if workers == 1 else processes(workers)


def here(judge: Judge, batches: Iterator[Batch]) -> Generator[Judged, None, None]:
    """Judges in this process."""
    yield from map(judge, batches)


def processes(workers: int) -> Engine:
    """Judges in a pool of `workers` processes, while this one reads and writes."""

    def judged(judge: Judge, batches: Iterator[Batch]) -> Generator[Judged, None, None]:
        waiting: deque[Future[Judged]] = deque()
        # Not forked: a fork in a process that has threads (of NumPy, of a notebook) may hang.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(judge,))
        try:
            for batch in batches:
                waiting.append(pool.submit(_judge, batch))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise WindlassError(
                "A process that judged documents died; the system may have run out of memory.",
                "Use fewer workers. A script of your own must begin its work below `if __name__ == '__main__':`.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return judged


_own: Judge | None = None


def _begin(judge: Judge) -> None:
    """Sets up a process of the pool: Ctrl-C is its parent's business, and it does not outlive its parent."""
    global _own
    _own = judge
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _judge(batch: Batch) -> Judged:
    assert _own is not None
    return _own(batch)

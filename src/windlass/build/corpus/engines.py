"""Where documents are judged: in this process, or in several; in the order in which they came, whoever judged them."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process

from windlass.build.corpus.judging import Judge, Judged
from windlass.core.documents import Document
from windlass.core.errors import WindlassError

Batch = Sequence[Document]
Engine = Callable[[Judge, Iterator[Batch]], Iterator[Judged]]
"""Judges batches, without running further ahead than it must: its memory does not depend on how many there are."""


def here(judge: Judge, batches: Iterator[Batch]) -> Iterator[Judged]:
    """Judges in this process."""
    return map(judge, batches)


def processes(workers: int) -> Engine:
    """Judges in a pool of `workers` processes, while this one reads and writes."""

    def engine(judge: Judge, batches: Iterator[Batch]) -> Iterator[Judged]:
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
                "Run the command again with fewer workers.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return engine


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

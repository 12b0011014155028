"""One thread for the arithmetic that is not an engine's: what encoders compute, and adapters while they are read.

A thread that computes gets a team of OpenMP's threads, buffers of MKL's and an arena of the allocator, and keeps them
as long as it lives: 5 to 8 MB with MiniLM on two processors. Computed wherever a request happens to be answered, that
came once more whenever more requests met than ever before, for each of the server's threads (docs/lab.md), and teams
fought for the processors meanwhile. One after another, the passes of all requests have the whole machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def in_one_thread(work: Callable[[], T]) -> T:
    """The result of `work`, computed with the caller's number of threads when those who came before are done. Raises
    what it raises.

    It must not come back here itself, and should be short: one pass, so that who asks for much lets others between.
    Modes of PyTorch (`inference_mode`) are each thread's own, so `work` has to set its own.
    """
    threads = torch.get_num_threads()

    def alike() -> T:
        if torch.get_num_threads() != threads:  # it is each thread's own too
            torch.set_num_threads(threads)
        return work()

    return _pool.submit(alike).result()


def _new() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="windlass-arithmetic")


def _after_fork() -> None:
    """The thread did not come along."""
    global _pool
    _pool = _new()


_pool = _new()
os.register_at_fork(after_in_child=_after_fork)

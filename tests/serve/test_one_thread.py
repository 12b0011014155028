"""Whoever asks, one thread computes: what each thread of PyTorch's keeps for itself is there once."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_world import save_encoder
from torch.nn.modules.module import register_module_forward_pre_hook

from windlass.core.errors import InputError
from windlass.serve.encoders.cross_encoder import CrossEncoder, TextClassifier
from windlass.serve.encoders.embedder import SentenceEncoder
from windlass.serve.one_thread import in_one_thread

TEXTS = ["the old pump moves water", "bread"]
ENCODERS: dict[str, tuple[Any, str, dict[str, Any], Callable[[Any], Any]]] = {
    "embedder": (SentenceEncoder, "Model", {}, lambda one: one.embed(TEXTS)),
    "reranker": (CrossEncoder, "ForSequenceClassification", {"num_labels": 1}, lambda one: one.rank("cat", TEXTS)),
    "classifier": (TextClassifier, "ForSequenceClassification", {"num_labels": 3}, lambda one: one.classify(TEXTS)),
}


def at_once(work: Callable[[], Any], askers: int = 6) -> None:
    """`work` by threads that are all alive until the last one has done it."""
    done = threading.Barrier(askers)

    def ask() -> None:
        try:
            work()
        finally:
            done.wait(60)

    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_compute_in_one_thread_for_all(kind: str, tmp_path: Path) -> None:
    made, head, settings, ask = ENCODERS[kind]
    save_encoder(tmp_path, "Bert", head, **settings)
    encoder = made.from_folder(tmp_path)
    seen: set[int] = set()
    hook = register_module_forward_pre_hook(lambda *_: seen.add(threading.get_ident()))
    try:
        at_once(lambda: ask(encoder))
    finally:
        hook.remove()
    assert len(seen) == 1


def test_what_goes_wrong_reaches_the_one_who_asked() -> None:
    def wrong() -> None:
        raise InputError("Not this.")

    with pytest.raises(InputError, match="Not this"):
        in_one_thread(wrong)
    assert in_one_thread(lambda: 7) == 7


def test_computes_with_as_many_processors_as_the_caller() -> None:
    before = torch.get_num_threads()
    try:
        for count in (1, 3, 2):
            torch.set_num_threads(count)
            assert in_one_thread(torch.get_num_threads) == count
    finally:
        torch.set_num_threads(before)


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    script = """
import os
from windlass.serve.one_thread import in_one_thread
ours = in_one_thread(os.getpid)
if (child := os.fork()) == 0:
    os._exit(0 if in_one_thread(os.getpid) == os.getpid() != ours else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)

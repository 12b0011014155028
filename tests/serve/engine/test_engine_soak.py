"""Several threads ask, cancel, leave and fail at random: every answer is right, every request ends, nothing is left."""

from __future__ import annotations

import random
import resource
import threading
import time

import pytest

torch = pytest.importorskip("torch")

from tiny_decoders import ask, decoder, greedy, prompts  # noqa: E402

from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.engine import Engine  # noqa: E402


class Failing:
    """A constraint that breaks after a few tokens."""

    def __init__(self, after: int) -> None:
        self.after = after

    ended = False

    def allow(self, logits_V):
        self.after -= 1
        if self.after < 0:
            raise RuntimeError("broken on purpose")

    def accept(self, token):
        pass

    def forced(self):
        return []

    def rollback(self, count):
        pass

    def copy(self):
        return self


def abuse(engine: Engine, expected: dict[int, list[int]], asked: list[list[int]], seed: int, until: float) -> int:
    """Requests of one client; how many it made."""
    draw = random.Random(seed)
    made = 0
    while time.monotonic() < until:
        made += 1
        number = draw.randrange(len(asked))
        length = draw.randrange(1, 30)
        what = draw.choice(["whole", "whole", "cancel", "deadline", "bad", "broken"])
        more: dict[str, object] = {"priority": draw.randrange(3)}
        if what == "bad":
            with pytest.raises(InputError):
                engine.submit(ask(asked[number], 10_000))
            continue
        if what == "deadline":
            more["deadline"] = time.monotonic() + draw.random() * 0.05
        if what == "broken":
            more["constraint"] = Failing(draw.randrange(4))
        run = engine.submit(ask(asked[number], length, **more))
        told: list[int] = []
        leaves = draw.randrange(length) if what == "cancel" else None
        try:
            for token in run:
                told.append(token.id)
                if len(told) == leaves:
                    run.cancel()
        except RuntimeError as error:
            assert what == "broken" and str(error) == "broken on purpose"
        if leaves == 0:
            run.cancel()
        assert run.wait(60), "a request that never ends"
        assert told == expected[number][: len(told)]
        allowed = {"whole": {"length"}, "cancel": {"length", "cancelled"}, "deadline": {"length", "deadline"},
                   "broken": {"length", "error"}}[what]  # fmt: skip
        assert run.finish in allowed
        assert run.finish != "length" or len(told) == length
    return made


def soak(seconds: float, clients: int) -> tuple[Engine, int]:
    model = decoder()
    (shared,) = prompts(33)
    asked = [*prompts(2, 17, 40, 60), *(shared + tail for tail in prompts(4, 11, seed=7))]
    expected = {number: greedy(model, prompt, 30) for number, prompt in enumerate(asked)}
    engine = Engine(model, max_batch=4, token_budget=24, kv_tokens=272)
    until, made, failed = time.monotonic() + seconds, [0] * clients, []

    def client(number: int) -> None:
        try:
            made[number] = abuse(engine, expected, asked, number, until)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return engine, sum(made)


def test_a_short_abuse_leaves_nothing_behind():
    engine, made = soak(3.0, 6)
    stats = engine.stats()
    assert made > 20 and stats.ended == stats.requests
    assert (stats.running, stats.waiting, stats.kv_held) == (0, 0, 0)
    assert stats.kv_cached <= stats.kv_tokens and stats.cached_tokens > 0
    assert stats.preemptions and stats.cancelled and stats.late, "it was abuse"
    engine.close()


@pytest.mark.slow
def test_a_long_abuse_needs_no_more_memory():
    soak(10.0, 8)[0].close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine, _ = soak(40.0, 8)
    assert engine.stats().ended == engine.stats().requests
    engine.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, f"{grown} KiB more"

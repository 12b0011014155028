from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

from windlass.serve.engine.sampling.drawing import Guess
from windlass.serve.engine.speculation.speculation import Drafting, Speculation


class Always:
    """Guesses the same token for ever."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def guess(self, tokens: list[int], most: int) -> list[Guess]:
        return [Guess(7)] * most


def live(
    speculation: Speculation, request: Drafting, steps: int, *, chance: float, base: float, more: float, rows: int = 1
) -> tuple[float, int]:
    """A model whose step takes `base` + `more` for each token; `rows` of them run, one of which guesses. Seconds and
    tokens written by that one."""
    chances = random.Random(0)
    seconds, written = 0.0, 0
    for _ in range(steps):
        guessed = len(request.propose([1, 2, 3], 8))
        right = 0
        while right < guessed and chances.random() < chance:
            right += 1
        took = base + more * (rows + guessed)
        speculation.observe(rows + guessed, rows, took * chances.uniform(0.95, 1.05))
        if guessed:
            request.learn(guessed, right)
        seconds += took + guessed * request._guesser.seconds
        written += 1 + right
    return seconds, written


@pytest.mark.parametrize(
    ("chance", "more", "gains"),
    [
        (0.9, 0.01, True),
        (0.9, 0.1, True),
        (0.6, 0.1, True),
        (0.05, 0.2, False),
        (0.3, 0.5, False),
        (0.0, 0.01, False),
        (0.05, 0.0, False),
    ],
)
def test_guessing_goes_on_where_it_gains_and_ends_where_it_does_not(chance: float, more: float, gains: bool) -> None:
    speculation = Speculation()
    request = Drafting(speculation, Always())
    seconds, written = live(speculation, request, 600, chance=chance, base=1.0, more=more)
    gain = (written / seconds) * (1.0 + more)
    if gains:
        assert gain > 1.15
        assert speculation.declined < 60
    else:
        assert gain > 0.95, "what was tried in vain costs next to nothing"
        assert speculation.declined > 400


def test_a_slow_draft_model_is_left_out() -> None:
    speculation = Speculation()
    request = Drafting(speculation, Always(seconds=0.9))
    live(speculation, request, 300, chance=0.7, base=1.0, more=0.0)
    stats = speculation.stats()
    assert stats.declined > 250 and stats.guessed > 0


def test_one_request_stops_while_another_goes_on() -> None:
    speculation = Speculation()
    good, bad = Drafting(speculation, Always()), Drafting(speculation, Always())
    for _ in range(30):
        live(speculation, good, 10, chance=0.95, base=1.0, more=0.3)
        live(speculation, bad, 10, chance=0.0, base=1.0, more=0.3)
    tokens = [1, 2, 3]
    proposed = {name: len(one.propose(tokens, 8)) for name, one in (("good", good), ("bad", bad))}
    assert proposed["good"] >= 2 and proposed["bad"] <= 1


def test_what_stopped_paying_is_tried_again_when_the_batch_shrinks() -> None:
    speculation = Speculation()
    request = Drafting(speculation, Always())
    live(speculation, request, 300, chance=0.8, base=1.0, more=1.0, rows=16)
    before = speculation.stats()
    assert before.declined > 250, "a full batch writes its tokens for less than a guess costs"
    live(speculation, request, 1000, chance=0.8, base=1.0, more=0.02, rows=1)
    after = speculation.stats()
    assert after.right - before.right > 1000


def test_figures_say_what_was_measured() -> None:
    speculation = Speculation()
    assert speculation.stats().token_seconds is None and speculation.stats().guess_seconds is None
    request = Drafting(speculation, Always())
    live(speculation, request, 400, chance=0.8, base=1.0, more=0.1)
    stats = speculation.stats()
    assert stats.token_seconds == pytest.approx(1.1, rel=0.25)
    assert stats.guess_seconds == pytest.approx(0.1, abs=0.04)
    assert stats.chance == pytest.approx(0.8, abs=0.08)
    assert 0 < stats.right < stats.guessed

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

from windlass.serve.engine.sampling.drawing import Guess
from windlass.serve.engine.speculation.speculation import Drafting, Speculation


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Always:
    """Guesses the same token for ever; each guess takes a while."""

    def __init__(self, clock: Clock, seconds: float = 0.0) -> None:
        self._clock, self._takes = clock, seconds

    def catch_up(self, tokens: list[int]) -> None:
        pass

    def guess(self, tokens: list[int], most: int) -> list[Guess]:
        self._clock.now += most * self._takes
        return [Guess(7)] * most


def world(seconds: float = 0.0, *, rows: int = 1) -> tuple[Speculation, list[Drafting]]:
    """Requests whose guesses take so long to make."""
    speculation = Speculation(clock=Clock())
    guessers = [Always(speculation.clock, seconds) for _ in range(rows)]  # type: ignore[arg-type]
    return speculation, [Drafting(speculation, one) for one in guessers]


def live(
    speculation: Speculation, requests: list[Drafting], steps: int, *, chance: float, base: float, more: float,
    others: int = 0, surcharge: float = 0.0, seed: int = 0,
) -> tuple[float, int]:  # fmt: skip
    """A model whose step takes `base` + `more` for each token, and a `surcharge` with any guess; besides `requests`,
    `others` run that do not guess. Seconds, and tokens written by all."""
    chances, clock = random.Random(seed), speculation.clock
    assert isinstance(clock, Clock)
    rows, started, written = len(requests) + others, clock.now, 0
    for _ in range(steps):
        speculation.begin(rows)
        guessed = [len(one.propose([1, 2, 3], 8)) for one in requests]
        clock.now += (base + surcharge * any(guessed) + more * (rows + sum(guessed))) * chances.uniform(0.95, 1.05)
        wrote = rows
        for one, count in zip(requests, guessed, strict=True):
            right = 0
            while right < count and chances.random() < chance:
                right += 1
            if count:
                one.learn(count, right)
            wrote += right
        speculation.end(rows, rows + sum(guessed), wrote, alike=True)
        written += wrote
    return clock.now - started, written


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
    speculation, requests = world()
    seconds, written = live(speculation, requests, 600, chance=chance, base=1.0, more=more)
    gain = (written / seconds) * (1.0 + more)
    if gains:
        assert gain > 1.15
        assert speculation.declined < 60
    else:
        assert gain > 0.95, "what was tried in vain costs next to nothing"
        assert speculation.declined > 400


def test_a_slow_draft_model_is_left_out() -> None:
    speculation, requests = world(0.9)
    live(speculation, requests, 300, chance=0.7, base=1.0, more=0.0)
    stats = speculation.stats()
    assert stats.declined > 250 and stats.offered > 0


def test_one_request_stops_while_another_goes_on() -> None:
    speculation, (good, bad) = world(rows=2)
    for _ in range(60):
        live(speculation, [good], 10, chance=0.95, base=1.0, more=0.3)
        live(speculation, [bad], 2, chance=0.0, base=1.0, more=0.3)
    speculation.guessing = True
    proposed = {name: len(one.propose([1, 2, 3], 8)) for name, one in (("good", good), ("bad", bad))}
    assert proposed["good"] >= 2 and proposed["bad"] <= 1


def test_what_does_not_pay_in_a_full_batch_pays_again_when_it_shrinks() -> None:
    speculation, requests = world()
    live(speculation, requests, 300, chance=0.8, base=1.0, more=1.0, others=15)
    before = speculation.stats()
    assert before.declined > 250, "a full batch writes its tokens for less than a guess costs"
    live(speculation, requests, 1000, chance=0.8, base=1.0, more=0.02)
    after = speculation.stats()
    assert after.accepted - before.accepted > 1000


def test_a_draft_model_that_gains_for_one_answer_loses_nothing_at_eight() -> None:
    """It guesses for one answer after the other: what is cheap beside a step for one is not beside the same step for
    eight."""
    gains = {}
    for rows in (1, 8):
        speculation, requests = world(0.15, rows=rows)
        seconds, written = live(speculation, requests, 200, chance=0.7, base=1.0, more=0.02)
        gains[rows] = (written / seconds) / (rows / (1.0 + 0.02 * rows))
    assert gains[1] > 1.2 and gains[8] > 0.97, "already after few steps"


@pytest.mark.parametrize("rows", [1, 8])
def test_what_costs_more_than_can_be_predicted_is_given_up(rows: int) -> None:
    """A step with guesses that cannot go the fast way costs much, whether there are few of them or many."""
    speculation, requests = world(rows=rows)
    seconds, written = live(speculation, requests, 1500, chance=0.7, base=1.0, more=0.02, surcharge=4.0)
    assert (written / seconds) / (rows / (1.0 + 0.02 * rows)) > 0.93
    assert speculation.stats().offered > 10


def test_it_is_decided_for_each_size_of_the_batch_apart() -> None:
    speculation, requests = world(0.15, rows=8)
    offered = {1: 0, 8: 0}
    for turn in range(30):
        for rows in (8, 1):
            before = speculation.offered
            live(speculation, requests[:rows], 40, chance=0.7, base=1.0, more=0.02, seed=turn)
            offered[rows] += speculation.offered - before
    assert offered[1] > 2000 and offered[8] < 200, "guesses of 1,200 steps each, of one answer and of eight"


def test_what_stops_gaining_is_given_up_and_tried_again() -> None:
    speculation, requests = world(0.1)
    live(speculation, requests, 300, chance=0.9, base=1.0, more=0.02)
    seconds, written = live(speculation, requests, 1500, chance=0.0, base=1.0, more=0.02)
    assert written / seconds * 1.02 > 0.93
    seconds, written = live(speculation, requests, 1500, chance=0.9, base=1.0, more=0.02)
    assert written / seconds * 1.02 > 1.5


def test_guesses_made_in_steps_that_cannot_be_compared_are_paid_for_in_those_that_can() -> None:
    """A draft model reads a prompt in the very step in which the model reads it."""
    speculation, (request,) = world(0.3)
    clock = speculation.clock
    assert isinstance(clock, Clock)
    for _ in range(300):  # answers of three tokens: one step reads the prompt, two are alike
        for alike in (False, True, True):
            speculation.begin(1)
            count = len(request.propose([1, 2, 3], 1))
            clock.now += 1.0 + (0 if alike else 5.0)
            if count:
                request.learn(count, 1 if alike else 0)
            speculation.end(1, 1 + count, 1 + (count if alike else 0), alike=alike)
    plain, guessing = speculation.stats().token_seconds, speculation.stats().guessing_token_seconds
    assert plain == pytest.approx(1.0)
    assert guessing is not None and guessing == pytest.approx((2 * 1.3 + 0.3) / 4, rel=0.15)


@pytest.mark.parametrize(("length", "least"), [(150, 1.25), (6, 0.9)], ids=["long answers", "short answers"])
def test_the_reading_of_a_prompt_is_an_investment(length: int, least: float) -> None:
    """Of 20 steps, which long answers pay back and short ones do not."""

    class Reading(Always):
        unread = 20.0

        def catch_up(self, tokens: list[int]) -> None:
            self._clock.now += self.unread
            self.unread = 0.0

    speculation, _ = world()
    clock = speculation.clock
    assert isinstance(clock, Clock)
    seconds = written = 0.0
    for answer in range(3000 // length):
        one = Drafting(speculation, Reading(clock, 0.1))
        steps = 0.0
        while steps < length:
            took, wrote = live(speculation, [one], 1, chance=0.8, base=1.0, more=0.02, seed=answer * 1000 + int(steps))
            seconds, written, steps = seconds + took, written + wrote, steps + wrote
    assert written / seconds * 1.02 > least


def test_figures_say_what_was_measured() -> None:
    speculation, requests = world()
    empty = speculation.stats()
    assert empty.token_seconds is empty.guessing_token_seconds is empty.guess_seconds is None
    live(speculation, requests, 400, chance=0.8, base=1.0, more=0.1)
    stats = speculation.stats()
    assert stats.token_seconds == pytest.approx(1.1, rel=0.1)
    assert stats.guess_seconds == pytest.approx(0.1, abs=0.04)
    assert stats.chance == pytest.approx(0.8, abs=0.08)
    assert stats.guessing_token_seconds is not None and stats.guessing_token_seconds < 0.8
    assert 0 < stats.accepted < stats.offered

"""In which order targets are asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from windlass.serve.gateway.config import Breaker
from windlass.serve.gateway.targets import Target, order


def target(name: str, weight: float = 1.0) -> Target:
    return Target(name, "", weight, None, Breaker(failures=2, rest_s=30))


def test_weights_are_shares_and_fallbacks_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.serve.gateway.targets.random", random.Random(7))
    big, small, spare = target("big", 3), target("small", 1), target("spare", 99)
    orders = Counter(tuple(t.provider for t in order([big, small], [spare], "weight")) for _ in range(4000))
    assert set(orders) == {("big", "small", "spare"), ("small", "big", "spare")}
    assert 0.72 < orders["big", "small", "spare"] / 4000 < 0.78


def test_the_least_busy_is_asked_first_for_its_weight() -> None:
    big, small = target("big", 3), target("small", 1)
    seen = Counter[str]()
    for _ in range(40):
        first = next(order([big, small], [], "least_busy"))
        first.begin()
        seen[first.provider] += 1
    assert seen == {"big": 30, "small": 10}
    for _ in range(20):
        big.end()
    assert next(order([big, small], [], "least_busy")) is big


def test_one_that_rests_is_asked_last() -> None:
    tired, fresh = target("tired", 1000), target("fresh")
    tired.failed()
    assert not tired.resting
    tired.failed()
    assert tired.resting and tired.wait() > 29
    for _ in range(20):
        assert [t.provider for t in order([tired, fresh], [], "weight")] == ["fresh", "tired"]


def test_after_its_rest_one_request_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("windlass.serve.gateway.targets.time.monotonic", lambda: now)
    one = target("one")
    for _ in range(2):
        one.begin()
        one.failed()
        one.end()
    assert one.wait() == 30
    now += 31
    assert one.wait() == 0
    one.begin()
    assert one.resting, "the second one waits for what comes of the first"
    one.failed()
    one.end()
    assert one.wait() == 30
    now += 31
    one.begin()
    one.succeeded()
    one.end()
    assert one.wait() == 0 and not one.resting


def test_a_wish_to_be_left_alone_is_granted_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.serve.gateway.targets.time.monotonic", lambda: 100.0)
    one = target("one")
    one.leave_alone(7)
    assert one.wait() == 7 and not one.resting
    one.leave_alone(10**9)
    assert one.wait() == 60

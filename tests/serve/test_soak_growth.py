"""What `bench.soak` says of memory is not fooled by steps."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from bench.soak import growth

MB = 1e6


def memory(level: Callable[[float], float], minutes: float = 20) -> list[tuple[float, int]]:
    """A reading every second, of which each is 0.2 MB beside the level."""
    draw = random.Random(0)
    return [(t, int(level(t / 60) + draw.gauss(0, 0.2 * MB))) for t in range(int(minutes * 60))]


def test_flat_memory_has_a_narrow_interval_around_zero() -> None:
    found = growth(memory(lambda minute: 380 * MB))
    assert found.low < 0 < found.high and found.high - found.low < 0.2 * MB


def test_a_steady_leak_is_told_with_its_rate() -> None:
    found = growth(memory(lambda minute: 380 * MB + 0.3 * MB * minute))
    assert 0 < found.low < 0.3 * MB < found.high < 0.45 * MB


@pytest.mark.parametrize("steps", [(15,), (11, 16), (12, 14, 18)])
def test_steps_are_growth_of_which_little_is_certain(steps: tuple[float, ...]) -> None:
    found = growth(memory(lambda minute: 380 * MB + 8 * MB * sum(minute > one for one in steps)))
    assert found.estimate > 0.5 * MB and found.high - found.low > found.estimate


def test_what_grew_before_the_second_half_does_not_count() -> None:
    found = growth(memory(lambda minute: 300 * MB + 80 * MB * min(minute / 9, 1)))
    assert found.low < 0 < found.high < 0.2 * MB

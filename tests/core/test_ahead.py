"""An iterator that works ahead gives the same items, and never more work than was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from windlass.core.ahead import ahead


def test_the_items_come_in_their_order() -> None:
    assert list(ahead(range(1000), 3)) == list(range(1000))
    assert list(ahead([])) == []


def test_it_works_meanwhile_but_not_further_ahead_than_it_may() -> None:
    made, third = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    reading = ahead(items(), 2)
    assert next(reading) == 0
    assert third.wait(30), "nothing is made while nobody reads"
    assert len(made) <= 4  # read, two waiting, one in hand
    reading.close()


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("two is missing")

    reading = ahead(items())
    assert next(reading) == 1
    with pytest.raises(ValueError, match="two is missing"):
        next(reading)


def test_who_leaves_early_ends_the_work() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    before = threading.active_count()
    reading = ahead(items(), 1)
    assert next(reading) == 0
    reading.close()
    assert closed.is_set() and threading.active_count() == before


def test_one_may_read_from_another() -> None:
    reading = ahead((item * 2 for item in ahead(range(10_000))), 1)
    assert [next(reading) for _ in range(3)] == [0, 2, 4]
    reading.close()

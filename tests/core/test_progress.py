"""Progress: what it shows, where, how often, and what an update costs."""

from __future__ import annotations

import io
import time

import pytest

from windlass.core.progress import Progress, tracked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_elsewhere_than_on_a_terminal_lines_are_rare_and_plain(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("train", 1000, "steps", out=out, every=10) as progress:
        for step in range(1, 161):
            clock.now += 0.25
            progress.update(step, "loss 2.5")
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert "\r" not in out.getvalue()
    assert lines[0] == "train: 40/1,000 steps · 4.0 steps/s · 4 min left · loss 2.5"


def test_a_terminal_shows_one_line_that_goes_away(clock: Clock) -> None:
    out = Terminal()
    with Progress("train", 10, "steps", out=out) as progress:
        for step in range(1, 11):
            clock.now += 0.2
            progress.update(step)
    text = out.getvalue()
    assert "\n" not in text
    assert text.count("\r\x1b[2K") == 11
    assert text.endswith("\r\x1b[2K")


def test_a_line_too_long_for_the_terminal_is_cut_so_that_it_can_go_away(clock: Clock) -> None:
    out = Terminal()
    with Progress("train", 10, "steps", out=out) as progress:
        clock.now += 1
        progress.update(1, "loss " * 100)
    assert max(map(len, out.getvalue().split("\r\x1b[2K"))) == 79 and "…" in out.getvalue()


def test_a_terminal_that_cannot_rewrite_gets_plain_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Progress("train", 10, "steps", out=out, every=1) as progress:
        clock.now += 2
        progress.update(1)
        clock.now += 2
        progress.update(2)
    assert "\x1b" not in out.getvalue() and out.getvalue().endswith("\n")


def test_a_resumed_job_counts_only_what_it_did_itself(clock: Clock) -> None:
    out = io.StringIO()
    with Progress("train", 1000, "steps", out=out, every=1, start=900) as progress:
        clock.now += 10
        progress.update(950)
    assert "950/1,000 steps · 5.0 steps/s · 10 s left" in out.getvalue()


def test_without_a_start_the_first_update_is_the_start(clock: Clock) -> None:
    progress = Progress("read", None, "files", out=io.StringIO())
    clock.now += 5
    progress.update(100)
    clock.now += 5
    progress.update(150)
    assert progress.line(clock.now) == "read: 150 files · 10.0 files/s"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(90, "90 s left"), (120, "2 min left"), (600, "10 min left"), (7_300, "2 h 2 min left")]
)
def test_the_remaining_time_is_readable(clock: Clock, seconds: int, shown: str) -> None:
    progress = Progress("train", 1 + seconds, "steps", out=io.StringIO(), start=0)
    clock.now += 1
    progress.update(1)
    assert shown in progress.line(clock.now)


def test_nothing_done_yet_has_no_estimate(clock: Clock) -> None:
    progress = Progress("train", 10, "steps", out=io.StringIO(), start=0)
    assert progress.line(clock.now) == "train: 0/10 steps"
    clock.now += 5
    assert progress.line(clock.now) == "train: 0/10 steps · 0.0 steps/s"


def test_tracked_yields_everything(clock: Clock) -> None:
    assert list(tracked(iter("abc"), "x", 3, "letters")) == ["a", "b", "c"]


def test_an_update_seldom_prints(clock: Clock) -> None:
    written = []

    class Counting(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    with Progress("x", None, "items", out=Counting(), every=10) as progress:
        for done in range(10_000):
            clock.now += 0.001
            progress.update(done)
    assert len(written) <= 1

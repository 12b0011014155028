"""What every key has used, counted in memory and written to disk together, some twenty times a second.

A commit takes milliseconds: one for a request and one more for what it took would cost more than all else that a
server adds to a call. So a decision is made from memory, and one thread writes what came together. What holds:

- In one process the counts are exact: every request is decided under one lock, over all that was counted before it.
- Several processes on one workspace learn of each other through the file. Each writes after `INTERVAL` and decides on
  what it read at most `INTERVAL` ago, so that together they may pass a limit by what they admit within the sum of
  both, and a commit.
- `kill -9` loses what was counted within the last `INTERVAL` and a commit. Where the disk is slow, never more than
  `BEHIND`: while something older is unwritten, nothing is admitted.
"""

from __future__ import annotations

import atexit
import calendar
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from windlass.core.errors import WindlassError, WorkspaceBusy
from windlass.core.sqlite import Database

INTERVAL = 0.05
"""Seconds for which uses come together before they are written, and for which what others wrote may go unread."""
BEHIND = 1.0
"""Seconds that a use may go unwritten, before further requests wait for the disk."""

TABLE = """CREATE TABLE used (
    key TEXT NOT NULL REFERENCES keys, period TEXT NOT NULL, start INTEGER NOT NULL, requests INTEGER NOT NULL,
    tokens INTEGER NOT NULL, dollars REAL NOT NULL, unpriced INTEGER NOT NULL, PRIMARY KEY (key, period, start)
) WITHOUT ROWID"""

Period = Literal["minute", "day", "month"]
Slot = tuple[Period, int]
"""A period and when it began."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Used:
    requests: int = 0
    tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    """Calls whose cost is not known."""

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests, self.tokens + other.tokens, self.dollars + other.dollars,
            self.unpriced + other.unpriced,
        )  # fmt: skip


_NOTHING = Used()


@dataclass(slots=True)
class _Account:
    """What is known of one key."""

    read: Mapping[Slot, Used] = field(default_factory=dict)
    """What the file said; of any slot that is not here, nothing is known."""
    since: float = 0.0
    """When it was read."""
    writing: dict[Slot, Used] = field(default_factory=dict)
    """What is being written: whether the file holds it already cannot be told."""
    waiting: dict[Slot, Used] = field(default_factory=dict)
    """What came after."""

    def used(self, slot: Slot) -> Used:
        return self.read[slot] + self.writing.get(slot, _NOTHING) + self.waiting.get(slot, _NOTHING)

    def add(self, slots: Mapping[Slot, Used]) -> None:
        for slot, used in slots.items():
            self.waiting[slot] = self.waiting.get(slot, _NOTHING) + used


class Ledger:
    """The counts in the table `used` of a database. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._accounts: dict[str, _Account] = {}
        self._changed = threading.Condition(threading.Lock())  # a round of writing is over
        self._some = threading.Event()  # there is something to write
        self._hurry = threading.Event()  # and somebody waits for it
        self._writer: tuple[threading.Thread, threading.Event] | None = None  # and what tells it to end
        self._writing = threading.Lock()  # one that is ending may still write while the next one starts
        self._rounds = 0
        self._busy = False
        self._oldest: float | None = None  # when the first of what waits was counted
        self._older: float | None = None  # the same of what is being written
        self._failure: WindlassError | None = None

    def admit(self, key: str, now: float, judge: Callable[[Mapping[Slot, Used]], T | None]) -> T | None:
        """Counts a request, unless `judge` says why not: from what was used in this minute and the one before, in this
        day and this month.

        Waits for the disk where `at_hand` is false. Raises what keeps uses from being written.
        """
        with self._changed:
            self._caught_up()
            account, slots = self._known(key, now)
            refusal = judge({slot: account.used(slot) for slot in slots})
            if refusal is None:
                self._add(account, now, Used(requests=1))
        return refusal

    def charge(self, key: str, now: float, used: Used) -> None:
        """Counts what a request took. Never waits."""
        with self._changed:
            self._add(self._accounts.setdefault(key, _Account()), now, used)

    def used(self, key: str, period: Period, now: float) -> Used:
        """What was used in the period that `now` falls into."""
        with self._changed:
            account, slots = self._known(key, now)
            return next(account.used(slot) for slot in reversed(slots) if slot[0] == period)

    def at_hand(self, key: str, now: float) -> bool:
        """Whether `admit` decides without waiting for a commit."""
        with self._changed:
            account = self._accounts.get(key)
            unknown = account is None or any(slot not in account.read for slot in _slots(now))
            return not self._late() and not (unknown and self._busy)

    def flush(self) -> None:
        """Returns when all that was counted before is on disk. Raises what keeps it from that."""
        with self._changed:
            if self._oldest is None and self._older is None:
                return
            until = self._rounds + (2 if self._busy and self._oldest is not None else 1)
            self._hurry.set()
            self._changed.wait_for(lambda: self._rounds >= until)
            if self._failure is not None:
                raise self._failure

    def close(self) -> None:
        """Writes what waits, and ends the writer. Counting again starts it again. Raises as `flush` does."""
        with self._changed:
            writer, self._writer = self._writer, None
        if writer is None:
            return
        atexit.unregister(self._exit)
        thread, end = writer
        for event in (end, self._hurry, self._some):
            event.set()
        thread.join()
        if self._failure is not None:
            raise self._failure

    # under the lock ---------------------------------------------------------------------------------------------------

    def _late(self) -> bool:
        oldest = self._oldest if self._older is None else self._older
        return oldest is not None and time.monotonic() - oldest > BEHIND

    def _caught_up(self) -> None:
        while self._late():
            if self._failure is not None:
                raise self._failure
            self._hurry.set()
            if not self._changed.wait(30):
                raise WorkspaceBusy(f"{self._database.path} takes nothing more.", "See whether its disk still works.")

    def _known(self, key: str, now: float) -> tuple[_Account, tuple[Slot, ...]]:
        """The account, read as lately as is promised, and the periods that count at `now`."""
        account, slots = self._accounts.setdefault(key, _Account()), _slots(now)
        while any(slot not in account.read for slot in slots) and account.writing:
            self._changed.wait()  # the file may or may not hold what is being written
        stale = time.monotonic() - account.since > INTERVAL and not account.writing and not account.waiting
        if stale or any(slot not in account.read for slot in slots):
            began = time.monotonic()
            account.read, account.since = _counts(self._database.read(*_query(key, slots)), slots), began
        return account, slots

    def _add(self, account: _Account, now: float, used: Used) -> None:
        account.add(dict.fromkeys(_slots(now)[1:], used))
        if self._oldest is None:
            self._oldest = time.monotonic()
            self._some.set()
        if self._writer is None:
            end = threading.Event()
            thread = threading.Thread(target=self._work, args=(end,), name="windlass-ledger", daemon=True)
            self._writer = thread, end
            thread.start()
            atexit.register(self._exit)

    # the writer -------------------------------------------------------------------------------------------------------

    def _work(self, end: threading.Event) -> None:
        while True:
            self._some.wait()
            self._hurry.wait(INTERVAL)
            self._hurry.clear()
            last = end.is_set()  # asked before: what was counted when it was set is in this round
            with self._writing:
                self._round()
            if last:
                return

    def _round(self) -> None:
        """Writes what waits, and reads what others wrote."""
        with self._changed:
            self._some.clear()
            batch = {key: account for key, account in self._accounts.items() if account.waiting}
            for account in batch.values():
                account.writing, account.waiting = account.waiting, {}
            self._older, self._oldest, self._busy = self._oldest, None, True
        began, failure, read = time.monotonic(), None, {}
        try:
            with self._database.write() as connection:
                read = {key: _written(connection, key, account.writing) for key, account in batch.items()}
        except WindlassError as error:
            failure = error
        with self._changed:
            for key, account in batch.items():
                written, account.writing = account.writing, {}
                if failure is None:
                    account.read, account.since = read[key], began
                else:
                    account.add(written)
            if failure is not None:
                self._oldest = self._older
                self._some.set()
                if self._failure is None:
                    print(f"windlass: what keys use is not being stored: {failure.message}", file=sys.stderr)
            self._older, self._busy, self._failure = None, False, failure
            self._rounds += 1
            self._changed.notify_all()

    def _exit(self) -> None:
        try:
            self.close()
        except WindlassError as error:
            print(f"windlass: the last uses of keys were not stored: {error.message}", file=sys.stderr)


def _slots(now: float) -> tuple[Slot, ...]:
    """The minute before, and those minute, day and month, in UTC, that `now` falls into: where a use counts."""
    minute, day = int(now // 60) * 60, time.gmtime(now)
    return ("minute", minute - 60), ("minute", minute), ("day", int(now // 86400) * 86400), ("month", month_start(day))


def month_start(day: time.struct_time, *, later: int = 0) -> int:
    """When the month of a day began, or one some months later, in seconds."""
    years, month = divmod(day.tm_mon - 1 + later, 12)
    return calendar.timegm((day.tm_year + years, month + 1, 1, 0, 0, 0))


def _query(key: str, slots: tuple[Slot, ...]) -> tuple[str, tuple[str | int, ...]]:
    which = " OR ".join(["(period = ? AND start = ?)"] * len(slots))
    columns = "period, start, requests, tokens, dollars, unpriced"
    return f"SELECT {columns} FROM used WHERE key = ? AND ({which})", (key, *(part for slot in slots for part in slot))


def _counts(rows: list[tuple[Any, ...]], slots: tuple[Slot, ...]) -> dict[Slot, Used]:
    """Rows of `_query`, with nothing for the slots that have none."""
    return dict.fromkeys(slots, _NOTHING) | {(period, start): Used(*used) for period, start, *used in rows}


def _written(connection: sqlite3.Connection, key: str, uses: Mapping[Slot, Used]) -> dict[Slot, Used]:
    """Adds the uses to the file; returns what it says now of the periods that count from here on."""
    for (period, start), used in uses.items():
        connection.execute(
            "INSERT INTO used VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,"
            " tokens = tokens + excluded.tokens, dollars = dollars + excluded.dollars,"
            " unpriced = unpriced + excluded.unpriced",
            (key, period, start, used.requests, used.tokens, used.dollars, used.unpriced),
        )
    newest = max(start for period, start in uses if period == "minute")
    # Minutes are needed for two minutes only; days and months are a record.
    connection.execute("DELETE FROM used WHERE key = ? AND period = 'minute' AND start < ?", (key, newest - 60))
    slots = _slots(newest)
    return _counts(connection.execute(*_query(key, slots)).fetchall(), slots)

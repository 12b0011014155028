"""What was spent under each name, and what calls under way may come to take, in a file that all processes share.

What a call may take is charged when it begins, and corrected when it has ended. So nothing has to be found out about
callers that died: what they had under way stays charged as it was estimated, since it may have been paid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windlass.core.files import disk_errors
from windlass.core.sqlite import Database

Per = Literal["day", "month", "ever"]

_MIGRATIONS = (
    (
        """CREATE TABLE spent (
            name TEXT NOT NULL, period TEXT NOT NULL, tokens INTEGER NOT NULL, dollars REAL NOT NULL,
            tokens_held INTEGER NOT NULL, dollars_held REAL NOT NULL, unpriced INTEGER NOT NULL, calls INTEGER NOT NULL,
            PRIMARY KEY (name, period)
        ) WITHOUT ROWID""",
    ),
)


_READ = "SELECT tokens, dollars, tokens_held, dollars_held, unpriced, calls FROM spent WHERE name = ? AND period = ?"


@dataclass(frozen=True, slots=True)
class Spent:
    """Under one name, in one period."""

    tokens: int = 0
    dollars: float = 0.0
    tokens_held: int = 0
    """What calls under way may take besides, as estimated."""
    dollars_held: float = 0.0
    unpriced: int = 0
    """Calls whose cost nobody knows."""
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """Where something is charged."""

    name: str
    period: str


def ledger_path(root: Path) -> Path:
    """The ledger of the workspace whose `.windlass` folder is `root`."""
    return root / "budgets.db"


def period(per: Per, now: float) -> str:
    """The day or month, in UTC, that `now` falls into; empty for ever."""
    return time.strftime({"day": "%Y-%m-%d", "month": "%Y-%m", "ever": ""}[per], time.gmtime(now))


class Ledger:
    """The ledger in the file `path`. Safe between threads and processes."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = Database(path, _MIGRATIONS, synced=False)
        # Threads wait here for their turn rather than in SQLite, which lets them sleep and then guess again.
        self._turn = threading.Lock()

    def spent(self, slot: Slot) -> Spent:
        rows = self._database.read(_READ, (slot.name, slot.period))
        return Spent(*rows[0]) if rows else Spent()

    def hold(
        self, slots: Sequence[Slot], tokens: int, dollars: float, check: Callable[[Slot, Spent], None] | None = None
    ) -> None:
        """Charges an estimate to all slots, unless `check` raises for one of them: then to none."""
        with self._turn, self._database.write() as connection:
            for slot in slots:
                if check is not None:
                    rows = connection.execute(_READ, (slot.name, slot.period)).fetchall()
                    check(slot, Spent(*rows[0]) if rows else Spent())
                connection.execute(
                    "INSERT INTO spent VALUES (?,?,0,0,?,?,0,1) ON CONFLICT DO UPDATE SET"
                    " tokens_held = tokens_held + excluded.tokens_held,"
                    " dollars_held = dollars_held + excluded.dollars_held, calls = calls + 1",
                    (slot.name, slot.period, tokens, dollars),
                )

    def settle(
        self, slots: Sequence[Slot], tokens_held: int, dollars_held: float, tokens: int, dollars: float | None
    ) -> None:
        """Gives an estimate back and charges what the call took. `dollars` None: nobody knows."""
        with self._turn, self._database.write() as connection:
            for slot in slots:
                connection.execute(
                    "UPDATE spent SET tokens = tokens + ?, dollars = dollars + ?, unpriced = unpriced + ?,"
                    " tokens_held = tokens_held - ?,"
                    # Sums of binary fractions: what is nothing shall read as nothing.
                    " dollars_held = CASE WHEN dollars_held - ? < 1e-12 THEN 0 ELSE dollars_held - ? END"
                    " WHERE name = ? AND period = ?",
                    (
                        tokens, dollars or 0.0, int(dollars is None), tokens_held, dollars_held, dollars_held,
                        slot.name, slot.period,
                    ),
                )  # fmt: skip

    def close(self) -> None:
        self._database.close()

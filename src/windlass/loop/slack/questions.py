"""Questions that were taken on: each is on the disk before Slack is told that it arrived, until it is answered.

Slack delivers an event again when it is not acknowledged in time, so the same question may come more than once; and a
process may be killed between taking a question on and answering it. A row for each question settles both.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from windlass.core.sqlite import Database

_MIGRATIONS = (
    (
        "CREATE TABLE questions (channel TEXT, ts TEXT, question TEXT NOT NULL, taken REAL NOT NULL, answered REAL,"
        " PRIMARY KEY (channel, ts)) WITHOUT ROWID",
    ),
)
_KEPT = 7 * 86400
"""Seconds for which an answered question is remembered. Slack gives up delivering an event after hours."""
FILE = "slack.db"


@dataclass(frozen=True, slots=True)
class Question:
    channel: str
    ts: str
    """Slack's id of the message within its channel."""
    thread: str
    """The message that the thread hangs on: `ts` itself where the question begins one."""
    user: str
    text: str
    direct: bool
    """Nobody but the one who asks reads the channel."""


class Questions:
    """Those in the file `path`, which is created when absent."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _MIGRATIONS)

    def take(self, question: Question) -> bool:
        """Whether it is new. When this returns, it is on the disk."""
        now = time.time()
        with self._database.write() as connection:
            connection.execute("DELETE FROM questions WHERE answered < ?", (now - _KEPT,))
            found = connection.execute(
                "INSERT OR IGNORE INTO questions VALUES (?, ?, ?, ?, NULL)",
                (question.channel, question.ts, json.dumps(asdict(question)), now),
            )
            return found.rowcount == 1

    def done(self, question: Question) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE questions SET answered = ? WHERE channel = ? AND ts = ?",
                (time.time(), question.channel, question.ts),
            )

    def open(self) -> list[Question]:
        """What was taken on and not answered, oldest first."""
        rows = self._database.read("SELECT question FROM questions WHERE answered IS NULL ORDER BY taken")
        return [Question(**json.loads(row[0])) for row in rows]

    def close(self) -> None:
        self._database.close()

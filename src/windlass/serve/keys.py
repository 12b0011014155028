"""API keys in the workspace: hashed, with scopes, and with limits on rate, tokens and money.

A key is 32 random bytes, so a plain SHA-256 is enough to keep it from being read out of the file; it is shown once,
when it is made. What was used is counted per key and minute, day and month, in the same file: the limits hold across
processes and restarts, and a key that `windlass keys revoke` takes back is refused by the next request.

A limit per minute looks at a sliding window: the current minute, and the part of the one before that is less than 60
seconds ago, taken to be spread evenly.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from windlass.core.errors import InputError, NotFound
from windlass.core.sqlite import Database

Scope = Literal["generate", "embed", "batch", "admin"]
"""What a key may do: write text (chat, completions, responses, tokens), embed and rerank, run batches, and read
metrics and the studio's pages."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "wl-"
FILE = "keys.db"
"""Where a workspace keeps them, in its folder."""

_MIGRATIONS = (
    (
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL,
            limits TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL
        )""",
        """CREATE TABLE used (
            key TEXT NOT NULL REFERENCES keys, period TEXT NOT NULL, start INTEGER NOT NULL, requests INTEGER NOT NULL,
            tokens INTEGER NOT NULL, dollars REAL NOT NULL, unpriced INTEGER NOT NULL, PRIMARY KEY (key, period, start)
        ) WITHOUT ROWID""",
    ),
)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    dollars_per_month: float | None = None
    """Calls whose cost is not known are counted apart (`Used.unpriced`), not as free."""
    dollars_per_day: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"The limit {name} is {value}, but must be above 0.", "Leave it out for no limit.")


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    name: str
    scopes: frozenset[str]
    limits: KeyLimits
    created: float
    expires: float | None
    revoked: float | None

    def usable(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class Used:
    requests: int = 0
    tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    """Calls whose cost is not known."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit that is reached."""

    limit: str
    message: str
    wait: int
    """Seconds after which it is worth asking again."""


class Keys:
    """The keys in the file `path`, which is created when absent. Safe to share between threads and processes."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _MIGRATIONS)

    def close(self) -> None:
        self._database.close()

    def add(
        self, name: str, scopes: Sequence[str], limits: KeyLimits | None = None, *, days: float | None = None
    ) -> tuple[Key, str]:
        """A new key, and its secret, which nobody can ask for again. `days`: how long it is good for."""
        if not name.strip() or len(name) > 100:
            raise InputError("A key's name must have 1 to 100 characters.", "Name who uses it.")
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise InputError(f"There is no scope '{unknown[0]}'.", f"Scopes: {', '.join(SCOPES)}.")
        if not scopes:
            raise InputError("A key without a scope opens nothing.", f"Scopes: {', '.join(SCOPES)}.")
        if days is not None and not (days > 0 and math.isfinite(days)):
            raise InputError(f"A key cannot be good for {days} days.", "Leave it out for a key without end.")
        now, secret = time.time(), PREFIX + secrets.token_urlsafe(32)
        key = Key(
            secrets.token_hex(6), name, frozenset(scopes), limits or KeyLimits(), now,
            None if days is None else now + days * 86400, None,
        )  # fmt: skip
        with self._database.write() as connection:
            if connection.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchone():
                raise InputError(f"There is a key named '{name}' already.", "Choose another name.")
            connection.execute(
                "INSERT INTO keys VALUES (?,?,?,?,?,?,?,?)",
                (
                    key.id, name, _hash(secret), json.dumps(sorted(scopes)), json.dumps(asdict(key.limits)), now,
                    key.expires, None,
                ),
            )  # fmt: skip
        return key, secret

    def revoke(self, name: str) -> Key:
        """Takes a key back, by name or id. What it used stays on record. Raises `NotFound`."""
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE name = ? OR id = ?", (time.time(), name, name)
            ).rowcount
        if not changed:
            raise NotFound(f"There is no key '{name}'.", "`windlass keys list` shows them.")
        return next(key for key in self.all() if name in (key.name, key.id))

    def all(self) -> list[Key]:
        """Oldest first, revoked ones included."""
        return [_key(row) for row in self._database.read(f"SELECT {_COLUMNS} FROM keys ORDER BY created")]

    def any(self) -> bool:
        """Whether there ever was a key: from then on, requests need one."""
        return bool(self._database.read("SELECT 1 FROM keys LIMIT 1"))

    def find(self, secret: str) -> Key | None:
        """The usable key of this secret."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM keys WHERE hash = ?", (_hash(secret),))
        key = _key(rows[0]) if rows else None
        return key if key is not None and key.usable(time.time()) else None

    def used(self, key: str, period: Literal["minute", "day", "month"], now: float | None = None) -> Used:
        """What the key of this id used in the period that `now` falls into."""
        start = _starts(time.time() if now is None else now)[period]
        return self._used(key, period, start)

    def admit(self, key: Key, now: float | None = None, *, tokens: int = 0, dollars: float = 0.0) -> Refusal | None:
        """Counts a request, unless a limit is reached: then says which.

        `tokens` and `dollars` are what it and others under way may come to take, where that can be foreseen: a limit
        that they would pass counts as reached.
        """
        now = time.time() if now is None else now
        with self._database.write() as connection:
            refusal = self._refusal(key, now, tokens, dollars)
            if refusal is None:
                _add(connection, key.id, now, Used(requests=1))
        return refusal

    def charge(self, key: Key, tokens: int, dollars: float | None, now: float | None = None) -> None:
        """Counts what a request used, once that is known."""
        used = Used(tokens=tokens, dollars=dollars or 0.0, unpriced=int(dollars is None))
        with self._database.write() as connection:
            _add(connection, key.id, time.time() if now is None else now, used)

    def _refusal(self, key: Key, now: float, tokens: int, dollars: float) -> Refusal | None:
        limits, starts = key.limits, _starts(now)
        into_minute = now % 60
        this = self._used(key.id, "minute", starts["minute"])
        before = self._used(key.id, "minute", starts["minute"] - 60)
        share = 1 - into_minute / 60
        wait = max(1, math.ceil(60 - into_minute))
        day, month = self._used(key.id, "day", starts["day"]), self._used(key.id, "month", starts["month"])
        next_month = time.gmtime(starts["month"] + 32 * 86400)
        until_month = _month(next_month.tm_year, next_month.tm_mon) - now
        midnight = math.ceil(86400 - now % 86400)
        # The request itself counts at once; its tokens and its cost are known only afterwards, at best foreseen.
        for limit, used, more, seconds in (
            ("requests_per_minute", this.requests + before.requests * share, 1, wait),
            ("tokens_per_minute", this.tokens + before.tokens * share, tokens, wait),
            ("tokens_per_day", day.tokens, tokens, midnight),
            ("dollars_per_day", day.dollars, dollars, midnight),
            ("dollars_per_month", month.dollars, dollars, math.ceil(until_month)),
        ):
            allowed = getattr(limits, limit)
            if allowed is None or (used + more <= allowed and (used < allowed or limit == "requests_per_minute")):
                continue
            what = limit.replace("_", " ")
            message = f"The key '{key.name}' has reached its limit of {allowed:g} {what}."
            if used < allowed and limit != "requests_per_minute":
                message = (
                    f"The key '{key.name}' may use {allowed:g} {what}. {used:g} are used, and {more:g} may be taken by"
                    " this request and those under way."
                )
            return Refusal(limit, message, seconds)
        return None

    def _used(self, key: str, period: str, start: int) -> Used:
        rows = self._database.read(
            "SELECT requests, tokens, dollars, unpriced FROM used WHERE key = ? AND period = ? AND start = ?",
            (key, period, start),
        )
        return Used(*rows[0]) if rows else Used()


_COLUMNS = "id, name, scopes, limits, created, expires, revoked"


def _key(row: Sequence[Any]) -> Key:
    id, name, scopes, limits, created, expires, revoked = row
    return Key(id, name, frozenset(json.loads(scopes)), KeyLimits(**json.loads(limits)), created, expires, revoked)


def _add(connection: Any, key: str, now: float, used: Used) -> None:
    starts = _starts(now)
    for period, start in starts.items():
        connection.execute(
            "INSERT INTO used VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,"
            " tokens = tokens + excluded.tokens, dollars = dollars + excluded.dollars,"
            " unpriced = unpriced + excluded.unpriced",
            (key, period, start, used.requests, used.tokens, used.dollars, used.unpriced),
        )
    # Minutes are needed for two minutes only; days and months are a record.
    connection.execute(
        "DELETE FROM used WHERE key = ? AND period = 'minute' AND start < ?", (key, starts["minute"] - 60)
    )


def _starts(now: float) -> dict[str, int]:
    """When the minute, the day and the month began, in UTC."""
    day = time.gmtime(now)
    return {
        "minute": int(now // 60) * 60,
        "day": int(now // 86400) * 86400,
        "month": _month(day.tm_year, day.tm_mon),
    }


def _month(year: int, month: int) -> int:
    return calendar.timegm((year, month, 1, 0, 0, 0))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

"""API keys in the workspace: hashed, with scopes, and with limits on rate, tokens and money.

A key is 32 random bytes, so a plain SHA-256 is enough to keep it from being read out of the file; it is shown once,
when it is made. What was used is counted per key and minute, day and month, in the same file, by `serve.ledger`, which
says how exactly the limits hold across threads, processes and crashes. A key that `windlass keys revoke` takes back is
refused by the next request.

A limit per minute looks at a sliding window: the current minute, and the part of the one before that is less than 60
seconds ago, taken to be spread evenly.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from windlass.core.errors import InputError, NotFound
from windlass.core.sqlite import Database
from windlass.serve.ledger import TABLE, Ledger, Period, Slot, Used, month_start

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
        TABLE,
    ),
    ("ALTER TABLE keys ADD COLUMN access TEXT NOT NULL DEFAULT '[]'",),
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
    access: frozenset[str] = frozenset()
    """The labels of documents that it may find, besides those that anybody may."""

    def usable(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


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
        self._ledger = Ledger(self._database)
        self._keyed = False

    def close(self) -> None:
        """Writes what is counted and not yet on disk. Raises what keeps it from that."""
        try:
            self._ledger.close()
        finally:
            self._database.close()

    def add(
        self,
        name: str,
        scopes: Sequence[str],
        limits: KeyLimits | None = None,
        *,
        days: float | None = None,
        access: Sequence[str] = (),
    ) -> tuple[Key, str]:
        """A new key, and its secret, which nobody can ask for again. `days`: how long it is good for. `access`: the
        labels of documents that it may find."""
        if not name.strip() or len(name) > 100:
            raise InputError("A key's name must have 1 to 100 characters.", "Name who uses it.")
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise InputError(f"There is no scope '{unknown[0]}'.", f"Scopes: {', '.join(SCOPES)}.")
        if not scopes:
            raise InputError("A key without a scope opens nothing.", f"Scopes: {', '.join(SCOPES)}.")
        if not all(label.strip() for label in access):
            raise InputError("An access label of the key is empty.", "Name the label that documents were given.")
        if days is not None and not (days > 0 and math.isfinite(days)):
            raise InputError(f"A key cannot be good for {days} days.", "Leave it out for a key without end.")
        now, secret = time.time(), PREFIX + secrets.token_urlsafe(32)
        key = Key(
            secrets.token_hex(6), name, frozenset(scopes), limits or KeyLimits(), now,
            None if days is None else now + days * 86400, None, frozenset(access),
        )  # fmt: skip
        with self._database.write() as connection:
            if connection.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchone():
                raise InputError(f"There is a key named '{name}' already.", "Choose another name.")
            connection.execute(
                "INSERT INTO keys VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    key.id, name, _hash(secret), json.dumps(sorted(scopes)), json.dumps(asdict(key.limits)), now,
                    key.expires, None, json.dumps(sorted(key.access)),
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
        self._keyed = self._keyed or bool(self._database.read("SELECT 1 FROM keys LIMIT 1"))
        return self._keyed

    def find(self, secret: str) -> Key | None:
        """The usable key of this secret."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM keys WHERE hash = ?", (_hash(secret),))
        key = _key(rows[0]) if rows else None
        return key if key is not None and key.usable(time.time()) else None

    def used(self, key: str, period: Period, now: float | None = None) -> Used:
        """What the key of this id used in the period that `now` falls into."""
        return self._ledger.used(key, period, time.time() if now is None else now)

    def admit(self, key: Key, now: float | None = None, *, tokens: int = 0, dollars: float = 0.0) -> Refusal | None:
        """Counts a request, unless a limit is reached: then says which.

        `tokens` and `dollars` are what it and others under way may come to take, where that can be foreseen: a limit
        that they would pass counts as reached.
        """
        now = time.time() if now is None else now
        return self._ledger.admit(key.id, now, lambda used: _refusal(key, now, used, tokens, dollars))

    def at_hand(self, key: Key) -> bool:
        """Whether `admit` decides from memory; otherwise it waits for the disk, and is no call for an event loop."""
        return self._ledger.at_hand(key.id, time.time())

    def charge(self, key: Key, tokens: int, dollars: float | None, now: float | None = None) -> None:
        """Counts what a request used, once that is known. Never waits."""
        used = Used(tokens=tokens, dollars=dollars or 0.0, unpriced=int(dollars is None))
        self._ledger.charge(key.id, time.time() if now is None else now, used)

    def flush(self) -> None:
        """Returns when all that was counted is on disk."""
        self._ledger.flush()


def _refusal(key: Key, now: float, used: Mapping[Slot, Used], tokens: int, dollars: float) -> Refusal | None:
    """Which limit stands against one more request. `used`: in the minute before, this minute, day and month."""
    before, this, day, month = used.values()
    into_minute = now % 60
    share = 1 - into_minute / 60
    wait = max(1, math.ceil(60 - into_minute))
    until_month = math.ceil(month_start(time.gmtime(now), later=1) - now)
    midnight = math.ceil(86400 - now % 86400)
    # The request itself counts at once; its tokens and its cost are known only afterwards, at best foreseen.
    for limit, taken, more, seconds in (
        ("requests_per_minute", this.requests + before.requests * share, 1, wait),
        ("tokens_per_minute", this.tokens + before.tokens * share, tokens, wait),
        ("tokens_per_day", day.tokens, tokens, midnight),
        ("dollars_per_day", day.dollars, dollars, midnight),
        ("dollars_per_month", month.dollars, dollars, until_month),
    ):
        allowed = getattr(key.limits, limit)
        if allowed is None or (taken + more <= allowed and (taken < allowed or limit == "requests_per_minute")):
            continue
        what = limit.replace("_", " ")
        message = f"The key '{key.name}' has reached its limit of {allowed:g} {what}."
        if taken < allowed and limit != "requests_per_minute":
            message = (
                f"The key '{key.name}' may use {allowed:g} {what}. {taken:g} are used, and {more:g} may be taken by"
                " this request and those under way."
            )
        return Refusal(limit, message, seconds)
    return None


_COLUMNS = "id, name, scopes, limits, created, expires, revoked, access"


def _key(row: Sequence[Any]) -> Key:
    id, name, scopes, limits, created, expires, revoked, access = row
    allowed = KeyLimits(**json.loads(limits))
    return Key(
        id, name, frozenset(json.loads(scopes)), allowed, created, expires, revoked, frozenset(json.loads(access))
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

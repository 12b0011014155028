"""Watching: ingests again whenever something changed, by looking at the files' stamps every so often.

A file that changed since the last look is still being written, as far as anyone can tell: it is left as it is until two
looks in a row see it alike. So a file that is written for minutes holds nothing else up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence

from windlass.apply.rag.ingest.changes import Interrupt
from windlass.apply.rag.ingest.roots import Root
from windlass.core.errors import InputError
from windlass.core.readers.report import ReadReport

_SHARE = 10
"""Looking takes at most a tenth of the time: a hundred thousand files are looked at less often than ten."""
_NAP = 0.2
"""Seconds after which Ctrl-C is noticed."""


class Looks:
    """What two looks in a row saw, and what was ingested."""

    def __init__(self, roots: Sequence[Root]) -> None:
        self._roots = roots
        self._done = self._last = self._look()

    def changes(self) -> tuple[bool, Collection[str]]:
        """Looks. Whether there is something to ingest, and the names of places that are to be left alone for now."""
        now, before = self._look(), self._last
        self._last = now
        moving = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
        changed = {name for name in now.keys() | self._done.keys() if now.get(name) != self._done.get(name)}
        if not changed - moving:
            return False, moving
        # what is left alone counts as it was, so that it is found changed when it has come to rest
        kept = {name: self._done[name] for name in moving if name in self._done}
        self._done = {name: stamp for name, stamp in now.items() if name not in moving} | kept
        return True, moving

    def _look(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for root in self._roots:
            if root.listed:  # pages of the web are not asked for every other second
                continue
            with contextlib.suppress(InputError):  # the folder itself is not there: then it has nothing
                found.update((root.above + file.name, file.stamp) for file in root.source.files(ReadReport()))
        return found


def watch(
    roots: Sequence[Root],
    ingest: Callable[[Collection[str]], None],
    interrupt: Interrupt,
    *,
    every: float = 2.0,
) -> None:
    """Calls `ingest`, at once and after changes, with the names of places that are being written, until `interrupt`.

    Looks every so many seconds, or less often when looking takes long.
    """
    looks = Looks(roots)
    ingest(())
    while not interrupt.requested:
        started = time.monotonic()
        changed, being_written = looks.changes()
        if changed:
            ingest(being_written)
        _rest(max(every, _SHARE * (time.monotonic() - started)) if not changed else every, interrupt)


def _rest(seconds: float, interrupt: Interrupt) -> None:
    until = time.monotonic() + seconds
    while not interrupt.requested and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _NAP))

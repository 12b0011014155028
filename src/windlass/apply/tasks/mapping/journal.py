"""The journal of a map: a line for each item that has its answer, on the disk before the item counts as done.

Lines are only ever appended, several with one write and one sync, so a crash leaves at most one torn line at the end,
which is cut off when the journal is opened again. A line is found by its key, which stands for what was asked; equal
items have a line each. Once all items are done, the file is put into their order.

    {"journal": "windlass.map", "version": 1, "task": "tone", "at_once": 16, "began": 1795000000.0}
    {"item": 0, "key": "9f…", "value": "good", "attempts": 1, "usage": {"input": 30, "output": 4}, "cost_usd": 0.00002}
    {"item": 2, "key": "04…", "error": {"kind": "NoAnswer", "reason": "…"}, "attempts": 3, …}
    {"ended": 1795000012.5}
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, WorkspaceBusy
from windlass.core.files import atomic_write, disk_errors
from windlass.core.lines import read_lines

Line = dict[str, Any]
KIND = {"journal": "windlass.map", "version": 1}
_START = b'{"journal":"windlass.map"'


class Journal:
    """Held by one process at a time. Use as a context manager.

    Memory: about 300 bytes for each line that was there before and has not been taken yet; nothing for new ones.
    Raises `InputError` for a file that is no journal, or has a broken line that is not its last; `WorkspaceBusy` while
    another process works with it. A file that is refused stays as it was.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.cut_off = 0
        """How many items may have been under way when a process that worked on this journal died: the sum of what its
        runs without an end were allowed to ask at once."""
        self.batches: dict[str, str | None] = {}
        """Batches that are not taken in yet: mark -> id, None where it is not known whether they were made."""
        self._durable = durable
        self._places: dict[bytes, list[int]] = {}
        self._waiting: list[tuple[Line, asyncio.Future[int]]] = []
        self._writing: asyncio.Task[None] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = _locked(path)
        try:
            self._end = self._load()
            self._reader = path.open("rb")
        except BaseException:
            os.close(self._handle)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        os.close(self._handle)

    def begin(self, task: str, at_once: int) -> None:
        """Says that a run begins which has at most so many items under way."""
        self._append([{**KIND, "task": task, "at_once": at_once, "began": round(time.time(), 3)}])

    def end(self) -> None:
        """Says that nothing is under way any more."""
        self._append([{"ended": round(time.time(), 3)}])

    # what is known ----------------------------------------------------------------------------------------------------

    def take(self, key: bytes) -> tuple[int, Line] | None:
        """A line of an earlier run with this key, and its place in the file. Each is given once."""
        places = self._places.get(key)
        if not places:
            return None
        place = places.pop(0)
        if not places:
            del self._places[key]
        return place, self.read(place)

    @property
    def left(self) -> int:
        """Lines that nobody took: of other items, or of another version of the task. They are kept."""
        return sum(map(len, self._places.values()))

    def read(self, place: int) -> Line:
        self._reader.seek(place)
        line: Line = json.loads(self._reader.readline())
        return line

    # what is new ------------------------------------------------------------------------------------------------------

    async def add(self, line: Line) -> int:
        """Returns the line's place once it is on the disk. Lines that come while others are written share a write."""
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, stored))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await stored

    async def note(self, line: Line) -> None:
        """A line that is no item's, on the disk when this returns."""
        await self.add(line)

    async def settled(self) -> None:
        """Waits until everything that was given is on the disk, or has failed."""
        while (writing := self._writing) is not None:
            await asyncio.wait([writing])

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    places = await asyncio.to_thread(self._append, [line for line, _ in batch])
                except Exception as error:  # noqa: BLE001 - whoever gave the line is told
                    for _, stored in batch:
                        if not stored.done():
                            stored.set_exception(error)
                else:
                    for (_, stored), place in zip(batch, places, strict=True):
                        if not stored.done():
                            stored.set_result(place)
        finally:
            self._writing = None

    def _append(self, lines: Sequence[Line]) -> list[int]:
        """Writes lines and returns their places."""
        data, places = bytearray(), []
        for line in lines:
            places.append(self._end + len(data))
            data += _text(line)
        rest = memoryview(data)
        with disk_errors(self.path):
            while rest:  # a disk that fills up takes a part, and says so the next time
                rest = rest[os.write(self._handle, rest) :]
            if self._durable:
                os.fsync(self._handle)
        self._end += len(data)
        return places

    # the file as a whole ----------------------------------------------------------------------------------------------

    def _load(self) -> int:
        """Finds what is there, cuts off a torn last line, and returns where the file ends."""
        with self.path.open("rb") as file:
            first = file.readline()
        if not (first.startswith(_START) or _START.startswith(first)):
            raise InputError(
                f"{self.path} is no journal of a map, and is left as it is.", "Give the journal another path."
            )
        end = read_lines(self.path, self._found, hint="Remove that line: its item is asked again, and all others stay.")
        os.ftruncate(self._handle, end)
        return end

    def _found(self, line: Line, place: int) -> None:
        if "key" in line:
            places = self._places.setdefault(bytes.fromhex(line["key"]), [])
            places.append(place)
            if "instead" in line:
                places.remove(line["instead"])
        elif "taken" in line:
            self.batches.pop(line["batch"], None)
        elif "batch" in line:
            self.batches[line["batch"]] = line.get("id")
        elif "journal" in line:
            self.cut_off += line["at_once"]
        elif "ended" in line:
            self.cut_off = 0

    def arrange(self, places: array[int], head: Mapping[str, Any]) -> array[int]:
        """Puts the lines of all items into their order, and those that nobody took behind them; returns the places."""
        arranged = array("q")
        with atomic_write(self.path) as file:
            file.write(_text(dict(head)))
            for number, place in enumerate(places):
                line = self.read(place)
                line.pop("instead", None)
                arranged.append(file.tell())
                file.write(_text({**line, "item": number}))
            for place in sorted(place for some in self._places.values() for place in some):
                line = self.read(place)
                line.pop("instead", None)
                file.write(_text(line))
            file.write(_text({"ended": round(time.time(), 3)}))
        return arranged


def lines_at(path: Path, places: array[int]) -> Iterator[Line]:
    """The lines at these places, one after the other."""
    with path.open("rb") as file:
        for place in places:
            file.seek(place)
            yield json.loads(file.readline())


def _text(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _locked(path: Path) -> int:
    """An open file that no other process works with: the kernel frees the lock when a process dies."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise WorkspaceBusy(
                f"Another map is already at work with the journal {path}.", "Wait for it, or give another path."
            ) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # it was put into order and replaced in the meantime

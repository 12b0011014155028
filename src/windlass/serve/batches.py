"""Batches: a file of requests, answered line by line in the background, through any number of crashes.

A batch is a JSON file that says how far it is, and two files of lines that grow: answers and errors. A line counts as
done once it is on the disk; what was under way when the process died is asked again. One server works on a batch at a
time, which holds its lock; after a restart, `work` goes on where the last one stopped. Lines that are not answered when
the batch's time is over get an error, and the batch ends as `expired`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from windlass.core.errors import DiskFull, InputError, WorkspaceBusy
from windlass.core.files import disk_errors, exclusive, write_json
from windlass.serve.filestore import FileStore, StoredFile, new_id

Status = Literal["in_progress", "cancelling", "completed", "cancelled", "expired"]
Answer = Callable[["Batch", dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]
"""The status and the body that a line's `body` gets as a request of the batch's endpoint."""

KINDS = ("output", "errors")
WINDOW = 24 * 3600.0
"""Seconds from a batch's creation in which its lines are answered."""
AT_ONCE = 8
LOOK_AGAIN = 60.0
"""Seconds after which batches that another server left, or that had no room, are looked at again."""
MAX_LINES = 50_000
_ID = re.compile(r"batch_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    endpoint: str
    input: str
    """Id of the file of requests; those of answers and errors are given from the start, and exist at the end."""
    output: str
    errors: str
    total: int
    created: float
    owner: str | None
    """Id of the key that is charged."""
    metadata: dict[str, str]
    status: Status = "in_progress"
    ended: float | None = None
    completed: int = 0
    failed: int = 0

    @property
    def open(self) -> bool:
        return self.status in ("in_progress", "cancelling")

    @property
    def expires(self) -> float:
        return self.created + WINDOW


class Batches:
    """The batches in one folder. `answer` carries a request out."""

    def __init__(self, folder: Path, files: FileStore, answer: Answer) -> None:
        self.folder = folder
        self._files = files
        self._answer = answer
        self._news = asyncio.Event()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, endpoint: str, input: StoredFile, owner: str | None, metadata: dict[str, str]) -> Batch:
        """A new batch. Raises `InputError`, which names the line, when a line of the file is not a request."""
        total = sum(1 for _ in requests(self._files.place(input.id), endpoint))
        if not total:
            raise InputError("The file holds no request.", "Upload a JSONL file with a request on each line.")
        batch = Batch(
            f"batch_{secrets.token_hex(12)}",
            endpoint,
            input.id,
            new_id(),
            new_id(),
            total,
            time.time(),
            owner,
            metadata,
        )
        self._save(batch)
        return batch

    def look(self) -> None:
        """Tells `work` that there is something new."""
        self._news.set()

    def get(self, id: str) -> Batch | None:
        """How a batch stands."""
        batch = self._load(id)
        if batch is None or not batch.open:
            return batch
        return replace(batch, completed=self._count(batch, "output"), failed=self._count(batch, "errors"))

    def all(self) -> list[Batch]:
        """Newest first."""
        found = [batch for path in self.folder.glob("batch_*.json") if (batch := self.get(path.stem)) is not None]
        return sorted(found, key=lambda batch: (batch.created, batch.id), reverse=True)

    def cancel(self, batch: Batch) -> Batch:
        """Ends a batch after the lines that are under way; what was answered is kept."""
        if batch.status == "in_progress":
            batch = replace(batch, status="cancelling")
            self._save(batch)
        return batch

    # work ------------------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Carries batches out, oldest first, until it is cancelled."""
        while True:
            self._news.clear()
            for batch in reversed(self.all()):
                if batch.open:
                    await self._try(batch)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK_AGAIN)

    async def _try(self, batch: Batch) -> None:
        """Carries a batch out, unless another server does. Without room on the disk it is taken up again later."""
        try:
            with contextlib.suppress(WorkspaceBusy), exclusive(self.folder / f"{batch.id}.lock", "a batch"):
                await self._carry_out(batch)
        except* (DiskFull, OSError) as errors:
            print(f"windlass: {batch.id} waits: {errors.exceptions[0]}", file=sys.stderr, flush=True)

    async def _carry_out(self, batch: Batch) -> None:
        known: set[str] = set()
        for kind in KINDS:
            _cut_torn_line(self._lines(batch, kind))
            known |= {one["custom_id"] for one in done(self._answered(batch, kind))}
        waiting = (
            one for one in requests(self._files.place(batch.input), batch.endpoint) if one["custom_id"] not in known
        )

        late: list[str] = []

        def going_on() -> bool:
            current = self._load(batch.id)
            return current is not None and current.status == "in_progress" and time.time() < batch.expires

        async def worker() -> None:
            while going_on() and (one := next(waiting, None)) is not None:  # shared: each worker takes the next one
                try:
                    async with asyncio.timeout(batch.expires - time.time()):
                        status, body = await self._answer(batch, one["body"])
                except TimeoutError:
                    late.append(one["custom_id"])
                    return
                kind = "output" if status == 200 else "errors"
                await asyncio.to_thread(_append, self._lines(batch, kind), [_result(one["custom_id"], status, body)])

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
        await asyncio.to_thread(self._expire, batch, late, waiting)
        await asyncio.to_thread(self._finish, batch.id)

    def _expire(self, batch: Batch, late: list[str], waiting: Iterator[dict[str, Any]]) -> None:
        """Gives every line that has no answer an error, if the batch's time is over. `late`: those cut off by it."""
        current = self._load(batch.id)
        if current is not None and current.status == "in_progress" and (late or time.time() >= batch.expires):
            never = [*late, *(one["custom_id"] for one in waiting)]
            if never:
                _append(self._lines(batch, "errors"), [_expired(custom_id) for custom_id in never])

    def _finish(self, id: str) -> None:
        batch = self.get(id)
        assert batch is not None, "nobody removes batches"
        for kind, file in zip(KINDS, (batch.output, batch.errors), strict=True):
            if self._answered(batch, kind).exists():
                name = f"{batch.id}_{kind}.jsonl"
                self._files.adopt(self._lines(batch, kind), file, name, "batch_output", batch.owner)
        expired = any(line["error"] is not None for line in done(self._answered(batch, "errors")))
        status: Status = "cancelled" if batch.status == "cancelling" else "expired" if expired else "completed"
        self._save(replace(batch, status=status, ended=time.time()))

    def _lines(self, batch: Batch, kind: str) -> Path:
        """The file that grows."""
        return self.folder / f"{batch.id}.{kind}.jsonl"

    def _answered(self, batch: Batch, kind: str) -> Path:
        """Where the lines are: a crash may have come after the finished file was moved."""
        lines = self._lines(batch, kind)
        return lines if lines.exists() else self._files.place(batch.output if kind == "output" else batch.errors)

    def _count(self, batch: Batch, kind: str) -> int:
        return sum(1 for _ in done(self._answered(batch, kind)))

    def _load(self, id: str) -> Batch | None:
        if not _ID.fullmatch(id):
            return None
        try:
            return Batch(**json.loads((self.folder / f"{id}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _save(self, batch: Batch) -> None:
        write_json(self.folder / f"{batch.id}.json", asdict(batch))


def requests(path: Path, endpoint: str) -> Iterator[dict[str, Any]]:
    """The requests of a file. Raises `InputError` naming the line that is none."""
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                line = json.loads(raw.decode())
            except (ValueError, RecursionError) as error:
                raise InputError(f"Line {number} is not JSON ({error}).", "Each line is one JSON object.") from error
            wrong = _wrong(line, endpoint, seen)
            if wrong is not None:
                raise InputError(f"Line {number}: {wrong}.", 'A line is {"custom_id", "method", "url", "body"}.')
            seen.add(line["custom_id"])
            if len(seen) > MAX_LINES:
                raise InputError(f"The file holds more than {MAX_LINES} requests.", "Split it.")
            yield line


def _wrong(line: Any, endpoint: str, seen: set[str]) -> str | None:
    if not isinstance(line, dict):
        return "it is no object"
    if unknown := sorted(set(line) - {"custom_id", "method", "url", "body"}):
        return f"'{unknown[0][:100]}' is not a field of a request"
    custom = line.get("custom_id")
    if not isinstance(custom, str) or not 0 < len(custom) <= 512:
        return "custom_id must be a text of 1 to 512 characters"
    if custom in seen:
        return f"custom_id '{custom[:100]}' was used before"
    if line.get("method") != "POST":
        return "method must be POST"
    if line.get("url") != endpoint:
        return f"url must be {endpoint}, as the batch says"
    if not isinstance(line.get("body"), dict):
        return "body must be an object"
    return "a batch cannot be streamed" if line["body"].get("stream") else None


def _result(custom_id: str, status: int, body: dict[str, Any]) -> dict[str, Any]:
    request = secrets.token_hex(12)
    response = {"status_code": status, "request_id": f"req_{request}", "body": body}
    return {"id": f"batch_req_{request}", "custom_id": custom_id, "response": response, "error": None}


def _expired(custom_id: str) -> dict[str, Any]:
    error = {"code": "batch_expired", "message": "The batch's time was over before this request was answered."}
    return {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id, "response": None, "error": error}


# files of lines ------------------------------------------------------------------------------------------------------


def done(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file that may not be there yet, or may be growing."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                yield json.loads(raw)


def _append(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    # One write to a file opened for appending: lines of several threads do not mix.
    data = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    with disk_errors(path), path.open("ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:  # a disk that fills up takes a part, and says so the next time
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def _cut_torn_line(path: Path) -> None:
    """Removes what a crash left of a line that was being written."""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)

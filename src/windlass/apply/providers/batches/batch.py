"""Batch APIs: many requests go up at once, answers come down within a day, often at half the price.

What they share stands here; each provider's way is a file of its own (`known_batches` picks it). Nothing is asked
twice: a batch is made with a mark of its maker's, by which it is found again when the answer to its making was lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import ProviderError
from windlass.core.values import ChatRequest, ChatResponse

LOOKS = (1.0, 60.0)
"""Seconds between looks at a batch: at first, and at most."""
JSON: Mapping[str, str] = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    status: str
    """In the provider's words."""
    open: bool
    """On its way."""
    done: int
    """Requests that have an answer or an error, as far as the provider says."""
    refused: str = ""
    """Why nothing of it was answered; empty: it was accepted."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """All that the provider says of it: where its answers are."""


def new_mark() -> str:
    """A name that no other batch has. It begins with the second in which it was made."""
    return f"{int(time.time()):08x}{secrets.token_hex(5)}"


def made_at(mark: str) -> float:
    """Seconds since 1970, by the clock of this machine."""
    return float(int(mark[:8], 16))


class Batches(ABC):
    """Of one model. Names of requests are at most 40 letters, digits and hyphens."""

    largest = 100 << 20
    """Bytes of all requests of one batch."""

    def __init__(self, remote: RemoteChat, tell: Callable[[str], None] = lambda _: None) -> None:
        self.remote = remote
        self._endpoint = remote.endpoint
        self._tell = tell

    async def submit(self, lines: Sequence[bytes], mark: str, others: Collection[str] = ()) -> Batch:
        """A new batch. Where it is not known whether it was made, it is looked for and not made again."""
        with self.remote.understood():
            making = await self._making(lines, mark)
            try:
                return self._read(await self._endpoint.apost(making, again=False))
            except ProviderError as error:
                if error.status is not None and error.status < 500:
                    raise
                if (found := await self._find(mark, others)) is None:
                    raise
                return found

    async def look(self, id: str) -> Batch:
        """How it stands."""
        with self.remote.understood():
            return await self._looked(id)

    async def find(self, mark: str, others: Collection[str] = ()) -> Batch | None:
        """The batch that was made with this mark. `others`: ids of batches that are known to have another."""
        with self.remote.understood():
            return await self._find(mark, others)

    async def ended(self, batch: Batch) -> Batch:
        """Looks at it until it is over."""
        wait, longest = LOOKS
        while batch.open:
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, longest)
            batch = await self.look(batch.id)
            self._tell(f"{batch.id} {batch.status}: {batch.done:,} answers")
        return batch

    async def results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each request's name with what came of it, in no order. Raises `ProviderError` where it is kept no longer."""
        with self.remote.understood():
            return self._each(await self._results(batch))

    def _each(self, lines: Iterator[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with self.remote.understood():
            yield from lines

    def answer(self, line: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        """What a line answers, at the price of batches. Raises `ProviderError` for a line that is an error."""
        with self.remote.understood():
            said = self._said(line)
        if isinstance(said, Fault):
            raise ProviderError(f"In its batch the request failed: {said.reason}", status=said.status)
        return self.remote.batched(said, request)

    # what providers do in ways of their own ---------------------------------------------------------------------------

    @abstractmethod
    def line(self, mark: str, name: str, request: ChatRequest) -> bytes:
        """One request as the batch of this mark holds it. Raises `Unsupported`."""

    @abstractmethod
    async def _making(self, lines: Sequence[bytes], mark: str) -> Call:
        """What makes the batch, after what has to be sent before."""

    @abstractmethod
    def _place(self, id: str) -> str:
        """The path of a batch."""

    @abstractmethod
    def _read(self, told: Mapping[str, Any]) -> Batch: ...

    @abstractmethod
    async def _find(self, mark: str, others: Collection[str]) -> Batch | None: ...

    @abstractmethod
    async def _results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]: ...

    @abstractmethod
    def _said(self, line: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
        """The answer in one of the results, as a single call would have brought it."""

    async def _looked(self, id: str) -> Batch:
        return self._read(await self._endpoint.apost(Call(self._place(id), None)))


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request of a batch has no answer."""

    reason: str
    status: int | None = None


def told(value: object) -> str:
    """The message of an error, in whatever it is wrapped."""
    while isinstance(value, Mapping) and (inner := value.get("error") or value.get("message")):
        value = inner
    return str(value or "it is not said why")


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def json_lines(contents: Iterable[bytes], name: str = "custom_id") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The lines of files of answers, each with the name of its request."""
    for content in contents:
        for line in map(json.loads, filter(None, content.splitlines())):
            yield line[name], line


def upload(lines: Iterable[bytes]) -> Call:
    """A file of requests, as a multipart form. What separates its parts follows from the content: the same file is the
    same request."""
    content = b"".join(line + b"\n" for line in lines)
    boundary = f"windlass-{hashlib.sha256(content).hexdigest()[:32]}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    form = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return Call("/files", None, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, content=form)

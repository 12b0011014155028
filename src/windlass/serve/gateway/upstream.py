"""One attempt at one target: the request as its provider wants it, and what came of it.

A good answer is held until its beginning is known to be sound: all of it, or of a stream the first token. Until then
nothing has been said to the client, and another target can be asked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.core import sse
from windlass.core.config import secret
from windlass.core.errors import ProviderError
from windlass.core.usage import usage_of
from windlass.core.values import Usage
from windlass.core.version import __version__
from windlass.serve.gateway import events, faults
from windlass.serve.gateway.config import Provider
from windlass.serve.gateway.connections import Failed, Reply, Server, Timeouts
from windlass.serve.gateway.envelope import Envelope
from windlass.serve.gateway.quirks import QUIRKS

MAX_ERROR = 1 << 20
"""Bytes of a provider's error that are read."""
_MOST_BEFORE = 1 << 20
"""Bytes of a stream that are held back until its first token comes."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asks: the path below the base URL, its JSON, and how to follow the stream it wants, if any."""

    path: str
    envelope: Envelope
    model: str
    watcher: Callable[[], events.Watcher] | None
    """None: not streamed."""

    keep: bool = False
    """Whether what is streamed is kept as text, for the trace."""

    @property
    def wants_usage(self) -> bool:
        """Whether the client itself asked that the stream reports its usage."""
        options = self.envelope.fields.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


class Refused(ProviderError):
    """The provider answered with an error. `body` is what it said."""

    def __init__(self, provider: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"Provider '{provider}' answered status {status}: {faults.said(body)}", status=status)
        self.headers = headers
        self.body = body


class Upstream:
    """A provider: where it is, its key, and what it does differently."""

    def __init__(self, name: str, provider: Provider) -> None:
        self.name = name
        self.server = Server(name, provider.base_url, ca_file=provider.ca_file, proxy=provider.proxy)
        self._quirks = QUIRKS[provider.kind]
        self._headers = {
            "User-Agent": f"windlass/{__version__}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # the bytes are looked into and passed on as they are
            **provider.headers,
        }
        self._key = (secret(provider.api_key_env) if provider.api_key_env else None) or ""
        if self._key:
            self._headers[self._quirks.key_header] = f"{self._quirks.key_prefix}{self._key}"

    async def ask(self, call: Call, model: str, timeouts: Timeouts, limit: int) -> Whole | Stream:
        """Sends `call` for `model`. Raises `Failed`, or `Refused` when the status is not good."""
        body, asked_usage = self._body(call, model)
        reply = await self.server.ask("POST", call.path, self._headers, body, timeouts)
        try:
            if not 200 <= reply.status < 300:
                said = await reply.read(MAX_ERROR)
                if self._key:  # some providers repeat the key that they refuse
                    said = said.replace(self._key.encode(), b"[key]")
                raise Refused(self.name, reply.status, reply.headers, said)
            if (coding := reply.headers.get("content-encoding", "identity")) != "identity":
                raise self._broken(f"answered in the encoding '{coding[:40]}', which was not asked for")
            if call.watcher is None:
                return Whole(reply, await reply.read(limit), self._broken)
            watcher = call.watcher()
            watcher.keep = call.keep
            stream = Stream(reply, watcher, drop_usage=asked_usage, broken=self._broken)
            await stream.begin()
            return stream
        except BaseException:
            reply.close()
            raise

    def _body(self, call: Call, model: str) -> tuple[bytes, bool]:
        """The request as this provider takes it, and whether it asks for a usage that the client did not ask for."""
        changes: dict[str, Any] = {"model": model}
        asked = False
        if call.watcher is events.ChoicesWatcher:
            options = call.envelope.fields.get("stream_options")
            if self._quirks.asks_usage and not call.wants_usage:
                changes["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
                asked = True
            elif not self._quirks.asks_usage and call.wants_usage:
                changes["stream_options"] = None
        return call.envelope.rewritten(changes, self._quirks.renames), asked

    def _broken(self, what: str) -> Failed:
        what = what.replace(self._key, "[key]") if self._key else what
        return Failed(f"Provider '{self.name}' {what}.", "Try again; if it happens often, look at its log.", "answer")


class Whole:
    """An answer that is one JSON object, read to its end."""

    def __init__(self, reply: Reply, body: bytes, broken: Callable[[str], Failed]) -> None:
        """Raises `Failed` when it is no JSON object, or one that reports an error in spite of its good status."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise broken(f"answered status {reply.status}, but not with JSON: {faults.said(body)!r}") from None
        if not isinstance(value, dict):
            raise broken("answered JSON that is no object")
        if value.get("error") and "choices" not in value and "output" not in value:
            raise broken(f"reported: {faults.said(body)}")
        self.reply = reply
        self.body = body
        self.id = str(value.get("id") or "")
        self.model = str(value.get("model") or "")
        self.usage: Usage = usage_of(value.get("usage"))
        self.finish = _finish(value)
        self.said = value
        """For the trace, where content is wanted."""
        reply.close()

    def close(self) -> None:
        """It has been read: there is nothing to close."""


class Stream:
    """An answer in events. `begin` waits for the first token, `pieces` are its bytes."""

    def __init__(
        self, reply: Reply, watcher: events.Watcher, *, drop_usage: bool, broken: Callable[[str], Failed]
    ) -> None:
        self.reply = reply
        self.watcher = watcher
        self._drop_usage = drop_usage
        self._broken = broken
        self._arriving = reply.pieces()
        self._buffer = bytearray()
        self._first = b""
        self._problem: Failed | None = None

    @property
    def id(self) -> str:
        return self.watcher.id

    @property
    def model(self) -> str:
        return self.watcher.model

    @property
    def usage(self) -> Usage:
        return self.watcher.usage

    @property
    def finish(self) -> str | None:
        return self.watcher.finish

    @property
    def said(self) -> str:
        """For the trace, where content is wanted: only kept when `watcher.keep` is set."""
        return "".join(self.watcher.texts)

    async def begin(self) -> None:
        """Waits for the first token: what comes before it only announces it. Raises `Failed` when there is none."""
        kind = self.reply.headers.get("content-type", "")
        if "text/event-stream" not in kind:
            raise self._broken(f"answered {kind[:60] or 'no content type'}, not a stream of events")
        while not self.watcher.spoke and len(self._first) < _MOST_BEFORE:
            piece = await anext(self._arriving, None)
            if piece is None:
                raise self._broken("ended its stream before the first token")
            self._first += self._passed(piece)
            if self._problem is not None and not self.watcher.spoke:
                raise self._problem

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The stream's bytes, whole events at a time. Raises `Failed` when it breaks off, stalls or has an error."""
        if self._first:
            yield self._first
        async with contextlib.aclosing(self._arriving):
            while self._problem is None and (piece := await anext(self._arriving, None)) is not None:
                if passed := self._passed(piece):
                    yield passed
        if self._problem is None and self._buffer:  # a last event without the blank line that should end it
            last = bytes(self._buffer)
            if self._passes(last):
                yield last
        if self._problem is not None:
            raise self._problem
        if not self.watcher.complete and self.watcher.finish is None:
            raise self._broken("ended its stream before the answer was finished")

    def close(self) -> None:
        self.reply.close()

    def _passed(self, piece: bytes) -> bytes:
        """What can be passed on now that `piece` has arrived: the events that are complete, up to a broken one."""
        self._buffer += piece
        passed: list[bytes] = []
        try:
            for event in sse.cut(self._buffer):
                if self._passes(event):
                    passed.append(event)
                if self._problem is not None:
                    break
        except sse.BadEvent as problem:
            self._problem = self._broken(f"sent a stream that is broken: {problem}")
        return b"".join(passed)

    def _passes(self, event: bytes) -> bool:
        try:
            data = sse.data_of(event)
            if data is None:
                return True
            only_usage = self.watcher.see(data)
        except sse.BadEvent as problem:
            self._problem = self._broken(f"sent a stream that is broken: {problem}")
            return False
        return not (only_usage and self._drop_usage)


def _finish(value: Mapping[str, Any]) -> str | None:
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("finish_reason")
    status = value.get("status")  # of a response
    return status if isinstance(status, str) else None

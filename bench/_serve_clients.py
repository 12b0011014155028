"""Clients of an OpenAI-compatible server, for `bench.serve`: many streams in one process that does little else.

    python _serve_clients.py URL MODEL
    {"streams": 16, "prompt": 64, "write": 128}                 -> {"rate": tokens a second, from the first byte sent to
                                                                    the last received, "first": [...]}
    {"streams": 1, "prompt": 8, "write": 1, "prefix": 1024}     -> behind so many tokens that are always the same

`first` is the seconds of each stream until its first piece of text. Reads of an answer only what it needs: that text
begins, and the numbers of tokens at the end. The standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import time
from typing import Any
from urllib.parse import urlsplit

VOCABULARY = 32_000
_USED = re.compile(rb'"completion_tokens":\s*(\d+)')


class Stream(asyncio.Protocol):
    """One request on a connection of its own."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received: list[bytes] = []
        self.first: float | None = None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Tokens that were written."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.first is None and b"data: " in data:
            self.first = time.perf_counter() - self._asked
        self._received.append(data)
        if b"data: [DONE]" in data:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self.ended.done():
            return
        everything = b"".join(self._received)
        used = _USED.search(everything, max(len(everything) - 2_000, 0))
        if used is None or self.first is None:
            said = everything[-500:].decode("utf-8", "replace")
            self.ended.set_exception(RuntimeError(f"no whole answer, but: {said or 'nothing'}"))
        else:
            self.ended.set_result(int(used[1]))


def request(address: str, model: str, prompt: list[int], write: int) -> bytes:
    body = json.dumps(
        {"model": model, "prompt": prompt, "max_tokens": write, "temperature": 0, "ignore_eos": True, "stream": True,
         "stream_options": {"include_usage": True}}
    ).encode()  # fmt: skip
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(1000, VOCABULARY) for _ in range(count)]


async def run(address: str, model: str, task: dict[str, int], draw: random.Random) -> dict[str, Any]:
    loop, (host, _, port) = asyncio.get_running_loop(), address.rpartition(":")
    prefix = tokens(random.Random(0), task.get("prefix", 0))
    prompts = [prefix + tokens(draw, task["prompt"]) for _ in range(task["streams"])]
    asks = [request(address, model, prompt, task["write"]) for prompt in prompts]
    made = [await loop.create_connection(lambda ask=ask: Stream(ask), host, int(port)) for ask in asks]
    started = time.perf_counter()
    for _, stream in made:
        stream.ask()
    written = await asyncio.gather(*(stream.ended for _, stream in made))
    seconds = time.perf_counter() - started
    for transport, _ in made:
        transport.abort()
    if set(written) != {task["write"]}:
        raise RuntimeError(f"{written} tokens were written, not {task['write']} each")
    return {"rate": sum(written) / seconds, "first": [stream.first for _, stream in made]}


def main() -> None:
    url, model = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    draw = random.Random(os.getpid())
    print(json.dumps({"ready": url}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(urlsplit(url).netloc, model, json.loads(line), draw))), file=out, flush=True)


if __name__ == "__main__":
    main()

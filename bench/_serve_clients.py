"""Clients of an OpenAI-compatible server, for `bench.serve`: many streams in one process that does little else.

    python _serve_clients.py URL MODEL
    {"streams": 16, "prompt": 64, "write": 128}                 -> {"rate": tokens a second, from the first byte sent to
                                                                    the last received, "first": [...]}
    {"streams": 1, "prompt": 8, "write": 1, "prefix": 1024}     -> behind so many tokens that are always the same

`first` is the seconds of each stream until its first piece of text. Reads of an answer only what it needs: that text
begins, and the numbers of tokens at the end. Clients are elsewhere as a rule; those of this benchmark share the
server's processors, so they take as little of them as they can: many streams are looked at `GATHER` seconds after one
of them has something, all together. The standard library alone.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

VOCABULARY = 32_000
GATHER = 0.004
_USED = re.compile(rb'"completion_tokens":\s*(\d+)')


class Stream:
    """One request on a connection of its own."""

    def __init__(self, address: str, request: bytes) -> None:
        host, _, port = address.rpartition(":")
        self.link = socket.create_connection((host, int(port)))
        self._request = request
        self._received: list[bytes] = []
        self.first: float | None = None
        self.written = 0
        """Tokens, once it has ended."""

    def ask(self) -> None:
        self._asked = time.perf_counter()
        self.link.sendall(self._request)

    def read(self) -> bool:
        """What has arrived; whether more will come."""
        data = self.link.recv(1 << 20)
        if self.first is None and b"data: " in data:
            self.first = time.perf_counter() - self._asked
        self._received.append(data)
        if data and b"data: [DONE]" not in data:
            return True
        everything = b"".join(self._received)
        used = _USED.search(everything, max(len(everything) - 2_000, 0))
        if used is None or self.first is None:
            said = everything[-500:].decode("utf-8", "replace")
            raise RuntimeError(f"no whole answer, but: {said or 'nothing'}")
        self.written = int(used[1])
        return False


def request(address: str, model: str, prompt: list[int], write: int) -> bytes:
    body = json.dumps(
        {"model": model, "prompt": prompt, "max_tokens": write, "temperature": 0, "ignore_eos": True, "stream": True,
         "stream_options": {"include_usage": True}}
    ).encode()  # fmt: skip
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(1000, VOCABULARY) for _ in range(count)]


def run(address: str, model: str, task: dict[str, int], draw: random.Random) -> dict[str, Any]:
    prefix = tokens(random.Random(0), task.get("prefix", 0))
    prompts = [prefix + tokens(draw, task["prompt"]) for _ in range(task["streams"])]
    streams = [Stream(address, request(address, model, prompt, task["write"])) for prompt in prompts]
    started = time.perf_counter()
    for stream in streams:
        stream.ask()
    live = {stream.link: stream for stream in streams}
    while live:
        ready, _, _ = select.select(list(live), [], [])
        if len(streams) > 1:
            time.sleep(GATHER)
            ready, _, _ = select.select(list(live), [], [], 0)
        for link in ready:
            if not live[link].read():
                del live[link]
    seconds = time.perf_counter() - started
    for stream in streams:
        stream.link.close()
    written = [stream.written for stream in streams]
    if set(written) != {task["write"]}:
        raise RuntimeError(f"{written} tokens were written, not {task['write']} each")
    return {"rate": sum(written) / seconds, "first": [stream.first for stream in streams]}


def main() -> None:
    url, model = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    draw = random.Random(os.getpid())
    print(json.dumps({"ready": url}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(urlsplit(url).netloc, model, json.loads(line), draw)), file=out, flush=True)


if __name__ == "__main__":
    main()

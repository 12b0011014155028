"""A provider on loopback for `bench.tasks`: it answers every chat with the same deal, at once or after a while.

`POST …/chat/completions` is a chat. `GET /reset/0.25` makes it think for a quarter of a second from now on and forgets
what it has counted; `GET /most` says how many chats were under way at once.
"""

from __future__ import annotations

import asyncio
import json
import sys

DEAL = {
    "customer": "Brightwater Kliniken",
    "contact": {"name": "Ana Kovač", "email": "a.kovac@brightwater.example", "phone": None},
    "stage": "negotiation",
    "value_eur": 48500.0,
    "products": ["analytics seats", "onboarding"],
    "next_steps": [
        {"what": "Send the revised offer with three years of support", "due": "2026-12-01"},
        {"what": "Ask legal about the data processing agreement", "due": None},
    ],
    "summary": "Wants 120 seats if the price per seat falls below 400 euros; their board decides in December.",
}
USAGE = {
    "prompt_tokens": 410, "completion_tokens": 150, "total_tokens": 560,
    "prompt_tokens_details": {"cached_tokens": 256}, "completion_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip
MODEL = "gpt-4.1-mini"
_MESSAGE = {"role": "assistant", "content": json.dumps(DEAL, ensure_ascii=False), "refusal": None}
_CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "usage": USAGE,
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop", "logprobs": None}],
}  # fmt: skip


def _http(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Counts:
    def __init__(self) -> None:
        self.answer = _http(_CHAT)
        self.seconds = 0.0
        self.under_way = self.most = 0


class Connection(asyncio.Protocol):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            lower = head.lower()
            length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in lower else 0
            if len(self._buffer) < end + 4 + length:
                return
            del self._buffer[: end + 4 + length]
            self._asked(head.split(b" ", 2)[1].decode())

    def _asked(self, path: str) -> None:
        counts = self._counts
        if path.endswith("/chat/completions"):
            counts.under_way += 1
            counts.most = max(counts.most, counts.under_way)
            if counts.seconds:
                asyncio.get_running_loop().call_later(counts.seconds, self._answer)
            else:
                self._answer()
        elif path == "/most":
            self._transport.write(_http(counts.most))
        else:
            counts.seconds, counts.most = float(path.rpartition("/")[2]), 0
            self._transport.write(_http(None))

    def _answer(self) -> None:
        self._counts.under_way -= 1
        self._transport.write(self._counts.answer)


async def provide() -> None:
    """Prints its port and serves until it is ended."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(counts), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(provide()))

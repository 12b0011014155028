"""A provider on this machine: it keeps what it was sent and answers what the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from windlass.core.values import ChatRequest, Message

KEY = "sk-very-secret-key"
Answer = Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]


class Loopback:
    """Answers one after the other; the last one again and again. Use as a context manager."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, headers, content = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if status == 0:  # a server that never answers
                    outer.closing.wait(30)
                    return
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers = list(answers)

    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body in self.requests]


def reply(text: str = "Hello!", **more: Any) -> tuple[int, dict[str, str], bytes]:
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    message = {"role": "assistant", "content": text, **more}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }
    return 200, {}, json.dumps(value).encode()


def events(*values: Any, done: bool = True) -> tuple[int, dict[str, str], bytes]:
    lines = [f"data: {json.dumps(value)}\n\n" for value in values] + (["data: [DONE]\n\n"] if done else [])
    return 200, {"content-type": "text/event-stream; charset=utf-8"}, "".join([": ping\n\n", *lines]).encode()


def piece(text: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    content = {"content": text} if text is not None else {}
    choice = {"index": 0, "delta": {**content, **delta}, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def ask(text: str = "Hi", **parameters: Any) -> ChatRequest:
    return ChatRequest([Message("user", text)], **parameters)

"""A provider on loopback for processes that are killed: it counts what it is asked, and says when that is enough."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Counting:
    """`said` gives, for the body of a request, what it is counted as and the answer's text. Once `limit` requests have
    come, if it is set, so is `enough`. Use as a context manager."""

    def __init__(self, said: Callable[[Mapping[str, Any]], tuple[str, str]], model: str) -> None:
        self.asked: Counter[str] = Counter()
        self.enough = threading.Event()
        self.limit = 0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                counted, text = said(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                with lock:
                    outer.asked[counted] += 1
                    if outer.limit and outer.asked.total() >= outer.limit:
                        outer.enough.set()
                answer = json.dumps(reply(text, model)).encode()
                try:
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass  # the one who asked was killed

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def reply(text: str, model: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 2}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage
    }  # fmt: skip

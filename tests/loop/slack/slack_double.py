"""A Slack of our own on a loopback port: the part of its Web API and of Socket Mode that the bot uses.

It keeps messages as Slack does, refuses what Slack refuses, and delivers events to whoever is connected until they are
acknowledged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlparse

BOT, APP_TOKEN, BOT_TOKEN = "U0BOT", "xapp-1-test", "xoxb-test"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


class Slack:
    def __init__(self) -> None:
        self.messages: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        """Channel -> ts -> message."""
        self.views: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.acknowledged: dict[str, float] = {}
        self.limited: dict[str, int] = {}
        """Method -> how many of the next calls are told to come again in a second."""
        self._clock = 1_700_000_000
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._links: list[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for link in self._links:
            link.close()

    # people -----------------------------------------------------------------------------------------------------

    def say(self, channel: str, user: str, text: str, thread: str | None = None) -> dict[str, Any]:
        """A person writes; the event that the bot would get of it, a mention in a channel or a direct message."""
        with self._lock:
            self._clock += 1
            ts = f"{self._clock}.000100"
            message = {"type": "message", "user": user, "text": text, "ts": ts}
            if thread:
                message["thread_ts"] = thread
            self.messages[channel][ts] = message
        direct = channel.startswith("D")
        kind = {"type": "message", "channel_type": "im"} if direct else {"type": "app_mention"}
        return {**message, "channel": channel, **kind}

    def deliver(self, event: dict[str, Any], envelope: str | None = None) -> str:
        """Sends the event; returns the id of its envelope."""
        return self.send("events_api", {"type": "event_callback", "event_id": "Ev1", "event": event}, envelope)

    def press(self, channel: str, ts: str, action: str, user: str) -> str:
        """A person presses a button under a message."""
        message = self.messages[channel][ts]
        button = next(
            element
            for block in message["blocks"]
            if block["type"] == "actions"
            for element in block["elements"]
            if element["action_id"] == action
        )
        return self.send(
            "interactive",
            {
                "type": "block_actions",
                "trigger_id": "trigger.1",
                "user": {"id": user},
                "channel": {"id": channel},
                "message": message,
                "actions": [{"action_id": action, "value": button["value"]}],
            },
        )

    def submit(self, user: str, **fields: str) -> str:
        """A person sends the form that was opened last."""
        values = {name: {"text": {"type": "plain_text_input", "value": text}} for name, text in fields.items()}
        view = {**self.views[-1], "state": {"values": values}}
        return self.send("interactive", {"type": "view_submission", "user": {"id": user}, "view": view})

    def send(self, kind: str, payload: dict[str, Any], envelope: str | None = None) -> str:
        envelope = envelope or f"env-{len(self.calls)}-{time.monotonic_ns()}"
        self.wait(lambda: bool(self._links))
        text = json.dumps(
            {"type": kind, "envelope_id": envelope, "payload": payload, "accepts_response_payload": False}
        )
        self._links[-1].sendall(_frame(0x1, text.encode()))
        return envelope

    def drop(self) -> None:
        """Ends all connections, as Slack does every few hours."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.shutdown(socket.SHUT_RDWR)

    # what tests look at -----------------------------------------------------------------------------------------

    def wait(self, what: Any, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        with self._changed:
            while not what():
                if not self._changed.wait(min(0.2, max(end - time.monotonic(), 0.0))) and time.monotonic() > end:
                    raise AssertionError(
                        f"nothing happened in {seconds:g} s; calls: {[name for name, _ in self.calls]}"
                    )

    def said(self, channel: str) -> list[dict[str, Any]]:
        """The bot's messages in a channel, in order."""
        with self._lock:
            return [one for _, one in sorted(self.messages[channel].items()) if one["user"] == BOT]

    def finished(self, channel: str, count: int = 1) -> list[dict[str, Any]]:
        """Waits for so many whole answers."""

        def whole() -> list[dict[str, Any]]:
            return [one for one in self.said(channel) if one["metadata"]["event_payload"]["state"] == "done"]

        self.wait(lambda: len(whole()) >= count)
        return whole()

    # the API ----------------------------------------------------------------------------------------------------

    def _answer(self, method: str, given: dict[str, Any], token: str) -> dict[str, Any]:
        with self._changed:
            self.calls.append((method, given))
            self._changed.notify_all()
            if token != (APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN):
                return {"ok": False, "error": "invalid_auth"}
            known = {
                "auth.test": self._who,
                "apps.connections.open": self._connect,
                "chat.postMessage": self.post,
                "chat.update": self._update,
                "conversations.replies": self._replies,
                "views.open": self._open,
            }
            return known[method](given)

    def _who(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "user_id": BOT, "team_id": "T1"}

    def _connect(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "url": f"ws://127.0.0.1:{self._server.server_address[1]}/link?ticket=1"}

    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        self._clock += 1
        ts = f"{self._clock}.000200"
        kept = {key: given[key] for key in ("text", "blocks", "metadata", "thread_ts") if key in given}
        self.messages[given["channel"]][ts] = {"type": "message", "user": BOT, "bot_id": "B1", "ts": ts, **kept}
        return {"ok": True, "ts": ts, "channel": given["channel"]}

    def _update(self, given: dict[str, Any]) -> dict[str, Any]:
        message = self.messages[given["channel"]].get(given["ts"])
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        if len(given.get("blocks", ())) > 50 or len(given.get("text", "")) > 4000:
            return {"ok": False, "error": "msg_too_long"}
        for block in given.get("blocks", ()):
            if block["type"] == "section" and not 1 <= len(block["text"]["text"]) <= 3000:
                return {"ok": False, "error": "invalid_blocks"}
        message.update({key: given[key] for key in ("text", "blocks", "metadata") if key in given})
        return {"ok": True, "ts": given["ts"]}

    def _replies(self, given: dict[str, Any]) -> dict[str, Any]:
        thread, at = given["ts"], int(given.get("cursor") or 0)
        found = [m for ts, m in sorted(self.messages[given["channel"]].items()) if thread in (ts, m.get("thread_ts"))]
        size = min(int(given["limit"]), 3)  # small pages, so that reading on is tried
        more = str(at + size) if at + size < len(found) else ""
        return {"ok": True, "messages": found[at : at + size], "response_metadata": {"next_cursor": more}}

    def _open(self, given: dict[str, Any]) -> dict[str, Any]:
        view = given["view"]
        self.views.append(json.loads(view) if isinstance(view, str) else view)
        return {"ok": True}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if "json" in self.headers.get("Content-Type", ""):
                    given = json.loads(body or b"{}")
                else:
                    given = dict(parse_qsl(body.decode()))
                    for name in ("blocks", "metadata"):
                        if name in given:
                            given[name] = json.loads(given[name])
                self._reply(given)

            def do_GET(self) -> None:
                if self.headers.get("Upgrade", "").lower() == "websocket":
                    self._link()
                else:
                    self._reply(dict(parse_qsl(urlparse(self.path).query)))

            def _reply(self, given: dict[str, Any]) -> None:
                method = urlparse(self.path).path.removeprefix("/api/")
                token = self.headers.get("Authorization", "").removeprefix("Bearer ") or given.pop("token", "")
                limited = slack.limited.get(method, 0) > 0
                if limited:
                    slack.limited[method] -= 1
                    answer: dict[str, Any] = {"ok": False, "error": "ratelimited"}
                else:
                    answer = slack._answer(method, given, token)
                data = json.dumps(answer).encode()
                self.send_response(429 if limited else 200)
                if limited:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _link(self) -> None:
                key = self.headers["Sec-WebSocket-Key"]
                accept = base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()
                self.wfile.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
                )
                self.wfile.flush()
                with slack._changed:
                    slack._links.append(self.connection)
                    slack._changed.notify_all()
                self.connection.sendall(_frame(0x1, b'{"type": "hello"}'))
                while (frame := _read_frame(self.rfile)) is not None:
                    kind, data = frame
                    if kind == 0x9:
                        self.connection.sendall(_frame(0xA, data))
                    elif kind == 0x1:
                        with slack._changed:
                            slack.acknowledged[json.loads(data)["envelope_id"]] = time.monotonic()
                            slack._changed.notify_all()
                with slack._changed:
                    if self.connection in slack._links:
                        slack._links.remove(self.connection)
                self.close_connection = True

        return Handler


def _frame(kind: int, data: bytes) -> bytes:
    """One whole frame of a server (RFC 6455, 5.2)."""
    if len(data) < 126:
        return struct.pack("!BB", 0x80 | kind, len(data)) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", 0x80 | kind, 126, len(data)) + data
    return struct.pack("!BBQ", 0x80 | kind, 127, len(data)) + data


def _read_frame(stream: Any) -> tuple[int, bytes] | None:
    """A client's next frame, unmasked; None at the end."""
    try:
        head = stream.read(2)
        if len(head) < 2 or head[0] & 0xF == 0x8:
            return None
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", stream.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", stream.read(8))
        mask = stream.read(4)
        return head[0] & 0xF, bytes(byte ^ mask[i % 4] for i, byte in enumerate(stream.read(size)))
    except (OSError, struct.error, ValueError):
        return None

"""One server under examination. Whatever it does is an observation, not an exception: only silence is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from windlass.core.config import secret
from windlass.core.errors import ConfigError, ProviderError

TIMEOUT = httpx2.Timeout(120.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    body: Any
    """The JSON value; None where it was none."""
    events: tuple[Any, ...] = ()
    """The JSON values of a stream of events."""
    done: bool = False
    """Whether the stream ended with [DONE]."""

    def at(self, *path: str | int) -> Any:
        """The value at a place in the body; None where there is no such place."""
        return at(self.body, *path)


def at(value: Any, *path: str | int) -> Any:
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


@dataclass(slots=True)
class Server:
    """`url` ends in /v1. The key is read from the environment at each call."""

    url: str
    model: str = ""
    """Empty: the first that it lists."""
    key_env: str | None = None
    client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=TIMEOUT))

    def __post_init__(self) -> None:
        url = httpx2.URL(self.url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"'{self.url}' is not an http(s) URL.", "For example http://127.0.0.1:8080/v1")
        self.url = self.url.rstrip("/")
        if not self.url.endswith("/v1"):
            self.url += "/v1"

    def choose_model(self) -> None:
        """Takes the first model where none is named. Raises `ProviderError` when the server lists none."""
        if not self.model:
            reply = self.get("/models")
            name = reply.at("data", 0, "id")
            if not isinstance(name, str):
                raise ProviderError(
                    f"{self.url}/models lists no model (status {reply.status}).",
                    "Name it with --model, and check the key.",
                    status=reply.status,
                )
            self.model = name

    def get(self, path: str) -> Reply:
        return self._sent("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | bytes) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._sent("POST", path, raw)

    def chat(self, text: str, **parameters: Any) -> Reply:
        message = [{"role": "user", "content": text}]
        return self.post("/chat/completions", {"model": self.model, "messages": message, **parameters})

    def complete(self, text: str, **parameters: Any) -> Reply:
        return self.post("/completions", {"model": self.model, "prompt": text, **parameters})

    def _sent(self, method: str, path: str, raw: bytes | None) -> Reply:
        headers = {"Content-Type": "application/json"} if raw is not None else {}
        if self.key_env and (key := secret(self.key_env)):
            headers["Authorization"] = f"Bearer {key}"
        try:
            response = self.client.request(method, self.url + path, content=raw, headers=headers)
        except httpx2.HTTPError as error:
            raise ProviderError(
                f"{self.url} does not answer ({type(error).__name__}: {error}).", "Is the server running?"
            ) from error
        if "text/event-stream" in response.headers.get("content-type", ""):
            data = [line[5:].strip() for line in response.text.splitlines() if line.startswith("data:")]
            events = tuple(_json(item) for item in data if item != "[DONE]")
            return Reply(response.status_code, None, events, bool(data) and data[-1] == "[DONE]")
        return Reply(response.status_code, _json(response.text))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None

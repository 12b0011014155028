"""What every request passes before anything reads it: is it meant for this server, and may its sender be here?

- **Host**: a web page elsewhere can point its own name at 127.0.0.1 and then talk to this server as to itself (DNS
  rebinding). A server on loopback therefore answers only to loopback names.
- **Key**: the one key of the server's owner, which may do everything, or one of the workspace's keys with its scopes.
  Both are compared by digest. A browser, which cannot send a bearer token by itself, may give the key as the password
  of HTTP Basic.
- Other origins get no CORS headers, and `/v1` takes JSON bodies only, which a foreign page cannot send unasked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Collection
from typing import IO

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windlass.serve.connection import SENT
from windlass.serve.errors import HttpError, error_response
from windlass.serve.keys import Key, Keys, Refusal
from windlass.serve.metrics import Metrics

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/health", "/ready"})
"""Answered without a key: a health check holds no secret and must not need one."""
API_PATHS = ("/v1/", "/v2/", "/rerank", "/classify", "/tokenize", "/detokenize", "/openapi.json")
"""Where each operation looks at the key's scopes itself. Everywhere else a key needs the scope `admin`."""

_KEY = "windlass.key"
REQUESTS = "windlass_requests_total"
SECONDS = "windlass_request_seconds"


class Gate:
    """ASGI middleware: checks host and key, and counts every request with its status and duration.

    `log` gets a line of JSON for each: neither content, nor addresses, nor the path as sent.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, hosts: Collection[str] | None = LOOPBACK, api_key: str | None = None,
        keys: Keys | None = None, log: IO[str] | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._hosts = hosts
        self._key = None if api_key is None else _hash(api_key.encode())
        self._keys = keys
        self._log = log
        self._metrics = metrics
        metrics.declare(REQUESTS, "counter", "Requests answered, by path and status.")
        metrics.declare(SECONDS, "histogram", "Seconds from a request's arrival to the last byte of its answer.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, sent = time.perf_counter(), 0, 0
        identity = f"req_{secrets.token_hex(12)}"

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
                if getattr(scope["app"].state, "draining", False):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (self._app if refusal is None else error_response(refusal))(scope, receive, watched)
        finally:
            # The route as declared, not the path as sent: a client must not be able to make up label values.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.add(REQUESTS, path=route, status=str(status))
            seconds = time.perf_counter() - started
            self._metrics.observe(SECONDS, seconds, path=route)
            if self._log is not None:
                key = key_of(scope)
                line = {
                    "time": time.time(), "id": identity, "method": scope["method"], "path": route, "status": status,
                    "seconds": round(seconds, 4), "bytes": sent + scope.get(SENT, 0),
                    "key": None if key is None else key.name,
                }  # fmt: skip
                print(json.dumps(line), file=self._log, flush=True)

    def _refusal(self, scope: Scope) -> HttpError | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            return HttpError(
                421,
                "This server does not answer to the host name of this request.",
                f"Use one of: {', '.join(sorted(self._hosts))}.",
                code="wrong_host",
            )
        keyed = self._keys is not None and self._keys.any()
        if scope["path"] in OPEN_PATHS or (self._key is None and not keyed):
            return None
        given = _given_key(headers.get("authorization", ""))
        if self._key is not None and hmac.compare_digest(_hash(given), self._key):
            return None
        key = self._keys.find(given.decode(errors="replace")) if self._keys is not None else None
        if key is not None:
            if not scope["path"].startswith(API_PATHS) and "admin" not in key.scopes:
                return HttpError(403, f"The key '{key.name}' lacks the scope 'admin'.", code="missing_scope")
            scope[_KEY] = key
            return None
        return HttpError(
            401,
            "The API key is missing or wrong.",
            "Send it as 'Authorization: Bearer KEY'.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": 'Basic realm="windlass: any name, the API key as password"'},
        )


def key_of(scope: Scope) -> Key | None:
    """The workspace's key that a request came with; None: it may do everything, and nothing is counted."""
    found: Key | None = scope.get(_KEY)
    return found


async def admit(keys: Keys, key: Key, *, tokens: int = 0, dollars: float = 0.0) -> None:
    """Counts a request of the key, as `Keys.admit`. Raises `HttpError` (429) when a limit is reached."""
    if keys.at_hand(key):
        refusal = keys.admit(key, tokens=tokens, dollars=dollars)
    else:
        refusal = await asyncio.to_thread(keys.admit, key, tokens=tokens, dollars=dollars)
    if refusal is not None:
        raise _limit_error(refusal)


def _limit_error(refusal: Refusal) -> HttpError:
    code = "insufficient_quota" if refusal.limit.startswith("dollars") else "rate_limit_exceeded"
    return HttpError(429, refusal.message, "Come back later.", code=code, headers={"Retry-After": str(refusal.wait)})


def scope_error(key: Key, scope: str) -> HttpError:
    """Something that a key may not do."""
    return HttpError(
        403, f"The key '{key.name}' may not do this: it lacks the scope '{scope}'.",
        "Make one with: windlass keys add NAME --scope …", code="missing_scope",
    )  # fmt: skip


def _host(header: str) -> str:
    """The host name without its port; an IPv6 address keeps its brackets."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def _given_key(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _hash(key: bytes) -> bytes:
    """Keys are compared by digest, so that not even their length shows in the time it takes."""
    return hashlib.sha256(key).digest()

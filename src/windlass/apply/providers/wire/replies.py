"""What an endpoint sends back: read as JSON, or told in one clear error, and never with a secret in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpcore2
import httpx2

from windlass.apply.providers.dialects.dialect import Frames
from windlass.apply.providers.wire.clock import Clock
from windlass.apply.providers.wire.keys import Auth
from windlass.apply.providers.wire.proxies import passwords
from windlass.core.errors import ProviderError
from windlass.core.redact import secret_headers, struck
from windlass.core.sse import BadEvent

BROKEN = (
    httpx2.TransportError,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
)
"""No answer, or half of one."""
LATE = (httpx2.TimeoutException, httpcore2.TimeoutException)
SILENT = (httpx2.ReadTimeout, httpcore2.ReadTimeout)
"""All was sent, and nothing came back in time."""
_LONGEST_WORDS = 4000
"""Bytes of an answer that messages are made of. Cut before secrets are struck out, a part of one would stay."""
_HINTS: Mapping[int, str] = {
    400: "The endpoint refused a parameter; its message says which.",
    401: "Check the key in the environment variable {key}.",
    403: "The key in {key} may not use this model or endpoint.",
    404: "Check base_url and the model's name.",
    413: "The request is too long for this endpoint.",
    429: "Too many requests or no credit left: wait, or raise the limit at the provider.",
}


class Replies:
    """Of one endpoint. Methods raise `ProviderError`, with the status where there was one."""

    def __init__(self, base_url: str, auth: Auth, headers: Mapping[str, str], proxy: str | None) -> None:
        self.base_url = base_url
        self._auth, self._headers, self._proxy = auth, headers, proxy

    def object(self, path: str, status: int, content: bytes, refuse_errors: bool = True) -> dict[str, Any]:
        """The JSON object that an answer is."""
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            shown = self.clean(content[:_LONGEST_WORDS].decode("utf-8", "replace").strip())[:200]
            raise ProviderError(
                f"{self.base_url}{path} answered status {status}, but not with JSON: {shown!r}.",
                "Is base_url right? It usually ends in /v1.",
                status=status,
            ) from error
        if not isinstance(value, dict):
            raise ProviderError(f"{self.base_url}{path} answered JSON that is no object.", status=status)
        if refuse_errors:
            self.refuse_error(value, path, status)
        return value

    def event(self, path: str, status: int, text: bytes) -> dict[str, Any]:
        """The JSON object that an event of a stream is."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            shown = self.clean(text[:_LONGEST_WORDS].decode("utf-8", "replace"))[:200]
            raise ProviderError(
                f"{self.base_url}{path} sent an event that is not JSON: {shown!r}.", status=status
            ) from error
        if not isinstance(value, dict):
            raise ProviderError(f"{self.base_url}{path} sent an event that is no object.", status=status)
        self.refuse_error(value, path, status)
        return value

    def refuse_page(self, path: str, response: httpx2.Response, frames: Frames) -> None:
        """What is no stream of events, such as a page for people."""
        kind = response.headers.get("content-type", "")
        if frames.media_type not in kind:
            raise ProviderError(
                f"{self.base_url}{path} answered {kind or 'no content type'}, not a stream of events.",
                "Is base_url right? Does the server support streaming?",
                status=response.status_code,
            )

    def refuse_error(self, value: Mapping[str, Any], path: str, status: int = 200) -> None:
        """Some servers report an error with status 200, or inside a stream."""
        error = value.get("error")
        if error and "choices" not in value:
            message = error.get("message", error) if isinstance(error, dict) else error
            raise ProviderError(f"{self.base_url}{path} reported: {self.clean(str(message))[:2000]}", status=status)

    @contextlib.contextmanager
    def broken(self, path: str, status: int, clock: Clock) -> Iterator[None]:
        """For a block that reads an answer: what breaks it off is told; `TimedOut` where the call's time is over."""
        try:
            yield
        except (*BROKEN, httpx2.StreamError, httpx2.DecodingError) as error:
            if isinstance(error, LATE):
                clock.left()
            raise ProviderError(
                f"{self.base_url}{path} broke off its answer ({type(error).__name__}).",
                "Ask again; if it happens often, check the server's log.",
                status=status,
            ) from error
        except BadEvent as error:
            raise ProviderError(f"{self.base_url}{path}: {self.clean(str(error))[:300]}.", status=status) from None

    def failure(self, path: str, response: httpx2.Response) -> ProviderError:
        """What to raise for an answer that is no good one, and has been read."""
        text = self.clean(response.content[:_LONGEST_WORDS].decode("utf-8", "replace"))
        try:
            value = json.loads(text)
            value = value[0] if isinstance(value, list) else value  # Gemini puts its errors into a list
            detail = value.get("error", value)
            message = str(detail["message"] if isinstance(detail, dict) else detail)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            message = " ".join(text.split())[:300]
        status = response.status_code
        hint = _HINTS.get(status, "The fault is at the endpoint; try again later." if status >= 500 else "")
        if status == 401 and not self._auth.secrets():
            hint = "Set the environment variable {key} to your key."
        return ProviderError(
            f"{self.base_url}{path} answered status {status}: {self.clean(message)[:2000] or 'no message'}",
            hint.format(key=self._auth.named),
            status=status,
        )

    def clean(self, text: str) -> str:
        """What the other side said, without what must never be shown: it may repeat what it was sent."""
        hidden = [*self._auth.secrets(), *secret_headers(self._headers), *passwords(self._proxy)]
        return struck(text, hidden, "[key]")

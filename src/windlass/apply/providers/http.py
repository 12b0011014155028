"""One HTTP call to a model endpoint: timeouts by phase, retries with jitter that honour `Retry-After`, clear errors.

The key is read from the environment at each call, sent in one header, and struck out of every message.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from windlass import __version__
from windlass.core.config import secret
from windlass.core.errors import ConfigError, ProviderError
from windlass.core.retry import AGAIN, backoff, retry_after

_LONGEST_WAIT = 60.0
_HINTS: Mapping[int, str] = {
    400: "The endpoint refused a parameter; its message says which.",
    401: "Check the key in the environment variable {key}.",
    403: "The key in {key} may not use this model or endpoint.",
    404: "Check base_url and the model's name.",
    413: "The request is too long for this endpoint.",
    429: "Too many requests or no credit left: wait, or raise the limit at the provider.",
}


class Endpoint:
    """An OpenAI-compatible server. Safe to share between threads."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        connect_timeout: float = 10.0,
        retries: int = 2,
        headers: Mapping[str, str] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        try:
            url = httpx2.URL(base_url)
        except (httpx2.InvalidURL, TypeError) as error:
            raise ConfigError(f"base_url '{base_url}' is not a URL ({error}).") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"base_url '{base_url}' is not an http(s) URL.", "For example http://127.0.0.1:11434/v1")
        self.base_url = base_url.rstrip("/")
        self.host = url.host
        self.port = url.port
        self.api_key_env = api_key_env
        self.retries = retries
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=connect_timeout),
            headers={"User-Agent": f"windlass/{__version__}", **(headers or {})},
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path. Raises `ProviderError`."""
        return self._object(path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the server answers. Raises `ProviderError`."""
        return self._object(path, body)

    def _object(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._sent(path, body) as response:
            content = self._read(response)
        try:
            value = json.loads(content)
        except ValueError as error:
            shown = self._clean(content[:200].decode("utf-8", "replace").strip())
            raise ProviderError(
                f"{self.base_url}{path} answered status {response.status_code}, but not with JSON: {shown!r}.",
                "Is base_url right? It usually ends in /v1.",
                status=response.status_code,
            ) from error
        if not isinstance(value, dict):
            raise ProviderError(f"{self.base_url}{path} answered JSON that is no object.", status=response.status_code)
        self._refuse_error(value, path, response.status_code)
        return value

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON objects of a server-sent event stream, up to `[DONE]`. Raises `ProviderError`."""
        with self._sent(path, body) as response:
            kind = response.headers.get("content-type", "")
            if "text/event-stream" not in kind:
                raise ProviderError(
                    f"{self.base_url}{path} answered {kind or 'no content type'}, not a stream of events.",
                    "Is base_url right? Does the server support streaming?",
                    status=response.status_code,
                )
            with self._broken(path, response.status_code):
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        return
                    try:
                        value = json.loads(data)
                    except ValueError as error:
                        raise ProviderError(
                            f"{self.base_url}{path} sent an event that is not JSON: {self._clean(data[:200])!r}.",
                            status=response.status_code,
                        ) from error
                    if not isinstance(value, dict):
                        raise ProviderError(f"{self.base_url}{path} sent an event that is no object.")
                    self._refuse_error(value, path, response.status_code)
                    yield value

    # sending --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _sent(self, path: str, body: Mapping[str, Any] | None) -> Iterator[httpx2.Response]:
        """An open response with a good status; retries until one arrives or the tries are used up."""
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            response: httpx2.Response | None = None
            try:
                response = self._client.send(self._request(path, body), stream=True)
            except httpx2.TimeoutException as error:
                if last or isinstance(error, httpx2.ReadTimeout):  # it may be working on it: asking again pays twice
                    raise ProviderError(
                        f"{self.base_url}{path} did not answer in time ({type(error).__name__}).",
                        "Raise timeout_s under [model] in windlass.toml, or check the server.",
                    ) from error
            except httpx2.TransportError as error:
                if last:
                    raise ProviderError(
                        f"{self.base_url} cannot be reached ({self._clean(str(error))}).",
                        "Check base_url, and that the server is running.",
                    ) from error
            if response is not None:
                try:
                    if response.is_success:
                        yield response
                        return
                    if last or response.status_code not in AGAIN:
                        raise self._failure(path, response)
                finally:
                    response.close()
            time.sleep(_wait(attempt, response))

    def _request(self, path: str, body: Mapping[str, Any] | None) -> httpx2.Request:
        """Without a body it is a GET."""
        key = secret(self.api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        method = "GET" if body is None else "POST"
        return self._client.build_request(method, f"{self.base_url}{path}", json=body, headers=headers)

    def _read(self, response: httpx2.Response) -> bytes:
        with self._broken("", response.status_code):
            return response.read()
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _broken(self, path: str, status: int) -> Iterator[None]:
        try:
            yield
        except (httpx2.TransportError, httpx2.StreamError, httpx2.DecodingError) as error:
            raise ProviderError(
                f"{self.base_url}{path} broke off its answer ({type(error).__name__}).",
                "Ask again; if it happens often, check the server's log.",
                status=status,
            ) from error

    # errors ---------------------------------------------------------------------------------------------------------

    def _failure(self, path: str, response: httpx2.Response) -> ProviderError:
        text = self._read(response)[:4000].decode("utf-8", "replace")
        try:
            detail = json.loads(text)["error"]
            message = str(detail["message"] if isinstance(detail, dict) else detail)
        except (ValueError, KeyError, TypeError):
            message = " ".join(text.split())[:300]
        status = response.status_code
        hint = _HINTS.get(status, "The fault is at the endpoint; try again later." if status >= 500 else "")
        if status == 401 and secret(self.api_key_env) is None:
            hint = "Set the environment variable {key} to your key."
        return ProviderError(
            f"{self.base_url}{path} answered status {status}: {self._clean(message) or 'no message'}",
            hint.format(key=self.api_key_env),
            status=status,
        )

    def _refuse_error(self, value: Mapping[str, Any], path: str, status: int) -> None:
        """Some servers report an error with status 200, or inside a stream."""
        error = value.get("error")
        if error and "choices" not in value:
            message = error.get("message", error) if isinstance(error, dict) else error
            raise ProviderError(f"{self.base_url}{path} reported: {self._clean(str(message))}", status=status)

    def _clean(self, text: str) -> str:
        key = secret(self.api_key_env)
        return text.replace(key, "[key]") if key else text


def _wait(attempt: int, response: httpx2.Response | None) -> float:
    """Seconds until the next try: what the server asks for, unless that is very long."""
    asked = None if response is None else retry_after(response.headers)
    return asked if asked is not None and asked <= _LONGEST_WAIT else backoff(attempt)

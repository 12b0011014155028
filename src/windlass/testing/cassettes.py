"""Real HTTP traffic, recorded once and played back ever after: a readable file, with keys and secrets struck out.

    endpoint = Endpoint("https://api.openai.com/v1", transport=Cassette("tests/cassettes/deal.json"))

With `WINDLASS_RECORD=1` in the environment (or `record=True`) requests go out and the file is written; otherwise
nothing goes out, and a request that the file does not hold is refused with what differs.

What is kept: method, address and body of requests; status, content type, `Retry-After` and body of answers. Headers of
requests are never kept; what they hold, and known secrets (`core.redact`: formats of keys, values of secret environment
variables), are struck out of the rest. Look through a new cassette before you commit it: redaction knows no secret of
your own.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.redact import MARK, Redactor, secret_headers, struck

_KEPT = ("content-type", "retry-after", "retry-after-ms")
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&]*(?:key|token|secret|signature|password|credential)[^=&]*=)[^&#]*")


class UnknownRequest(InputError):
    """A request that the cassette does not hold."""


class Cassette(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A transport for `Endpoint(transport=…)`, for callers that wait and for event loops. Safe to share.

    Each recorded exchange is played once, equal ones in the order in which they were recorded. Recording begins with
    an empty cassette, and the file is whole after each exchange. `inner`: what sends while recording.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        record: bool | None = None,
        redact: Redactor | None = None,
        inner: httpx2.MockTransport | None = None,
    ) -> None:
        self.path = Path(path)
        self.recording = bool(os.environ.get("WINDLASS_RECORD")) if record is None else record
        self._redact = redact or Redactor()
        self._inner = inner
        self._lock = threading.Lock()
        self._exchanges: list[dict[str, Any]] = []
        self._played: set[int] = set()
        if not self.recording:
            self._exchanges = self._load()

    @property
    def left(self) -> int:
        """Exchanges that nobody asked for."""
        return len(self._exchanges) - len(self._played)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        content = request.read()
        if not self.recording:
            return self._play(self._asked(request, content))
        if self._inner is not None:
            answer = self._inner.handle_request(request)
            return self._keep(request, content, answer, answer.read())
        with httpx2.HTTPTransport() as sending:
            answer = sending.handle_request(request)
            return self._keep(request, content, answer, answer.read())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        if not self.recording:
            return self._play(self._asked(request, content))
        if self._inner is not None:
            answer = await self._inner.handle_async_request(request)
            return self._keep(request, content, answer, await answer.aread())
        async with httpx2.AsyncHTTPTransport() as sending:
            answer = await sending.handle_async_request(request)
            return self._keep(request, content, answer, await answer.aread())

    # record -----------------------------------------------------------------------------------------------------------

    def _asked(self, request: httpx2.Request, content: bytes) -> dict[str, Any]:
        """A request as the file has it."""
        own = [*secret_headers(request.headers)]
        url = _SECRET_PARAMETER.sub(rf"\g<1>{MARK}", self._redact(struck(str(request.url), own)))
        return {"method": request.method, "url": url, **self._body(content, own)}

    def _keep(self, request: httpx2.Request, sent: bytes, answer: httpx2.Response, content: bytes) -> httpx2.Response:
        asked, own = self._asked(request, sent), [*secret_headers(request.headers)]
        headers = {name: value for name in _KEPT if (value := answer.headers.get(name)) is not None}
        given = {"status": answer.status_code, "headers": headers, **self._body(content, own)}
        with self._lock:
            self._exchanges.append({"request": asked, "response": given})
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"cassette": 1, "exchanges": self._exchanges})
        return httpx2.Response(answer.status_code, headers=headers, stream=_Pieces(content))

    def _body(self, content: bytes, own: Sequence[str]) -> dict[str, Any]:
        """JSON as itself, text by its lines, anything else as base64, in which nothing can be struck out. `own`: what
        the request's headers hold, which either side may repeat."""
        if not content:
            return {}
        try:
            text = self._redact(struck(content.decode(), own))
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(content).decode()}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return {"lines": text.splitlines(keepends=True)}
        return {"json": value} if isinstance(value, dict | list) else {"lines": text.splitlines(keepends=True)}

    # play -------------------------------------------------------------------------------------------------------------

    def _load(self) -> list[dict[str, Any]]:
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
            if value["cassette"] != 1:
                raise InputError(f"{self.path} is a cassette of another version: {value['cassette']}.")
            return list(value["exchanges"])
        except FileNotFoundError:
            hint = "Record it: run the test once with WINDLASS_RECORD=1 and the key of the provider."
            raise InputError(f"There is no cassette {self.path}.", hint) from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"{self.path} is no cassette ({error!r}).", "Record it again.") from error

    def _play(self, asked: Mapping[str, Any]) -> httpx2.Response:
        with self._lock:
            equal = [n for n, exchange in enumerate(self._exchanges) if exchange["request"] == asked]
            waiting = [n for n in equal if n not in self._played]
            if not waiting:
                raise UnknownRequest(*self._difference(asked, len(equal)))
            self._played.add(waiting[0])
            given = self._exchanges[waiting[0]]["response"]
        return httpx2.Response(given["status"], headers=given["headers"], stream=_Pieces(_bytes(given)))

    def _difference(self, asked: Mapping[str, Any], equal: int) -> tuple[str, str]:
        what = f"{asked['method']} {asked['url']}"
        hint = "If the request is right, record the cassette again with WINDLASS_RECORD=1."
        if equal:
            return f"{self.path} holds {what} {equal} times, and it was asked once more.", hint
        others = [exchange["request"] for n, exchange in enumerate(self._exchanges) if n not in self._played]
        if not others:
            return f"{self.path} has no exchange left for {what}.", hint
        differing = (list(_differences(other, asked)) for other in others)
        nearest = min(differing, key=lambda lines: (len(lines), sum(map(len, lines))))
        shown = "\n".join(f"  {line}" for line in nearest[:8])
        more = f"\n  and {len(nearest) - 8} more" if len(nearest) > 8 else ""
        told = f"{self.path} does not hold {what}. From the nearest recorded request it differs in"
        return f"{told}\n{shown}{more}", hint


class _Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes as it did: events one after the other."""

    def __init__(self, content: bytes) -> None:
        self._pieces = re.findall(rb".+?\n\n|.+", content, re.DOTALL)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def _bytes(given: Mapping[str, Any]) -> bytes:
    if "json" in given:
        return json.dumps(given["json"], ensure_ascii=False).encode()
    if "base64" in given:
        return base64.b64decode(given["base64"])
    return "".join(given.get("lines", ())).encode()


def _differences(recorded: Any, asked: Any, at: str = "") -> Iterator[str]:
    """Each place where two JSON values are not the same."""
    if isinstance(recorded, Mapping) and isinstance(asked, Mapping):
        for name in dict.fromkeys([*recorded, *asked]):
            place = f"{at}.{name}" if at else str(name)
            if name not in asked:
                yield f"{place}: recorded {_shown(recorded[name])}, not asked"
            elif name not in recorded:
                yield f"{place}: not recorded, asked {_shown(asked[name])}"
            else:
                yield from _differences(recorded[name], asked[name], place)
    elif isinstance(recorded, list) and isinstance(asked, list) and len(recorded) == len(asked):
        for n, (one, other) in enumerate(zip(recorded, asked, strict=True)):
            yield from _differences(one, other, f"{at}.{n}")
    elif recorded != asked:
        yield f"{at}: recorded {_shown(recorded)}, asked {_shown(asked)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}…"

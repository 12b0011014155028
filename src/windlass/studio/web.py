"""What every page of the studio goes through: the door checks, the templates, the headers.

The studio runs no inline script or style and loads nothing from elsewhere, so its policy can forbid both. A
changing request is taken only from the studio's own pages (`Sec-Fetch-Site`, else `Origin`). Host names and keys are
checked before, by the server's gate.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from windlass.core.errors import InputError, NotFound, WindlassError
from windlass.core.protocols import ChatModel
from windlass.core.version import __version__
from windlass.core.workspace import Workspace
from windlass.studio.documents import Corpora
from windlass.studio.format import FILTERS

HERE = Path(__file__).parent
MAX_FORM_BYTES = 64_000
MAX_ASKING = 8
"""Questions answered at once; they share the processor with the API."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

NAVIGATION = (
    ("overview", "Overview", "/", "h"),
    ("ask", "Ask", "/ask", "a"),
    ("chat", "Chat", "/chat", "c"),
    ("traces", "Traces", "/traces", "t"),
    ("runs", "Runs", "/runs", "r"),
    ("experiments", "Experiments", "/experiments", "e"),
    ("prompts", "Prompts", "/prompts", "p"),
    ("review", "Review", "/review", "v"),
    ("releases", "Releases", "/releases", "l"),
    ("artifacts", "Artifacts", "/artifacts", "f"),
)
"""Key, label, address, and the letter that follows `g` to go there."""


@dataclass(slots=True)
class Studio:
    """What pages read from."""

    ws: Workspace
    models: Mapping[str, ChatModel]
    asking: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(MAX_ASKING))
    saving: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever looks what is newest and then stores something newer."""
    corpora: Corpora = field(init=False)
    templates: jinja2.Environment = field(init=False)

    def __post_init__(self) -> None:
        self.corpora = Corpora(self.ws)
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.templates.filters.update(FILTERS)
        self.templates.globals.update(navigation=NAVIGATION, version=__version__, static=_static, query=_query)

    def render(self, template: str, **values: Any) -> str:
        return self.templates.get_template(template).render(**values)

    def endpoint(
        self, handler: Callable[[Visit], Response], most: int = MAX_FORM_BYTES
    ) -> Callable[[Request], Awaitable[Response]]:
        """A Starlette endpoint that runs `handler` in a thread and answers every `WindlassError` with a page. Forms may
        hold `most` bytes."""

        async def answer(request: Request) -> Response:
            try:
                visit = Visit(self, request, await _form(request, most) if request.method == "POST" else {})
                response = await run_in_threadpool(handler, visit)
            except WindlassError as error:
                response = self._failed(request, error)
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault("Cache-Control", "private, no-cache")
            return response

        return answer

    def _failed(self, request: Request, error: WindlassError) -> Response:
        status = (
            error.status
            if isinstance(error, Refused)
            else 404
            if isinstance(error, NotFound)
            else 400
            if isinstance(error, InputError)
            else 500
        )
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"error": error.message, "hint": error.hint}, status)
        return HTMLResponse(self.render("error.html", here="", error=error, status=status), status)


class Refused(InputError):
    """A request the door turns away, with its HTTP status."""

    def __init__(self, message: str, hint: str = "", *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Visit:
    """One request as a handler sees it."""

    studio: Studio
    request: Request
    form: Mapping[str, str]

    @property
    def ws(self) -> Workspace:
        return self.studio.ws

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default).strip()

    def whole(self, name: str, default: int, low: int = 0) -> int:
        """A whole number from the address; `InputError` when it is none or below `low`."""
        text = self.query(name) or str(default)
        if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) < low:
            raise InputError(f"'{name}' in the address is '{text[:40]}'.", f"It must be a whole number from {low}.")
        return int(text)

    def accepts(self, media_type: str) -> bool:
        return media_type in self.request.headers.get("accept", "")

    def page(self, template: str, here: str, **values: Any) -> HTMLResponse:
        """`here` is the navigation entry that is lit."""
        return HTMLResponse(self.studio.render(template, here=here, **values))


async def _form(request: Request, most: int) -> dict[str, str]:
    """The fields of a form post. Raises `Refused` for posts from other sites and for oversized ones."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # Browsers send at least one of the two with every post; a program that sends neither carries no one's session.
    foreign = site not in ("same-origin", "none") if site else origin and urlsplit(origin).netloc != request.url.netloc
    if foreign:
        raise Refused("This form was sent from another site.", "Open the studio itself and try again.", status=403)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise Refused(f"The form holds more than {most:,} bytes.", "Send a shorter text.", status=413)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError as error:
        raise InputError("The form is not URL-encoded UTF-8.", "Send it as a browser does.") from error


class Static(StaticFiles):
    """The studio's own files. Their addresses carry a digest, so a browser may keep them for good."""

    def __init__(self) -> None:
        super().__init__(directory=HERE / "static")

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        keep = "public, max-age=31536000, immutable" if b"v=" in scope["query_string"] else "no-cache"
        response.headers["Cache-Control"] = keep
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


_versions: dict[str, str] = {}


def _static(path: str) -> str:
    """Address of a static file, versioned by its content."""
    if path not in _versions:
        _versions[path] = hashlib.sha256((HERE / "static" / path).read_bytes()).hexdigest()[:10]
    return f"/static/{quote(path)}?v={_versions[path]}"


def _query(**values: object) -> str:
    """A query string of the values that are set."""
    return "?" + urlencode({key: str(value) for key, value in values.items() if value not in ("", None)})

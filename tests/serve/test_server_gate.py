from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("starlette")

from serving_fakes import Echo, Letters
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message

from windlass.serve.app import create_app
from windlass.serve.gate import _host


async def get(app: Any, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    """One request straight to the application: status and headers of its answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in {"host": "127.0.0.1:8080", **headers}.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b"", "scheme": "http"}
    await app({**scope, "server": ("127.0.0.1", 8080), "root_path": ""}, receive, send)
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}


def app(**settings: Any) -> Any:
    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse("page")

    return create_app({"echo": Echo()}, {"letters": Letters()}, routes=[Route("/", page)], **settings)


def run(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "[::1]"])
def test_loopback_names_are_answered(host: str) -> None:
    assert run(get(app(), "/v1/models", host=host))[0] == 200


@pytest.mark.parametrize("path", ["/v1/models", "/", "/health", "/metrics"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost:evil"])
def test_other_names_are_refused_everywhere(host: str, path: str) -> None:
    status, headers = run(get(app(), path, host=host))
    assert status == 421 and "access-control-allow-origin" not in headers


def test_any_name_where_told_so() -> None:
    assert run(get(app(hosts=None), "/v1/models", host="models.example"))[0] == 200


def test_no_cors_headers() -> None:
    _, headers = run(get(app(), "/v1/models", origin="https://evil.example"))
    assert not any(name.startswith("access-control") for name in headers)


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"me:{key}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer s3cret", 200), ("bearer  s3cret", 200), (basic("s3cret"), 200), ("Bearer s3cre", 401), ("Bearer", 401),
        ("", 401), ("s3cret", 401), (basic("wrong"), 401), ("Basic %%%", 401), ("Bearer s3cret2", 401),
    ],
)  # fmt: skip
def test_the_key_is_asked_for(authorization: str, status: int) -> None:
    got, headers = run(get(app(api_key="s3cret"), "/v1/models", authorization=authorization))
    assert got == status
    assert ("www-authenticate" in headers) == (status == 401)


def test_the_key_guards_added_pages_and_metrics_but_not_health() -> None:
    guarded = app(api_key="s3cret")
    assert [run(get(guarded, path))[0] for path in ("/", "/metrics", "/nothing", "/health")] == [401, 401, 401, 200]
    assert run(get(guarded, "/", authorization=basic("s3cret")))[0] == 200


def test_host_without_its_port() -> None:
    assert [_host(h) for h in ("a:1", "A", "[::1]:2", "[::1]", "a:b")] == ["a", "a", "[::1]", "[::1]", "a:b"]

"""Requests that nobody should send, to a real engine: each is a named error, and the server answers the next one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from engine_world import TEMPLATE, make_folder

from windlass.serve.app import create_app
from windlass.serve.engine.local import LocalModel
from windlass.serve.run import ServerThread


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    model = LocalModel.load(make_folder(tmp_path_factory.mktemp("abuse") / "tiny", template=TEMPLATE), policy="fp32")
    with (
        ServerThread(create_app({"tiny": model}, {})) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client
    model.close()


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error, in OpenAI's shape."""
    assert answer.status_code == status, answer.text[:500]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and len(error["message"]) < 3000
    return error


def chat(http: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **fields}
    return http.post("/v1/chat/completions", json=body)


def raw(http: httpx.Client, body: bytes) -> httpx.Response:
    return http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})


@pytest.fixture(autouse=True)
def still_there(http: httpx.Client) -> Iterator[None]:
    yield
    assert chat(http).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"model": ', 400, "not valid JSON"),
        (b"", 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"temperature": NaN}', 400, "holds NaN"),
        (b'{"model": "a", "model": "b"}', 400, "given twice"),
        (b'{"model": "\xff"}', 400, "can't decode byte 0xff"),
        (b'{"model": "\\ud800"}', 400, "half a character"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "nested too deeply"),
        (b'{"max_tokens": ' + b"9" * 10_000 + b"}", 400, "number of thousands of digits"),
        (b'{"model": "' + b"a" * 10_000_000 + b'"}', 413, "larger than"),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, bytes) else None,
)
def test_bodies_that_are_none(http: httpx.Client, body: bytes, status: int, said: str) -> None:
    assert said in refused(raw(http, body), status)["message"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"max_tokens": -1}, "max_tokens", "between 1 and"),
        ({"max_tokens": 10**9}, "max_tokens", "between 1 and"),
        ({"temperature": -1}, "temperature", "between 0 and 2"),
        ({"n": 10**9}, "n", "between 1 and 16"),
        ({"n": True}, "n", "must be a whole number"),
        ({"logit_bias": {"99999": 5}}, "logit_bias", "the token 99999, but the model has 280"),
        ({"logit_bias": {str(i): 1 for i in range(100_000)}}, "logit_bias", "holds 100000"),
        ({"stop": ["x"] * 10_000}, "stop", "holds 10000"),
        ({"messages": [{"role": "user", "content": "a"}] * 100_000}, "messages", "holds 100000"),
        ({"min_tokens": 5}, "min_tokens", "room for 4 tokens"),
        ({"regex": "("}, "regex", "unclosed group"),
        ({"regex": "(" * 2000 + ")" * 2000}, "regex", "cannot be used"),
        ({"grammar": "nonsense"}, "grammar", "cannot be used"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}}},
            "response_format",
            "must be one or more of",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 1000}, "tools", "holds 1000"),
        ({"seed": 2**70}, "seed", "between"),
        ({"x" * 100_000: 1}, "x" * 200, "not a field"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_absurd_parameters_are_refused_by_name(
    http: httpx.Client, fields: dict[str, Any], param: str, said: str
) -> None:
    error = refused(chat(http, **fields))
    assert error["param"] == param and said in error["message"]
    assert error["code"] in ("invalid_value", "unknown_field")


@pytest.mark.parametrize("length", [200, 500_000])
def test_what_does_not_fit_the_window_has_the_code_that_clients_look_for(http: httpx.Client, length: int) -> None:
    error = refused(chat(http, messages=[{"role": "user", "content": "a " * length}]))
    assert error["code"] == "context_length_exceeded" and "reads at most 128" in error["message"]
    error = refused(chat(http, max_tokens=127))
    assert error["code"] == "context_length_exceeded" and error["param"] == "max_tokens"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("BREW", "/v1/models", 400),  # no method that HTTP knows
        ("PROPFIND", "/v1/models", 405),
        ("PROPFIND", "/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/health", 405),
        ("GET", "/v1/models/" + "a" * 5000, 404),
    ],
)
def test_no_such_path_or_method(http: httpx.Client, method: str, path: str, status: int) -> None:
    refused(http.request(method, path), status)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 3_000_000}]}),
        ("/v1/completions", {"prompt": [1] * 600_000}),
    ],
    ids=["a long prompt", "many tokens"],
)
def test_long_texts_hold_up_nobody_else(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """A tokenizer takes seconds for them, and must let other threads run meanwhile."""
    took = 0.0

    def send() -> None:
        nonlocal took
        started = time.monotonic()
        content = json.dumps({"model": "tiny", **body})
        httpx.post(http.base_url.join(path), content=content, headers={"Content-Type": "application/json"}, timeout=60)
        took = time.monotonic() - started

    sender = threading.Thread(target=send)
    sender.start()
    longest = 0.0
    while sender.is_alive():
        started = time.monotonic()
        assert http.get("/health").status_code == 200
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.002)
    sender.join()
    assert longest < took / 2, f"somebody else waited {longest:.2f} of its {took:.2f} s"

"""The gateway before providers that misbehave, seen by the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
from gateway_fakes import (
    DONE,
    PIECES,
    ROLE,
    USAGE,
    Act,
    Provider,
    answer,
    chunk,
    error,
    event,
    good_stream,
    hang_up,
    raw,
    running,
    stall,
    stream,
    whole,
)

from windlass.core.config import strict
from windlass.core.records import SpanRecord
from windlass.core.sqlite_store import SqliteStore
from windlass.core.trace import Recorder
from windlass.serve.gateway import cache
from windlass.serve.gateway.app import create_gateway
from windlass.serve.gateway.config import GatewayConfig
from windlass.serve.run import ServerThread

KEY = "sk-provider-secret-key"


class World:
    """A gateway in front of fake providers, the official client before it, and the traces behind it."""

    def __init__(self, folder: Path, providers: dict[str, Provider], **config: Any) -> None:
        first = next(iter(providers))
        named = {
            name: {"base_url": p.url, "api_key_env": "FAKE_KEY"} | config.pop(name, {}) for name, p in providers.items()
        }
        route = {"targets": [{"provider": first, "model": "small"}], "retries": 1} | config.pop("route", {})
        values = {"providers": named, "routes": config.pop("routes", {"m": route}), **config}
        self.config = strict(GatewayConfig, values, where="test")
        folder.mkdir(exist_ok=True)
        self._store = SqliteStore(folder / "traces.db")
        self._recorder = Recorder(self._store)
        self.server = ServerThread(create_gateway(self.config, self._recorder))

    def __enter__(self) -> World:
        self.server.__enter__()
        self.client = openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="none", max_retries=0)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.__exit__(None, None, None)
        self._recorder.close()
        self._store.close()

    def ask(self, **more: Any) -> Any:
        return self.client.chat.completions.create(model="m", messages=[{"role": "user", "content": "2+2?"}], **more)

    def spans(self, count: int) -> list[SpanRecord]:
        """`count` of them, newest first. A client may have its answer before the gateway has written it down."""
        deadline = time.monotonic() + 30
        while len(spans := self._written()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(spans) == count
        return spans

    def span(self) -> SpanRecord:
        """The newest."""
        deadline = time.monotonic() + 30
        while not (spans := self._written()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return spans[0]

    def _written(self) -> list[SpanRecord]:
        self._recorder.flush()
        return [summary.root for summary in self._store.traces()]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.serve.gateway.gateway.backoff", lambda attempt: 0.01)


@contextlib.contextmanager
def world(folder: Path, *script: Act, **config: Any) -> Iterator[tuple[World, Provider]]:
    with running(*script) as provider, World(folder, {"one": provider}, **config) as made:
        yield made, provider


def error_of(problem: openai.APIStatusError) -> dict[str, Any]:
    body = problem.body
    assert isinstance(body, dict)
    return body


# passing on -----------------------------------------------------------------------------------------------------------


def test_an_answer_passes_with_its_bytes_and_the_key_stays_behind(tmp_path: Path) -> None:
    sent = json.dumps(answer(), indent=3).encode() + b"\n"
    with world(tmp_path, whole(sent), prices={"one/small": {"input": 1.0, "output": 2.0}}) as (gateway, provider):
        body = b'{ "temperature": 0.50, "model"\t: "m", "new_field": {"model": "m", "x": 1e2}, "messages": [] }'
        reply = httpx2.post(
            f"{gateway.server.url}/v1/chat/completions",
            content=body,
            headers={"Content-Type": "application/json", "Authorization": "Bearer client-key", "Cookie": "c=1"},
        )
        assert reply.status_code == 200 and reply.content == sent
        assert reply.headers["x-windlass-provider"] == "one"
        assert float(reply.headers["x-windlass-cost-usd"]) == pytest.approx((9 * 1 + 3 * 2) / 1e6)
        got = provider.requests[0]
        assert got.path == "/v1/chat/completions"
        assert got.body == body.replace(b'"model"\t: "m"', b'"model"\t: "small"')
        assert got.headers["authorization"] == f"Bearer {KEY}" and "cookie" not in got.headers
        span = gateway.span()
    assert span.trace_id == reply.headers["x-windlass-trace"]
    assert span.operation == "chat" and span.status == "ok" and span.input is None and span.output is None
    assert span.attributes["gen_ai.usage.input_tokens"] == 9 and span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["gen_ai.provider.name"] == "one"
    assert span.attributes["gen_ai.response.model"] == "small-2026-01-01"
    assert span.attributes["windlass.cost.usd"] == pytest.approx(15e-6)
    assert [a["provider"] for a in span.attributes["windlass.gateway.attempts"]] == ["one"]
    assert KEY not in json.dumps(span.attributes)


def test_the_official_client_asks_tools_and_streams_through(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    with_tool = answer(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    with world(tmp_path, whole(), good_stream(), whole(with_tool), good_stream()) as (gateway, provider):
        assert gateway.ask().choices[0].message.content == "four"
        chunks = list(gateway.ask(stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "four"
        tool: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
        called = gateway.ask(tools=[tool], tool_choice="required").choices[0].message.tool_calls
        assert called[0].function.name == "add"
        assert provider.requests[2].json["tools"] == [tool]
        chunks = list(gateway.ask(stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].usage.completion_tokens == 2 and chunks[-1].choices == []
        assert [s.attributes["gen_ai.usage.output_tokens"] for s in gateway.spans(4)] == [2, 3, 2, 3]


def test_the_asynchronous_client_and_many_at_once(tmp_path: Path) -> None:
    async def ask_all(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def one(number: int) -> str:
                asked: Any = {"model": "m", "messages": [{"role": "user", "content": str(number)}]}
                if number % 2:
                    return (await client.chat.completions.create(**asked)).choices[0].message.content or ""
                pieces = await client.chat.completions.create(**asked, stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in pieces])

            return await asyncio.gather(*(one(i) for i in range(40)))

    async def either(exchange: Any) -> None:
        await (good_stream() if exchange.request.json.get("stream") else whole())(exchange)

    with world(tmp_path, either) as (gateway, provider):
        for _ in range(2):
            assert asyncio.run(ask_all(gateway.server.url)) == ["four"] * 40
        assert len(gateway.spans(80)) == 80
        assert provider.connections <= 40, "connections are used again"


def test_a_streams_bytes_pass_unchanged_but_for_the_usage_that_only_we_asked_for(tmp_path: Path) -> None:
    odd = (
        b': keep-alive\n\ndata:{"choices":[{"index":0,"delta":{"content":"\\u00e9","later":[1.0,{"x":null}]}}]}\r\n\r\n'
    )
    end = b'event: message\ndata: {"choices": [{"index": 0, "delta": {},\ndata: "finish_reason": "stop"}]}\n\n'
    with world(tmp_path, stream(odd[:30], odd[30:], end, event(USAGE), DONE)) as (gateway, provider):
        url, ask = f"{gateway.server.url}/v1/chat/completions", {"model": "m", "messages": [], "stream": True}
        assert httpx2.post(url, json=ask).content == odd + end + DONE
        assert provider.requests[0].json["stream_options"] == {"include_usage": True}
        assert gateway.span().attributes["gen_ai.usage.output_tokens"] == 2
        with_usage = {**ask, "stream_options": {"include_usage": True}}
        assert httpx2.post(url, json=with_usage).content == odd + end + event(USAGE) + DONE


def test_unknown_prices_and_usages_stay_unknown(tmp_path: Path) -> None:
    silent = {k: v for k, v in answer().items() if k != "usage"}
    with world(tmp_path, whole(silent), whole()) as (gateway, _):
        gateway.ask()
        gateway.ask()
        priced, silent_span = gateway.spans(2)
    assert priced.attributes["windlass.cost.usd"] is None and silent_span.attributes["windlass.cost.usd"] is None
    assert "gen_ai.usage.input_tokens" not in silent_span.attributes


def test_embeddings_and_responses_pass(tmp_path: Path) -> None:
    vectors = {
        "object": "list",
        "data": [{"index": 0, "embedding": [0.5, 1.0]}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    done = {
        "type": "response.completed",
        "sequence_number": 2,
        "response": {
            "id": "r1",
            "model": "small",
            "object": "response",
            "created_at": 1,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "status": "completed",
            "usage": {
                "input_tokens": 5,
                "output_tokens": 6,
                "total_tokens": 11,
                "input_tokens_details": {"cached_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 4},
            },
        },
    }
    delta = {
        "type": "response.output_text.delta",
        "sequence_number": 1,
        "delta": "four",
        "item_id": "i",
        "output_index": 0,
        "content_index": 0,
        "logprobs": [],
    }
    with world(tmp_path, whole(vectors), stream(event(delta), event(done))) as (gateway, provider):
        got = gateway.client.embeddings.create(model="m", input="a", encoding_format="float")
        assert got.data[0].embedding == [0.5, 1.0]
        seen = list(gateway.client.responses.create(model="m", input="2+2?", stream=True))
        assert [e.type for e in seen] == ["response.output_text.delta", "response.completed"]
        assert "stream_options" not in provider.requests[1].json
        responses, embeddings = gateway.spans(2)
    assert embeddings.operation == "embeddings" and embeddings.attributes["gen_ai.usage.input_tokens"] == 4
    assert responses.attributes["gen_ai.usage.reasoning.output_tokens"] == 4
    assert responses.attributes["gen_ai.usage.cache_read.input_tokens"] == 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with the openssl command")
def test_https_is_checked_against_the_systems_certificates_or_those_given(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running(whole(), good_stream(), tls=context) as one:
        with World(tmp_path, {"one": one}, one={"ca_file": str(certificate)}) as gateway:
            assert gateway.ask().choices[0].message.content == "four"
            assert "".join(c.choices[0].delta.content or "" for c in gateway.ask(stream=True)) == "four"
        with World(tmp_path, {"one": one}) as gateway, pytest.raises(openai.InternalServerError) as caught:
            gateway.ask()
        assert "certificate" in error_of(caught.value)["message"] and len(one.requests) == 2


@pytest.mark.parametrize(
    ("kind", "sent", "received", "header"),
    [
        ("openai", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}, "authorization"),
        ("azure", {}, {}, "api-key"),
        ("ollama", {"max_completion_tokens": 5}, {"max_tokens": 5}, "authorization"),
        ("llamacpp", {"max_completion_tokens": 5}, {"max_tokens": 5}, "authorization"),
        ("mistral", {"max_completion_tokens": 5}, {"max_tokens": 5}, "authorization"),
        ("mistral", {"stream": True}, {"stream": True}, "authorization"),
        (
            "mistral",
            {"stream": True, "stream_options": {"include_usage": True}},
            {"stream": True, "stream_options": None},
            "authorization",
        ),
        ("vllm", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, "authorization"),
        (
            "vllm",
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            {"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": True}},
            "authorization",
        ),
    ],
)
def test_each_kind_of_provider_is_asked_in_its_way(
    tmp_path: Path, kind: str, sent: dict[str, Any], received: dict[str, Any], header: str
) -> None:
    act = good_stream() if sent.get("stream") else whole()
    with world(tmp_path, act, one={"kind": kind, "headers": {"X-Organization": "ours"}}) as (gateway, provider):
        url = f"{gateway.server.url}/v1/chat/completions"
        assert httpx2.post(url, json={"model": "m", "messages": [], **sent}).status_code == 200
    got = provider.requests[0]
    assert got.json == {"model": "small", "messages": [], **received}
    assert KEY in got.headers[header] and got.headers["x-organization"] == "ours"
    assert ("authorization" in got.headers) == (header == "authorization")


def test_a_pattern_passes_names_on_and_the_longest_wins(tmp_path: Path) -> None:
    with running(whole()) as one, running(whole()) as two:
        routes = {
            "m": {"targets": [{"provider": "one", "model": "small"}]},
            "gpt-*": {"targets": [{"provider": "one"}]},
            "gpt-4*": {"targets": [{"provider": "two"}]},
        }
        with World(tmp_path, {"one": one, "two": two}, routes=routes) as gateway:
            for model in ("gpt-3", "gpt-4.1", "m"):
                gateway.client.chat.completions.create(model=model, messages=[])
            assert [r.json["model"] for r in one.requests] == ["gpt-3", "small"]
            assert [r.json["model"] for r in two.requests] == ["gpt-4.1"]
            with pytest.raises(openai.NotFoundError):
                gateway.client.chat.completions.create(model="gpt-*x".removeprefix("gpt-"), messages=[])
            assert [model.id for model in gateway.client.models.list()] == ["m"]


def test_a_client_that_reads_slowly_holds_the_provider_back(tmp_path: Path) -> None:
    big = event(chunk("x" * 100_000))
    sent = 0

    async def flood(exchange: Any) -> None:
        nonlocal sent
        await stream(then="cut")(exchange)
        for _ in range(1000):
            await exchange.send(b"%x\r\n%s\r\n" % (len(big), big))
            sent += 1

    with world(tmp_path, flood) as (gateway, _):
        with gateway.ask(stream=True) as pieces:
            next(iter(pieces))
            before, until = -1, time.monotonic() + 20
            while sent != before and time.monotonic() < until:
                before = sent
                time.sleep(1.0)
        assert 0 < sent == before < 500, "of 100 MB only what buffers take has been sent"


# faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        error(500),
        error(429),
        error(503, headers={"Retry-After": "0"}),
        hang_up,
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        raw(b"SSH-2.0-OpenSSH\r\n"),
        whole(b"<html>"),
        whole([1]),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        whole({"error": {"message": "overloaded"}}),
    ],
    ids=["500", "429", "503", "hang-up", "half", "no-http", "html", "list", "bad-chunk", "error-with-200"],
)
def test_what_may_pass_is_tried_again(tmp_path: Path, fault: Act) -> None:
    with world(tmp_path, fault, whole()) as (gateway, provider):
        assert gateway.ask().choices[0].message.content == "four"
        assert len(provider.requests) == 2
        attempts = gateway.span().attributes["windlass.gateway.attempts"]
    assert attempts[0]["outcome"] != "ok" and attempts[1]["outcome"] == "ok"


@pytest.mark.parametrize(
    "fault",
    [
        stream(then="cut"),
        stream(then="end"),
        stream(ROLE, then="cut"),
        stream(ROLE, event({"error": {"message": "overloaded"}})),
        stream(b": wait\n\n", ROLE, ROLE),
        stream(ROLE, then="stall"),
        stream(event({"error": {"message": "overloaded"}})),
        stream(b"data: {half\n\n"),
        stream(b"what is this\n\n"),
        whole(),
        error(502),
    ],
    ids=[
        "cut", "empty", "role-cut", "role-error", "role-empty", "role-stall", "error-event", "no-json", "no-event",
        "no-stream", "502",
    ],
)  # fmt: skip
def test_a_stream_that_fails_before_its_first_token_goes_to_another_target(tmp_path: Path, fault: Act) -> None:
    with running(fault) as one, running(good_stream()) as two:
        route = {"targets": [{"provider": "one"}], "fallbacks": [{"provider": "two"}], "retries": 0}
        with World(tmp_path, {"one": one, "two": two}, route=route, one={"idle_s": 0.3}) as gateway:
            assert "".join(c.choices[0].delta.content or "" for c in gateway.ask(stream=True)) == "four"
            assert (len(one.requests), len(two.requests)) == (1, 1)
            assert gateway.span().attributes["gen_ai.usage.output_tokens"] == 2


def test_who_leaves_behind_the_usage_has_used_it(tmp_path: Path) -> None:
    with world(tmp_path, stream(*PIECES, event(USAGE), then="stall")) as (gateway, _):
        fields = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
        with httpx2.stream("POST", f"{gateway.server.url}/v1/chat/completions", json=fields) as answer:
            assert any('"usage"' in line for line in answer.iter_lines())  # and leaves
        span = gateway.span()
        assert span.attributes["windlass.stopped_early"] and span.attributes["gen_ai.usage.output_tokens"] == 2


def test_a_response_that_fails_before_its_first_token_is_tried_again(tmp_path: Path) -> None:
    about = {"id": "r1", "model": "small", "object": "response", "created_at": 1, "output": [], "tools": []}
    begin = event({"type": "response.created", "sequence_number": 0, "response": {**about, "status": "in_progress"}})
    failed = {**about, "status": "failed", "error": {"code": "server_error", "message": "overloaded"}}
    faults = (
        stream(begin, event({"type": "response.failed", "sequence_number": 1, "response": failed})),
        stream(begin, event({"type": "error", "sequence_number": 1, "message": "overloaded", "code": "x"})),
        stream(begin, then="cut"),
    )
    done = {"type": "response.completed", "sequence_number": 1, "response": {**about, "status": "completed"}}
    with world(tmp_path, *faults, stream(begin, event(done)), route={"retries": 3}) as (gateway, provider):
        url, ask = f"{gateway.server.url}/v1/responses", {"model": "m", "input": "2+2?", "stream": True}
        assert httpx2.post(url, json=ask).content == begin + event(done)
        assert len(provider.requests) == 4
        messages = [a["outcome"] for a in gateway.span().attributes["windlass.gateway.attempts"]]
        assert messages == ["answer", "answer", "answer", "ok"]


def test_what_only_announces_a_token_is_passed_on_with_it(tmp_path: Path) -> None:
    tool = event(chunk(choices=[{"index": 0, "delta": {"role": "assistant", "tool_calls": [{"index": 0}]}}]))
    for first in (PIECES[0], tool, event(chunk(finish="stop")), DONE):
        sent = [b": wait\n\n", ROLE, first, *PIECES, DONE]
        with world(tmp_path, stream(*sent), one={"kind": "mistral"}) as (gateway, _):
            url, ask = f"{gateway.server.url}/v1/chat/completions", {"model": "m", "messages": [], "stream": True}
            assert httpx2.post(url, json=ask).content == b"".join(sent)


def test_a_route_has_timeouts_of_its_own(tmp_path: Path) -> None:
    async def late(exchange: Any) -> None:
        await asyncio.sleep(0.5)
        await whole()(exchange)

    patient = {"targets": [{"provider": "one"}], "retries": 0}
    routes = {
        "m": {**patient, "first_byte_s": 0.2},
        "slow": {**patient, "first_byte_s": 20},
        "short": {**patient, "request_s": 0.2},
    }
    with world(tmp_path, late, one={"first_byte_s": 10}, routes=routes) as (gateway, provider):
        for model, said in (("m", "within 0.2 s"), ("short", "")):
            with pytest.raises(openai.APIStatusError) as caught:
                gateway.client.chat.completions.create(model=model, messages=[])
            assert caught.value.status_code == 504 and said in error_of(caught.value)["message"]
        assert gateway.client.chat.completions.create(model="slow", messages=[]).model == "small-2026-01-01"
        assert len(provider.requests) == 3


@pytest.mark.parametrize(
    "fault",
    [
        stream(*PIECES[:1], then="cut"),
        stream(*PIECES[:2]),
        stream(PIECES[0], event({"error": {"message": "died"}})),
        stream(PIECES[0], b"data: {half\n\n"),
        stream(PIECES[0] + b"data: nonsense\n\n"),
        stream(PIECES[0], then="stall"),
    ],
    ids=["cut", "half", "error-event", "no-json", "in-one-piece", "stall"],
)
def test_half_a_stream_is_never_taken_for_a_whole_one(tmp_path: Path, fault: Act) -> None:
    got = []
    with world(tmp_path, fault, one={"idle_s": 0.3}) as (gateway, provider):
        with pytest.raises(openai.APIError, match="Provider 'one'"):
            for piece in gateway.ask(stream=True):
                got.append(piece.choices[0].delta.content)  # noqa: PERF401
        assert got[0] == "fo", "what arrived before is passed on"
        assert len(provider.requests) == 1, "it is not asked again once the client has part of an answer"
        span = gateway.span()
    assert span.status == "error" and "windlass.cost.usd" not in span.attributes


def test_a_silent_target_is_not_asked_twice_but_another_is(tmp_path: Path) -> None:
    with running(stall) as one, running(whole()) as two:
        route = {"targets": [{"provider": "one"}], "fallbacks": [{"provider": "two"}], "retries": 3}
        with World(tmp_path, {"one": one, "two": two}, route=route, one={"first_byte_s": 0.2}) as gateway:
            assert gateway.ask().choices[0].message.content == "four"
            assert (len(one.requests), len(two.requests)) == (1, 1)
            assert one.gone.wait(30), "the connection to the silent one is closed"
            assert one.requests[0].json["model"] == "m"
    with world(tmp_path, stall, one={"first_byte_s": 0.2}, route={"retries": 3}) as (gateway, provider):
        with pytest.raises(openai.APIStatusError) as caught:
            gateway.ask()
        assert caught.value.status_code == 504 and "within 0.2 s" in error_of(caught.value)["message"]
        assert len(provider.requests) == 1, "asking a third time would pay a third time"


def test_the_last_failure_is_told_with_the_number_of_attempts(tmp_path: Path) -> None:
    with world(tmp_path, error(500, f"bad key {KEY[:3]} in memory"), route={"retries": 2}) as (gateway, provider):
        with pytest.raises(openai.InternalServerError) as caught:
            gateway.ask()
        assert caught.value.status_code == 502 and len(provider.requests) == 3
        message = error_of(caught.value)["message"]
        assert "After 3 attempts: Provider 'one' answered status 500" in message


def test_a_wish_to_wait_is_honoured_or_told(tmp_path: Path) -> None:
    with world(tmp_path, error(429, headers={"Retry-After": "1"}), whole()) as (gateway, _):
        started = time.monotonic()
        gateway.ask()
        assert time.monotonic() - started >= 1.0
    long = {"longest_wait_s": 2.0}
    with world(tmp_path, error(429, "slow down", headers={"Retry-After": "30"}), whole(), route=long) as (
        gateway,
        provider,
    ):
        with pytest.raises(openai.RateLimitError) as caught:
            gateway.ask()
        assert 28 <= int(caught.value.response.headers["Retry-After"]) <= 30
        assert "slow down" in error_of(caught.value)["message"]
        with pytest.raises(openai.InternalServerError) as caught2:
            gateway.ask()
        assert caught2.value.status_code == 503 and len(provider.requests) == 1, "it asked to be left alone"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_clients_own_mistakes_come_back_unchanged_and_at_once(tmp_path: Path, status: int) -> None:
    with world(tmp_path, error(status, "no such parameter"), whole()) as (gateway, provider):
        with pytest.raises(openai.APIStatusError) as caught:
            gateway.ask()
        assert caught.value.status_code == status and error_of(caught.value)["message"] == "no such parameter"
        assert len(provider.requests) == 1
        assert gateway.span().status == "error"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"object": "error", "message": "old vLLM"}, "old vLLM"),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "x"]}]}, "extra_forbidden"),
        ({"error": "as Ollama"}, "as Ollama"),
        ([{"error": {"code": 400, "message": "as Gemini", "status": "INVALID_ARGUMENT"}}], "as Gemini"),
        (b"plain text", "plain text"),
        (b"", "no message"),
        (b"\xff\xfe", "status 400"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_errors_of_every_shape_arrive_in_openais(tmp_path: Path, body: Any, said: str) -> None:
    with world(tmp_path, whole(body, status=400)) as (gateway, _):
        with pytest.raises(openai.BadRequestError) as caught:
            gateway.ask()
        assert said in error_of(caught.value)["message"]


def test_a_refused_key_is_the_gateways_trouble(tmp_path: Path) -> None:
    with world(tmp_path, error(401, f"Incorrect API key provided: {KEY}")) as (gateway, provider):
        with pytest.raises(openai.InternalServerError) as caught:
            gateway.ask()
        assert caught.value.status_code == 502 and KEY not in str(error_of(caught.value))
        assert len(provider.requests) == 1
        assert KEY not in str(gateway.span())


def test_a_target_that_keeps_failing_rests_and_then_one_request_tries(tmp_path: Path) -> None:
    breaker = {"failures": 2, "rest_s": 0.6}
    with world(tmp_path, error(500), error(500), whole(), breaker=breaker) as (gateway, provider):
        with pytest.raises(openai.InternalServerError):
            gateway.ask()
        with pytest.raises(openai.InternalServerError) as caught:
            gateway.ask()
        assert caught.value.status_code == 503 and int(caught.value.response.headers["Retry-After"]) >= 1
        assert len(provider.requests) == 2, "it was not asked while it rests"
        time.sleep(0.7)
        assert gateway.ask().choices[0].message.content == "four"


def test_a_target_whose_streams_keep_breaking_rests_too(tmp_path: Path) -> None:
    with world(tmp_path, stream(PIECES[0], then="cut"), breaker={"failures": 2}, route={"retries": 0}) as (
        gateway,
        one,
    ):
        for _ in range(2):
            with pytest.raises(openai.APIError, match="broke off"):
                list(gateway.ask(stream=True))
        with pytest.raises(openai.InternalServerError, match="No target of 'm' can be asked now"):
            list(gateway.ask(stream=True))
        assert len(one.requests) == 2


def test_a_request_has_a_size_and_a_time(tmp_path: Path) -> None:
    with world(tmp_path, stall, request_bytes=1000, request_s=0.4) as (gateway, provider):
        with pytest.raises(openai.APIStatusError) as caught:
            gateway.ask(user="x" * 1000)
        assert caught.value.status_code == 413 and provider.requests == []
        with pytest.raises(openai.InternalServerError) as late:
            gateway.ask()
        assert late.value.status_code == 504 and provider.gone.wait(30)


def test_a_client_that_leaves_ends_the_providers_work(tmp_path: Path) -> None:
    with world(tmp_path, stream(PIECES[0], then="stall")) as (gateway, provider):
        pieces = gateway.ask(stream=True)
        next(iter(pieces))
        pieces.close()
        assert provider.gone.wait(30)
        provider.gone.clear()
        provider.script[:] = [stall]
        with pytest.raises(openai.APITimeoutError):
            gateway.ask(timeout=0.3)
        assert provider.gone.wait(30)
        spans = gateway.spans(2)
        assert [s.attributes["windlass.stopped_early"] for s in spans] == [True, True]
        assert all("windlass.cost.usd" not in s.attributes for s in spans)
        metrics = httpx2.get(f"{gateway.server.url}/metrics").text
        assert "windlass_requests_cancelled_total 2" in metrics


def test_a_connection_that_the_provider_closed_meanwhile_is_replaced(tmp_path: Path) -> None:
    async def answer_and_leave(exchange: Any) -> None:
        await whole()(exchange)
        exchange.keep = False

    with world(tmp_path, answer_and_leave, whole(), route={"retries": 0}) as (gateway, provider):
        for _ in range(3):
            assert gateway.ask().choices[0].message.content == "four"
        assert provider.connections == 2


@pytest.mark.parametrize("header", [b"x-request-id: req_7", b"x-request-id: \x01\x7f", b"x-request-id: " + b"x" * 5000])
def test_a_providers_headers_cannot_break_ours(tmp_path: Path, header: bytes) -> None:
    body = json.dumps(answer()).encode()
    sent = b"HTTP/1.1 200 OK\r\nContent-Type: text/\x02\r\n%s\r\nContent-Length: %d\r\n\r\n%s" % (
        header,
        len(body),
        body,
    )
    with world(tmp_path, raw(sent)) as (gateway, _):
        raw_answer = gateway.client.chat.completions.with_raw_response.create(model="m", messages=[])
        assert raw_answer.parse().choices[0].message.content == "four"
        known = raw_answer.headers.get("x-windlass-provider-request")
        assert known == ("req_7" if b"req_7" in header else None)


# what is refused before any provider is asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"", None),
        (b'{"model": "m", "model": "m"}', "model"),
        (b'{"messages": []}', "model"),
        (b'{"model": 3}', "model"),
        (b'{"model": "m"} {}', None),
        (b'{"model": "\xff"}', None),
        (b'{"model": "m", "x": NaN}', None),
        (b'{"model": "m", "stream": "yes"}', "stream"),
        (b'{"model": "m", "stream": 1}', "stream"),
        (b'{"model": "m", "x":' + b"[" * 100_000, None),
        (b'{"model": "m",}', None),
        (b'{"model": "m" "x": 1}', None),
        (b"{model: 1}", None),
        (b'{"x": 1' + b"1" * 5000 + b"}", None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_broken_requests_get_one_clear_error(tmp_path: Path, body: bytes, param: str | None) -> None:
    with world(tmp_path, whole()) as (gateway, provider):
        reply = httpx2.post(
            f"{gateway.server.url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        assert reply.status_code == 400 and reply.json()["error"]["param"] == param, reply.text
        assert provider.requests == []


def test_unknown_models_paths_and_types_are_named(tmp_path: Path) -> None:
    with world(tmp_path, whole()) as (gateway, _):
        with pytest.raises(openai.NotFoundError) as caught:
            gateway.client.chat.completions.create(model="gpt-9", messages=[])
        assert error_of(caught.value)["code"] == "model_not_found" and "Models: m." in error_of(caught.value)["message"]
        assert [model.id for model in gateway.client.models.list()] == ["m"]
        assert gateway.client.models.retrieve("m").id == "m"
        assert httpx2.post(f"{gateway.server.url}/v1/audio/speech", json={}).json()["error"]["code"] == "unknown_path"
        assert (
            httpx2.post(f"{gateway.server.url}/v1/embeddings", json={"model": "m", "stream": True}).status_code == 400
        )
        assert httpx2.post(f"{gateway.server.url}/v1/embeddings", content=b"{}").status_code == 415


# cache ----------------------------------------------------------------------------------------------------------------


def test_the_same_question_gets_the_same_answer_while_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: now[0]))
    script = whole(), whole(answer("other")), good_stream(), whole(answer("later"))
    with world(tmp_path, *script, route={"cache_s": 1.5}) as (gateway, provider):
        first = gateway.ask()
        again = gateway.client.chat.completions.with_raw_response.create(
            messages=[{"role": "user", "content": "2+2?"}], model="m"
        )
        assert again.headers["x-windlass-cache"] == "hit" and again.parse() == first
        assert gateway.ask(temperature=0).choices[0].message.content == "other"
        for _ in range(2):
            assert "".join(c.choices[0].delta.content or "" for c in gateway.ask(stream=True)) == "four"
        assert len(provider.requests) == 3
        assert [s.attributes["windlass.gateway.cached"] for s in gateway.spans(5)] == [True, False, False, True, False]
        now[0] += 1.6
        assert gateway.ask().choices[0].message.content == "later"


def test_failures_are_not_kept(tmp_path: Path) -> None:
    script = error(400), stream(PIECES[0], then="cut"), whole()
    with world(tmp_path, *script, route={"cache_s": 60}) as (gateway, provider):
        with pytest.raises(openai.BadRequestError):
            gateway.ask()
        with pytest.raises(openai.APIError):
            list(gateway.ask(stream=True))
        assert gateway.ask().choices[0].message.content == "four"
        assert len(provider.requests) == 3


def test_content_is_recorded_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    with world(tmp_path, whole(), good_stream(), traces={"content": True}) as (gateway, _):
        gateway.ask()
        list(gateway.ask(stream=True))
        streamed, plain = gateway.spans(2)
    assert (
        plain.input["messages"][0]["content"] == "2+2?" and plain.output["choices"][0]["message"]["content"] == "four"
    )
    assert streamed.output == "four" and chunk("x")["choices"][0]["delta"] == {"content": "x"}

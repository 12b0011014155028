from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from tests.apply.provider_world import KEY, Loopback, ask, events, piece, reply

from windlass.apply.providers import known
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.embeddings import OpenAIEmbedder
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire import http as http_module
from windlass.apply.providers.wire.clock import Clock
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.config import Config, ModelConfig
from windlass.core.errors import ConfigError, ProviderError, Unsupported
from windlass.core.pricing import Price, prices_at
from windlass.core.values import ChatRequest, ImagePart, Message, TextPart, TokenLogprob, ToolCall, ToolSpec, Usage


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def endpoint(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("WINDLASS_TEST_KEY", KEY)
    made = Endpoint(server.url, ApiKey("WINDLASS_TEST_KEY"))
    yield made
    made.close()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(http_module.time, "sleep", waits.append)
    return waits


def test_a_completion(server: Loopback, endpoint: Endpoint) -> None:
    server.answer(reply())
    response = RemoteChat(
        endpoint, ChatCompletions("m"), price_of=lambda model, usage: 0.5 if model == "m-2026" else None
    ).complete(ask())
    assert response.message.text == "Hello!" and response.model == "m-2026" and response.finish_reason == "stop"
    assert response.usage == Usage(input=12, cache_read=8, output=5, reasoning=4)
    assert response.usage.prompt == 20 and response.usage.completion == 9
    assert response.cost_usd == 0.5
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
    assert body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_unknown_usage_and_price_stay_unknown(server: Loopback, endpoint: Endpoint) -> None:
    value = json.loads(reply()[2])
    del value["usage"]
    server.answer((200, {}, json.dumps(value).encode()))
    response = RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    assert response.usage == Usage() and response.usage.total is None and response.cost_usd is None


def test_a_stream(server: Loopback, endpoint: Endpoint) -> None:
    usage = {"id": "c-1", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    server.answer(events(piece("", role="assistant"), piece("Gr"), piece("üße 🎈"), piece(finish="length"), usage))
    deltas = list(RemoteChat(endpoint, ChatCompletions("m")).stream(ask()))
    assert [d.text for d in deltas[:-1]] == ["Gr", "üße 🎈"]
    response = deltas[-1].response
    assert response is not None and response.message.text == "Grüße 🎈"
    assert response.finish_reason == "length" and response.usage == Usage(input=3, output=2) and response.id == "c-1"


def test_streamed_tool_calls_are_put_together(server: Loopback, endpoint: Endpoint) -> None:
    def call(**function: str) -> dict[str, Any]:
        return {"index": 0, "function": function}

    parts = [
        piece(tool_calls=[{**call(name="add", arguments=""), "id": "t1", "type": "function"}]),
        piece(tool_calls=[call(arguments='{"a": ')]),
        piece(tool_calls=[call(arguments="1}")]),
        piece(finish="tool_calls"),
    ]
    server.answer(events(*parts))
    response = list(RemoteChat(endpoint, ChatCompletions("m")).stream(ask()))[-1].response
    assert response is not None and response.message.tool_calls == (ToolCall("t1", "add", '{"a": 1}'),)


def test_logprobs_and_reasoning_come_back(server: Loopback, endpoint: Endpoint) -> None:
    found = {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [{"token": "a", "logprob": -1.0}]}
    value = json.loads(reply(reasoning_content="Hm.")[2])
    value["choices"][0]["logprobs"] = {"content": [found]}
    chunk = piece("é", reasoning_content="Hm.")
    chunk["choices"][0]["logprobs"] = {"content": [found]}
    server.answer((200, {}, json.dumps(value).encode()), events(chunk, piece(finish="stop")))
    chat = RemoteChat(endpoint, ChatCompletions("m"))
    whole = chat.complete(ask(logprobs=1))
    *_, last = chat.stream(ask(logprobs=1))
    expected = TokenLogprob("é", -0.5, bytes="é".encode(), top=(TokenLogprob("a", -1.0),))
    for response in (whole, last.response):
        assert response is not None and response.logprobs == (expected,) and response.message.reasoning == "Hm."


def test_shapes_of_what_is_asked_beyond_text() -> None:
    chat = ChatCompletions("m")
    body = chat.body(ask(tools=[ToolSpec("add")], tool_choice="add", schema={"type": "integer"}, logprobs=0))
    assert body["tools"] == [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "integer"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 0)
    assert chat.body(ask(tools=[ToolSpec("add")], tool_choice="none"))["tool_choice"] == "none"


REQUESTS = [
    ask(),
    ask(temperature=0.0, top_p=0.9, max_tokens=50, seed=7, stop=["\n", "END"]),
    ask(schema={"type": "object"}, extra={"frequency_penalty": 0.5, "user": "u"}),
    ask(schema={"type": "object", "properties": {"a": {"type": "integer"}}}, logprobs=3),
    ask(tools=[ToolSpec("add", "Adds.", {"type": "object"}, strict=True)], tool_choice="add"),
    ask(tools=[ToolSpec("add")], tool_choice="required"),
    ChatRequest([Message("system", "Be brief."), Message("developer", "d"), Message("user", "Ünïcode 🎈", name="ann")]),
    ChatRequest([Message("user", [TextPart("What is this?"), ImagePart(url="https://a.example/b.png")])]),
    ChatRequest([Message("user", [ImagePart(data=b"\x89PNG", media_type="image/png")])]),
    ChatRequest(
        [
            Message("user", "1+1?"),
            Message("assistant", "", [ToolCall("t1", "add", '{"a": 1}')]),
            Message("tool", "2", tool_call_id="t1"),
        ]
    ),
]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("streamed", [False, True])
def test_our_requests_are_the_official_sdks(
    server: Loopback, endpoint: Endpoint, request_: ChatRequest, streamed: bool
) -> None:
    server.answer(events(piece("x"), piece(finish="stop")) if streamed else reply())
    chat = RemoteChat(endpoint, ChatCompletions("m"))
    if streamed:
        list(chat.stream(request_))
    else:
        chat.complete(request_)
    known = {"temperature": request_.temperature, "top_p": request_.top_p, "max_tokens": request_.max_tokens}
    known |= {"seed": request_.seed, "stop": list(request_.stop) or None}
    arguments = {key: value for key, value in known.items() if value is not None} | dict(request_.extra)
    body: dict[str, Any] = ChatCompletions("m").body(request_)
    messages: list[Any] = body["messages"]
    shaped = ("tools", "tool_choice", "response_format", "logprobs", "top_logprobs")
    arguments |= {name: body[name] for name in shaped if name in body}
    with openai.OpenAI(base_url=server.url, api_key=KEY) as client:
        if streamed:
            options: Any = {"stream": True, "stream_options": {"include_usage": True}}
            list(client.chat.completions.create(model="m", messages=messages, **options, **arguments))
        else:
            client.chat.completions.create(model="m", messages=messages, **arguments)
    ours, theirs = server.requests
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    assert ours[1]["authorization"] == theirs[1]["authorization"]
    assert ours[1]["content-type"] == theirs[1]["content-type"]


def test_openai_itself_gets_the_new_name_of_the_limit() -> None:
    chat = known.at("https://api.openai.com/v1", "m")
    body = chat.dialect.call(ask(max_tokens=5), stream=False).body
    assert body is not None and body["max_completion_tokens"] == 5


def test_an_unknown_parameter_is_refused_before_anything_is_sent(server: Loopback, endpoint: Endpoint) -> None:
    with pytest.raises(Unsupported, match="no parameter 'top_k'"):
        RemoteChat(endpoint, ChatCompletions("m")).complete(ask(extra={"top_k": 5}))
    assert server.requests == []


def test_the_servers_wish_to_wait_is_honoured(server: Loopback, endpoint: Endpoint, slept: list[float]) -> None:
    busy = b'{"error": {"message": "slow down"}}'
    server.answer((429, {"retry-after": "3"}, busy), (503, {"retry-after-ms": "250"}, busy), reply())
    assert RemoteChat(endpoint, ChatCompletions("m")).complete(ask()).message.text == "Hello!"
    assert slept == [3.0, 0.25] and len(server.requests) == 3
    server.answer((500, {}, b""), (502, {}, b""), reply())
    slept.clear()
    RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    assert 0.375 <= slept[0] <= 0.625 and 0.75 <= slept[1] <= 1.25
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    server.answer((429, {"retry-after": later}, busy), reply())
    slept.clear()
    RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    assert 17 < slept[0] <= 20


@pytest.mark.parametrize(
    ("status", "body", "tries", "hint"),
    [
        (400, b'{"error": {"message": "temperature must be 1"}}', 1, "says which"),
        (401, b'{"error": {"message": "Incorrect API key: sk-very-secret-key"}}', 1, "WINDLASS_TEST_KEY"),
        (404, b"<html>nothing here</html>", 1, "base_url"),
        (429, b'{"error": "quota"}', 3, "raise the limit"),
        (500, b"", 3, "try again later"),
    ],
)
def test_errors_have_status_and_hint_and_never_the_key(
    server: Loopback, endpoint: Endpoint, slept: list[float], status: int, body: bytes, tries: int, hint: str
) -> None:
    server.answer((status, {}, body))
    with pytest.raises(ProviderError) as caught:
        RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    assert caught.value.status == status and hint in caught.value.hint and len(server.requests) == tries
    assert KEY not in str(caught.value)


def test_a_missing_key_is_named(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WINDLASS_TEST_KEY", raising=False)
    server.answer((401, {}, b'{"error": {"message": "no key"}}'))
    endpoint = Endpoint(server.url, ApiKey("WINDLASS_TEST_KEY"))
    with pytest.raises(ProviderError) as caught:
        RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    assert caught.value.hint == "Set the environment variable WINDLASS_TEST_KEY to your key."
    assert "authorization" not in server.requests[0][1]
    endpoint.close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"content-type": "text/html"}, b"<html>Welcome</html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": null}]}'),
        (200, {}, b"[1]"),
        (200, {}, b'{"error": {"message": "model is loading"}}'),
        (200, {"content-length": "1000"}, b'{"choices"'),
    ],
)
def test_a_useless_answer_is_an_error(server: Loopback, endpoint: Endpoint, answer: Any) -> None:
    server.answer(answer)
    with pytest.raises(ProviderError):
        RemoteChat(endpoint, ChatCompletions("m")).complete(ask())


@pytest.mark.parametrize(
    "answer",
    [
        events(piece("half of"), done=False),
        events(piece("half of")),
        (200, {"content-type": "text/event-stream"}, b"data: {broken\n\n"),
        (200, {"content-type": "text/html"}, b"<html>"),
        events({"error": {"message": "out of memory"}}),
    ],
)
def test_a_stream_that_breaks_off_is_an_error(server: Loopback, endpoint: Endpoint, answer: Any) -> None:
    server.answer(answer)
    with pytest.raises(ProviderError):
        list(RemoteChat(endpoint, ChatCompletions("m")).stream(ask()))


def test_a_server_that_never_answers(server: Loopback) -> None:
    server.answer((0, {}, b""))
    endpoint = Endpoint(server.url, timeouts=Timeouts(read=0.5))
    with pytest.raises(ProviderError, match="did not answer in time"):
        RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    endpoint.close()
    assert len(server.requests) == 1, "it may have been working on the first one"


def test_nobody_there(slept: list[float]) -> None:
    with pytest.raises(ProviderError, match="cannot be reached"):
        RemoteChat(Endpoint("http://127.0.0.1:9/v1"), ChatCompletions("m")).complete(ask())
    assert len(slept) == 2


def test_the_key_is_never_logged(server: Loopback, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer(reply())
    RemoteChat(endpoint, ChatCompletions("m")).complete(ask())
    assert KEY not in caplog.text and KEY not in repr(endpoint)


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://a/b", "http://", "http://[::1"])
def test_a_wrong_base_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        Endpoint(url)


def test_from_config_names_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="no model"):
        known.from_config(Config(ModelConfig(base_url="http://127.0.0.1:1/v1")))
    assert known.from_config(Config(ModelConfig("http://127.0.0.1:1/v1", "m"))).name == "m"


def test_a_price_belongs_to_the_seller_not_to_the_name(server: Loopback) -> None:
    usage = Usage(input=1_000_000, output=0)
    assert prices_at("api.openai.com")("gpt-4o", usage) == 2.5
    assert prices_at("127.0.0.1")("gpt-4o", usage) is None
    mine = Config(ModelConfig(server.url, "m"), prices={"m-2026": Price(input=1e6, output=1e6, cache_read=0.0)})
    server.answer(reply())
    assert known.from_config(mine).complete(ask()).cost_usd == 12 + 5 + 4


def embeddings(count: int, *, plain: bool = False) -> tuple[int, dict[str, str], bytes]:
    rows = np.arange(1, count * 4 + 1, dtype="<f4").reshape(count, 4)
    data = [
        {"object": "embedding", "index": i, "embedding": row.tolist() if plain else base64.b64encode(row).decode()}
        for i, row in enumerate(rows)
    ]
    value = {"object": "list", "model": "e", "data": data[::-1], "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    return 200, {}, json.dumps(value).encode()


@pytest.mark.parametrize("plain", [False, True])
def test_embeddings_equal_the_official_sdks(server: Loopback, endpoint: Endpoint, plain: bool) -> None:
    server.answer(embeddings(3, plain=plain))
    made = OpenAIEmbedder(endpoint, "e", dimension=4).embed(["a", "b", "c"])
    assert made.tokens == 5 and np.allclose(np.linalg.norm(made.vectors, axis=1), 1)
    with openai.OpenAI(base_url=server.url, api_key=KEY) as client:
        theirs = client.embeddings.create(input=["a", "b", "c"], model="e", dimensions=4)
    assert server.bodies()[0] == server.bodies()[1]
    rows = np.array([item.embedding for item in sorted(theirs.data, key=lambda d: d.index)])
    assert np.allclose(made.vectors, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)


def test_an_embedder_learns_its_dimension_and_notices_a_wrong_one(server: Loopback, endpoint: Endpoint) -> None:
    server.answer(embeddings(1))
    embedder = OpenAIEmbedder(endpoint, "e")
    assert embedder.dimension == 4 and len(embedder.digest) == 64 and len(server.requests) == 1
    server.answer(embeddings(2))
    with pytest.raises(ProviderError, match="not \\(3, 4\\)"):
        embedder.embed(["a", "b", "c"])


def test_a_transport_can_be_given() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=reply("from the test")[2])

    endpoint = Endpoint("http://model.example/v1", transport=httpx2.MockTransport(handle))
    assert RemoteChat(endpoint, ChatCompletions("m")).complete(ask()).message.text == "from the test"


@pytest.mark.parametrize(
    "call",
    [
        Call("/chat/completions", {"text": "\u00e4"}, {"x-team": "b"}),
        Call("/models", None),
        Call("/audio", None, {"content-type": "audio/wav"}, b"RIFF"),
    ],
)
def test_requests_are_those_that_the_http_client_would_make(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint = Endpoint("http://model.example:81/v1", headers={"X-Team": "a", "User-Agent": "mine"})
    with httpx2.Client(**endpoint._options) as client:
        for _ in range(2):
            ours = endpoint._request(call, Clock(None))
            own = {**call.headers, "Authorization": f"Bearer {KEY}"}
            if call.body is not None:
                own["Content-Type"] = "application/json"
            url = f"http://model.example:81/v1{call.path}"
            theirs = client.build_request(ours.method, url, content=ours.read() or None, headers=own)
            assert (ours.method, ours.url, ours.read()) == (theirs.method, theirs.url, theirs.read())
            assert sorted(ours.headers.multi_items()) == sorted(theirs.headers.multi_items())

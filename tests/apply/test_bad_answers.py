"""What providers do wrong, in every dialect and every way to ask: a clear error, and the trace holds it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.apply.every_provider import KEYS, PIECES, SPOKEN, TEXT, Spoken, lines, streamed, told
from tests.apply.provider_world import ask

from windlass.apply.providers import known
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import ConfigError, ProviderError, TimedOut
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, ChatResponse

Ask = Callable[[RemoteChat, ChatRequest], ChatResponse]
Handler = Callable[[httpx2.Request], httpx2.Response]
bounded = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stream(chat: RemoteChat, request: ChatRequest) -> ChatResponse:
    *deltas, last = chat.stream(request)
    assert last.response is not None and all(isinstance(delta.text, str) for delta in deltas)
    return last.response


async def astream(chat: RemoteChat, request: ChatRequest) -> ChatResponse:
    *_, last = [delta async for delta in chat.astream(request)]
    assert last.response is not None
    return last.response


WAYS: dict[str, Ask] = {
    "complete": lambda chat, request: chat.complete(request),
    "stream": stream,
    "acomplete": lambda chat, request: asyncio.run(chat.acomplete(request)),
    "astream": lambda chat, request: asyncio.run(astream(chat, request)),
}


@pytest.fixture(params=list(SPOKEN))
def spoken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Spoken:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return SPOKEN[request.param]


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Ask:
    return WAYS[request.param]


def failure(spoken: Spoken, way: Ask, handle: Handler, **parameters: Any) -> ProviderError:
    """What is raised; the span around the call holds it, and nobody shows a key."""
    with pytest.raises(ProviderError) as caught, Recorder(None).span("call") as span:
        way(spoken.chat(httpx2.MockTransport(handle)), ask(**parameters))
    assert span.status == "error" and caught.value.message.partition("\n")[0] in str(span.error)
    assert not any(value in str(caught.value) for name, value in KEYS.items() if name != "AWS_ACCESS_KEY_ID")
    return caught.value


def test_a_page_with_a_good_status(spoken: Spoken, way: Ask) -> None:
    error = failure(spoken, way, lambda request: httpx2.Response(200, html="<html><h1>Welcome to nginx!</h1></html>"))
    assert error.status == 200 and ("not with JSON" in error.message or "not a stream of events" in error.message)
    assert "base_url" in error.hint


@pytest.mark.parametrize("body", [b"", b'{"id": ', b"[]", b"null", b"{}", b"[" * 100_000, b'{"a": 1}', b"\xff\xfe"])
def test_json_that_is_none_or_says_nothing(spoken: Spoken, body: bytes) -> None:
    for name in ("complete", "acomplete"):
        error = failure(spoken, WAYS[name], lambda request: httpx2.Response(200, content=body))
        assert error.message.startswith("http://model.example/v1")


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(below, (*path, key))


def broken(data: st.DataObject, value: Any) -> Any:
    """The value with something else at one place of it."""
    *path, last = data.draw(st.sampled_from([path for path in nodes(value) if path]))
    made = parent = deepcopy(value)
    for key in path:
        parent = parent[key]
    parent[last] = data.draw(st.sampled_from([None, [], {}, "", "x", 7, -1, [None], {"type": "x"}, True]))
    return made


def usable(ask_it: Callable[[], ChatResponse]) -> None:
    """An answer of the right types, or the one error."""
    with suppress(ProviderError):
        response = ask_it()
        assert isinstance(response.message.text, str) and isinstance(response.model, str)
        assert all(
            isinstance(call.arguments, str) and isinstance(call.name, str) for call in response.message.tool_calls
        )
        assert response.usage.total is None or response.usage.total >= 0


@bounded
@given(st.data())
def test_answers_of_a_wrong_shape(spoken: Spoken, data: st.DataObject) -> None:
    value = broken(data, spoken.answer)
    usable(lambda: spoken.chat(httpx2.MockTransport(lambda request: httpx2.Response(200, json=value))).complete(ask()))


@bounded
@given(st.data())
def test_events_of_a_wrong_shape(spoken: Spoken, data: st.DataObject) -> None:
    kind, content = spoken.stream
    events = [json.loads(text) for text in spoken.dialect("m").frames().feed(content)]
    at = data.draw(st.integers(0, len(events) - 1))
    events[at] = broken(data, events[at])
    kind, content = (told if "amazon" in kind else lines)(*events)
    answer = httpx2.Response(200, content=content, headers={"content-type": kind})
    chat = spoken.chat(httpx2.MockTransport(lambda request: answer))
    usable(lambda: stream(chat, ask()))


def test_a_stream_that_is_cut_anywhere(spoken: Spoken) -> None:
    kind, content = spoken.stream
    said = content.rindex(PIECES[-1].encode())
    for at in {*range(0, len(content), 7), said}:
        answer = httpx2.Response(200, content=content[:at], headers={"content-type": kind})
        chat = spoken.chat(httpx2.MockTransport(lambda request, answer=answer: answer))
        try:
            response = stream(chat, ask())
        except ProviderError as error:
            assert error.message
        else:  # only what follows the end of the answer was lost
            assert at > said and response.message.text == TEXT


def test_what_is_refused_says_so(spoken: Spoken) -> None:
    chat = spoken.chat(httpx2.MockTransport(lambda request: httpx2.Response(200, json=spoken.refusal)))
    response = chat.complete(ask())
    assert response.refused and response.message.text in ("", "No.") and not response.message.tool_calls


def test_a_storm_of_429(spoken: Spoken, way: Ask) -> None:
    asked: list[httpx2.Request] = []

    def storm(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(429, json={"error": {"message": "slow down"}}, headers={"retry-after": "0"})

    error = failure(spoken, way, storm)
    assert error.status == 429 and "slow down" in error.message and len(asked) == 3


def test_a_storm_that_ends(spoken: Spoken, way: Ask) -> None:
    waits = [503, 429]

    def storm(request: httpx2.Request) -> httpx2.Response:
        if waits:
            return httpx2.Response(waits.pop(), headers={"retry-after": "0"})
        kind, content = ("application/json", json.dumps(spoken.answer).encode())
        if streamed(request):
            kind, content = spoken.stream
        return httpx2.Response(200, content=content, headers={"content-type": kind})

    with Recorder(None).span("call") as span:
        assert way(spoken.chat(httpx2.MockTransport(storm)), ask()).message.text == TEXT
    assert span.attributes["windlass.retries"] == 2 and "status 429" in span.attributes["windlass.retry.1"]


def test_a_provider_that_never_answers(spoken: Spoken) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # nobody accepts, and nobody refuses
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(ProviderError, match="did not answer in time"):
            spoken.chat(None, url).complete(ask())
        for name in ("stream", "astream"):
            with pytest.raises(TimedOut, match=r"after 0\.05 seconds"):
                WAYS[name](spoken.chat(None, url), ask(timeout=0.05))


# by name --------------------------------------------------------------------------------------------------------------

REMOTE = [name for name, provider in known.PROVIDERS.items() if not provider.base_url.startswith("http://127.")]


@pytest.mark.parametrize("name", REMOTE)
def test_a_missing_key_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"AZURE_OPENAI_ENDPOINT": "https://a.example", "AWS_REGION": "us-east-1", "AWS_SECRET_ACCESS_KEY": "sh!"}
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    variable = known.PROVIDERS[name].variable or "AWS_ACCESS_KEY_ID"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=f"{variable} is not set") as caught:
        known.model(f"{name}:m")
    assert "sh!" not in str(caught.value)
    monkeypatch.setenv(variable, "very-secret")
    chat = known.model(f"{name}:m")
    assert "very-secret" not in f"{chat.endpoint.auth!r} {chat!r}" and chat.name == "m"


@pytest.mark.parametrize("name", list(known.PROVIDERS))
def test_an_address_that_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for url in ("", "localhost:1", "ftp://a/b", "http://[::1"):
        with pytest.raises(ConfigError, match="base_url"):
            known.model(f"{name}:m", base_url=url)


@pytest.mark.parametrize(
    ("name", "hint"), [("bedrok:m", "Did you mean 'bedrock'"), ("azure", "provider:model"), (":m", "Known: openai")]
)
def test_a_provider_that_is_not_known(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        known.model(name)
    assert hint in str(caught.value)

"""The same calls on an event loop: many at once, cancelled, out of time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from tests.apply.provider_world import KEY, Loopback, ask, events, piece, reply

from windlass.apply.providers import known
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.errors import ConfigError, ProviderError, TimedOut, Unsupported
from windlass.core.protocols import AsyncChatModel
from windlass.core.values import AudioPart, ChatDelta, ChatRequest, FilePart, Message


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


def remote(server: Loopback, **options: Any) -> RemoteChat:
    return RemoteChat(Endpoint(server.url, ApiKey("WINDLASS_TEST_KEY"), **options), ChatCompletions("m"))


def run(chat: RemoteChat, work: Any) -> Any:
    async def whole() -> Any:
        try:
            return await work
        finally:
            await chat.aclose()

    return asyncio.run(whole())


async def read(stream: AsyncIterator[ChatDelta]) -> list[ChatDelta]:
    return [delta async for delta in stream]


def test_both_ways_send_and_read_the_same(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_TEST_KEY", KEY)
    chat = remote(server)
    assert isinstance(chat, AsyncChatModel)
    server.answer(reply())
    assert run(chat, chat.acomplete(ask())) == chat.complete(ask())
    server.answer(events(piece("One\u2028line"), piece(" more."), piece(finish="stop")))
    deltas = run(chat, read(chat.astream(ask())))
    assert deltas == list(chat.stream(ask())) and [d.text for d in deltas[:-1]] == ["One\u2028line", " more."]
    (a, b), (c, d) = server.bodies()[:2], server.bodies()[2:]
    assert a == b and c == d
    keep = ("authorization", "content-type", "user-agent")
    assert len({tuple(headers.get(name) for name in keep) for _, headers, _ in server.requests}) == 1
    chat.close()


def test_it_asks_again_and_says_so_on_the_trace(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    from windlass.core.trace import Recorder

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    chat = remote(server)
    server.answer((429, {"retry-after": "7"}, b'{"error": {"message": "slow down"}}'), reply())

    async def work() -> Any:
        with monkeypatch.context() as patch, Recorder(None).span("call") as span:
            patch.setattr(asyncio, "sleep", sleep)
            await chat.acomplete(ask())
        return span.attributes

    attributes = run(chat, work())
    assert slept == [7.0] and attributes["windlass.retries"] == 1
    assert attributes["windlass.retry.1"] == "status 429, asked again after 7.00 s"
    server.answer((404, {}, b"nothing"))
    with pytest.raises(ProviderError, match="status 404"):
        run(chat, chat.acomplete(ask()))
    server.answer(events(piece("half")))
    with pytest.raises(ProviderError, match="before the answer was finished"):
        run(chat, read(chat.astream(ask())))


def test_hundreds_of_calls_at_once_on_few_connections(server: Loopback) -> None:
    server.answer(reply())
    chat = remote(server, connections=16)

    async def work() -> Any:
        return await asyncio.gather(*(chat.acomplete(ask(str(number))) for number in range(300)))

    responses = run(chat, work())
    assert len(responses) == 300 and {r.message.text for r in responses} == {"Hello!"}
    assert sorted(int(body["messages"][0]["content"]) for body in server.bodies()) == list(range(300))


class Slow(httpx2.MockTransport):
    """Says one word, and then nothing for a long time; counts the answers that were let go."""

    def __init__(self) -> None:
        super().__init__(lambda request: httpx2.Response(500))
        self.closed = 0
        self.begun = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.begun += 1
        return httpx2.Response(200, stream=self.Body(self), headers={"content-type": "text/event-stream"})

    class Body(httpx2.AsyncByteStream):
        def __init__(self, outer: Slow) -> None:
            self.outer = outer

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'data: {"choices": [{"delta": {"content": "Well"}}]}\n\n'
            await asyncio.sleep(60)

        async def aclose(self) -> None:
            self.outer.closed += 1


def test_cancelling_the_task_ends_the_request() -> None:
    transport = Slow()
    chat = RemoteChat(Endpoint("http://model.example/v1", transport=transport), ChatCompletions("m"))

    async def work() -> None:
        for call in (read(chat.astream(ask())), chat.acomplete(ask())):
            task = asyncio.ensure_future(call)
            while transport.begun == transport.closed:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        left = chat.astream(ask())
        assert (await anext(left)).text == "Well"
        await left.aclose()  # type: ignore[attr-defined]

    run(chat, work())
    assert transport.begun == transport.closed == 3


def test_the_time_for_the_whole_answer_is_kept() -> None:
    chat = RemoteChat(Endpoint("http://model.example/v1", transport=Slow()), ChatCompletions("m"))

    async def work() -> None:
        stream = chat.astream(ask(timeout=2))
        assert (await anext(stream)).text == "Well"
        await asyncio.sleep(2.2)  # the limit is the answer's: it may not end the work of whoever reads
        with pytest.raises(TimedOut, match="after 2 seconds"):
            await anext(stream)

    run(chat, work())
    with pytest.raises(TimedOut):
        run(chat, chat.acomplete(ask(timeout=0.1)))


def test_a_silent_server_is_out_of_time_for_callers_that_wait(server: Loopback) -> None:
    server.answer((0, {}, b""))
    chat = remote(server, timeouts=Timeouts(read=30))
    with pytest.raises(TimedOut):
        chat.complete(ask(timeout=0.2))
    chat.close()


def test_each_event_loop_has_connections_of_its_own(server: Loopback) -> None:
    server.answer(reply())
    chat = remote(server)
    for _ in range(3):
        run(chat, chat.acomplete(ask()))
    gc.collect()
    assert len(server.requests) == 3 and not chat.endpoint._clients


def test_a_parameter_may_be_left_out_with_a_warning_but_nothing_of_the_messages(server: Loopback) -> None:
    class Plain(ChatCompletions):
        knows = frozenset({"temperature"})

    server.answer(reply())
    chat = RemoteChat(Endpoint(server.url), Plain("m"), on_unsupported="warn")
    with pytest.warns(UserWarning, match="no parameter seed, top_k: left out"):
        chat.complete(ask(seed=1, temperature=0.5, extra={"top_k": 3}))
    assert server.bodies()[0] == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5}
    with pytest.raises(Unsupported, match="takes no audio"):
        chat.complete(ChatRequest([Message("user", [AudioPart(b"RIFF")])]))
    chat.close()


def test_sound_and_files_in_messages() -> None:
    (message,) = ChatCompletions("m").body(
        ChatRequest([Message("user", [AudioPart(b"a", "audio/mpeg"), FilePart(data=b"b", name="b.pdf")])])
    )["messages"]
    assert message["content"] == [
        {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "mp3"}},
        {"type": "file", "file": {"filename": "b.pdf", "file_data": "data:application/pdf;base64,Yg=="}},
    ]
    with pytest.raises(Unsupported, match="not by URL"):
        ChatCompletions("m").body(ChatRequest([Message("user", [FilePart(url="https://a.example/b.pdf")])]))


def test_providers_by_name(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, why in (
        ("gpt", "names no provider"),
        ("opnai:gpt", "no provider 'opnai'"),
        ("openai:gpt", "OPENAI_API_KEY is not set"),
    ):
        with pytest.raises(ConfigError, match=why):
            known.model(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert known.model("openai:gpt").endpoint.base_url == "https://api.openai.com/v1"
    assert known.model("ollama:llama:8b").name == "llama:8b"
    server.answer(reply())
    chat = known.model("vllm:m", base_url=server.url)
    assert chat.complete(ask(extra={"top_k": 3})).message.text == "Hello!" and server.bodies()[0]["top_k"] == 3
    chat.close()

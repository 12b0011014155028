"""Traffic is recorded without secrets and played back without a network; what is not on it is refused."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import httpx2
import pytest
from tests.apply.provider_world import KEY, Loopback, ask, events, piece, reply

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.errors import InputError, ProviderError
from windlass.core.protocols import ChatModel
from windlass.testing import BeyondLoopback, loopback_only
from windlass.testing.cassettes import Cassette, UnknownRequest


def model(transport: Cassette, url: str = "http://127.0.0.1:9/v1", retries: int = 1) -> RemoteChat:
    return RemoteChat(Endpoint(url, ApiKey("MY_KEY"), transport=transport, retries=retries), ChatCompletions("m"))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("WINDLASS_RECORD", raising=False)


def test_record_and_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cassettes" / "talk.json"
    with Loopback() as provider:
        monkeypatch.setenv("WINDLASS_RECORD", "1")
        remote = model(Cassette(path), provider.url)
        provider.answer((429, {"retry-after": "0"}, b'{"error": {"message": "slow down"}}'), reply("Hello!"))
        said = remote.complete(ask("Hi"))
        provider.answer(reply(f"The key is {KEY}, sk-another-secret-key-123"))
        asyncio.run(remote.acomplete(ask(f"Say {KEY}")))
        provider.answer(events(piece("Hel"), piece("lo"), piece(finish="stop")))
        streamed = list(remote.stream(ask("Stream")))
        url, asked = provider.url, len(provider.requests)
    text = path.read_text()
    assert KEY not in text and "sk-another" not in text and "authorization" not in text.lower()
    assert [exchange["response"]["status"] for exchange in json.loads(text)["exchanges"]] == [429, 200, 200, 200]

    monkeypatch.delenv("WINDLASS_RECORD")
    cassette = Cassette(path)
    remote = model(cassette, url)
    with loopback_only():
        assert remote.complete(ask("Hi")) == said and asked == 4, "the retry is played, too"
        again = asyncio.run(remote.acomplete(ask(f"Say {KEY}")))
        assert again.message.text == "The key is [redacted], [redacted]"

        async def stream() -> list[str]:
            return [delta.text async for delta in remote.astream(ask("Stream"))]

        assert asyncio.run(stream()) == [delta.text for delta in streamed] == ["Hel", "lo", ""]
    assert cassette.left == 0


def recorded(path: Path, *texts: str) -> Path:
    """A cassette of a provider in memory that repeats what it is told."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        return httpx2.Response(200, content=reply(f"You said {body['messages'][0]['content']}")[2])

    inner = httpx2.MockTransport(handle)
    remote: ChatModel = model(Cassette(path, record=True, inner=inner))
    for text in texts:
        remote.complete(ask(text, temperature=0.5))
    return path


def test_a_request_that_is_not_on_it_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = recorded(tmp_path / "c.json", "Tell me about winches and their history", "Hi")
    remote = model(Cassette(path))
    with pytest.raises(UnknownRequest) as refused:
        remote.complete(ask("Ho", temperature=0.5, seed=3))
    assert 'json.messages.0.content: recorded "Hi", asked "Ho"' in refused.value.message
    assert "json.seed: not recorded, asked 3" in refused.value.message and "WINDLASS_RECORD" in refused.value.hint
    with pytest.raises(UnknownRequest, match=r"json\.temperature: recorded 0\.5, not asked"):
        remote.complete(ask("Hi"))
    assert remote.complete(ask("Hi", temperature=0.5)).message.text == "You said Hi"
    with pytest.raises(UnknownRequest, match=r"holds POST .* 1 times, and it was asked once more"):
        remote.complete(ask("Hi", temperature=0.5))
    with pytest.raises(UnknownRequest, match="url: recorded"):
        asyncio.run(model(Cassette(path), "http://127.0.0.1:9/v2").acomplete(ask("Hi", temperature=0.5)))


def test_equal_requests_are_played_in_their_order_and_addresses_lose_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    count = iter(range(9))
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, content=reply(f"Number {next(count)}")[2]))
    remote = model(Cassette(path, record=True, inner=inner))
    texts = [remote.complete(ask("Hi")).message.text for _ in range(3)]
    remote = model(Cassette(path))
    assert [remote.complete(ask("Hi")).message.text for _ in range(3)] == texts == ["Number 0", "Number 1", "Number 2"]
    with httpx2.Client(transport=Cassette(path, record=True, inner=inner)) as client:
        client.get("http://127.0.0.1:9/v1/models?key=abc")
    assert "key=[redacted]" in path.read_text() and "abc" not in path.read_text()


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path, sound = tmp_path / "c.json", bytes(range(256))
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, content=sound, headers={"set-cookie": "secret"}))
    with httpx2.Client(transport=Cassette(path, record=True, inner=inner)) as client:
        client.post("http://here/speech", content=sound)
    assert "secret" not in path.read_text()
    with httpx2.Client(transport=Cassette(path)) as client:
        assert client.post("http://here/speech", content=sound).content == sound


def test_files_that_are_no_cassettes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no cassette"):
        Cassette(tmp_path / "none.json")
    for content, told in (("{", "is no cassette"), ('{"cassette": 2}', "another version: 2"), ("[]", "is no cassette")):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(InputError, match=told):
            Cassette(tmp_path / "c.json")


def test_nothing_reaches_beyond_this_machine() -> None:
    before = socket.socket.connect, socket.getaddrinfo
    with loopback_only():
        with Loopback() as provider:
            provider.answer(reply())
            local = RemoteChat(Endpoint(provider.url), ChatCompletions("m"))
            assert local.complete(ask()).message.text == "Hello!"
            assert asyncio.run(local.acomplete(ask())).message.text == "Hello!"
        for url in ("http://192.0.2.7/v1", "http://[2001:db8::7]/v1", "http://model.invalid/v1"):
            remote = RemoteChat(Endpoint(url, retries=0), ChatCompletions("m"))
            with pytest.raises(BeyondLoopback, match=r"192|2001|model\.invalid"):
                remote.complete(ask())
            # Where a name may have several addresses, anyio tries them in a group of tasks.
            with pytest.raises((BeyondLoopback, ExceptionGroup)) as refused:
                asyncio.run(remote.acomplete(ask()))
            innermost: BaseException = refused.value
            while isinstance(innermost, BaseExceptionGroup):
                innermost = innermost.exceptions[0]
            assert isinstance(innermost, BeyondLoopback)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(BeyondLoopback):
            udp.sendto(b"hello", ("192.0.2.7", 53))
    assert (socket.socket.connect, socket.getaddrinfo) == before
    with Loopback() as provider:
        provider.answer((500, {}, b"oops"))
        with pytest.raises(ProviderError):
            RemoteChat(Endpoint(provider.url, retries=0), ChatCompletions("m")).complete(ask())

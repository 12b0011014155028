"""What holds for every provider, whatever its dialect: nothing asked for disappears, calls stream in pieces, phases
have limits, proxies and headers are used, a cancelled call ends, and another provider may stand in."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from tests.apply.every_provider import KEYS, SPOKEN, TEXT, Reply, Spoken, lines, streamed, told
from tests.apply.provider_world import ask
from tests.apply.test_bad_answers import WAYS, Ask

from windlass.apply.providers.dialects.dialect import PARAMETERS
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.wrappers.pool import Pool
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.trace import Recorder
from windlass.core.values import AudioPart, ChatRequest, FilePart, ImagePart, Message, TextPart, ToolCall, ToolSpec


@pytest.fixture(params=list(SPOKEN))
def spoken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Spoken:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return SPOKEN[request.param]


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Ask:
    return WAYS[request.param]


class Kept(httpx2.MockTransport):
    """Answers as the provider does, and keeps what it was sent."""

    def __init__(self, spoken: Spoken) -> None:
        self.requests: list[httpx2.Request] = []

        def handle(request: httpx2.Request) -> httpx2.Response:
            self.requests.append(request)
            return spoken.reply(request)

        super().__init__(handle)


# nothing disappears ---------------------------------------------------------------------------------------------------

TOOL = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
ASKED: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.625}, "top_p": {"top_p": 0.875}, "max_tokens": {"max_tokens": 4321},
    "stop": {"stop": ["stop-here"]}, "seed": {"seed": 98765}, "tools": {"tools": [TOOL]},
    "tool_choice": {"tools": [TOOL], "tool_choice": "add"}, "logprobs": {"logprobs": 7},
    "schema": {"schema": {"type": "object", "properties": {"marked": {"type": "string"}}, "required": ["marked"]}},
}  # fmt: skip
MARKS = {
    "temperature": "0.625", "top_p": "0.875", "max_tokens": "4321", "stop": "stop-here", "seed": "98765",
    "tools": "Adds.", "tool_choice": "add", "logprobs": "7", "schema": "marked",
}  # fmt: skip


def test_all_parameters_are_looked_at() -> None:
    assert set(ASKED) == set(MARKS) == PARAMETERS


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_parameter_is_sent_or_refused_and_with_warn_left_out_aloud(spoken: Spoken, name: str) -> None:
    request = ask(**ASKED[name])
    kept = Kept(spoken)
    chat = spoken.chat(kept)
    if name in chat.dialect.knows:
        chat.complete(request)
        without = replace(request, **{name: getattr(ask(), name)})
        body, other = (one.body for one in (chat.called(request), chat.called(without)))
        assert body != other and MARKS[name] in kept.requests[0].content.decode()
        return
    with pytest.raises(Unsupported, match=f"no parameter '{name}'"):
        chat.complete(request)
    assert kept.requests == []
    loose = RemoteChat(chat.endpoint, chat.dialect, on_unsupported="warn")
    with pytest.warns(UserWarning, match=f"no parameter .*{name}.*: left out"):
        loose.complete(request)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            json.loads(kept.requests[0].content) == chat.called(replace(request, **{name: getattr(ask(), name)})).body
        )


PARTS = {
    "image": ImagePart(data=b"\x89PNG of a windlass"),
    "image by URL": ImagePart(url="https://a.example/windlass.png"),
    "audio": AudioPart(b"RIFF of a windlass", "audio/wav"),
    "file": FilePart(data=b"%PDF of a windlass", name="windlass.pdf"),
    "file by URL": FilePart(url="https://a.example/windlass.pdf"),
}


@pytest.mark.parametrize("kind", list(PARTS))
@pytest.mark.parametrize("policy", ["error", "warn"])
def test_what_messages_hold_is_sent_or_refused(spoken: Spoken, kind: str, policy: Any) -> None:
    part = PARTS[kind]
    kept = Kept(spoken)
    chat = spoken.chat(kept)
    chat = RemoteChat(chat.endpoint, chat.dialect, on_unsupported=policy)
    try:
        chat.complete(ChatRequest([Message("user", [TextPart("What is this?"), part])]))
    except Unsupported:
        assert kept.requests == []
        return
    sent = kept.requests[0].content.decode()
    content = getattr(part, "url", None) or base64.b64encode(part.data or b"").decode()
    assert content in sent and "What is this?" in sent


def test_which_of_them_each_dialect_takes() -> None:
    """As docs/providers.md says."""
    known = {name: spoken.dialect("m").knows & {"images", "audio", "files"} for name, spoken in SPOKEN.items()}
    everything = {"images", "audio", "files"}
    assert known == {
        "openai": everything, "azure": everything, "mistral": everything, "gemini": everything, "bedrock": everything,
        "responses": {"images", "files"}, "anthropic": {"images", "files"},
    }  # fmt: skip


# calls that are streamed ----------------------------------------------------------------------------------------------

CALLS = (ToolCall("t1", "add", '{"a": 1}'), ToolCall("t2", "see", '{"b": "ä"}'))
CUT = [(call, call.arguments[:4], call.arguments[4:]) for call in CALLS]


def _openai() -> Reply:
    def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def of(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments, **more.pop("function", {})}, **more}

    begun = [
        piece(tool_calls=[of(n, "", id=call.id, function={"name": call.name})]) for n, (call, _, _) in enumerate(CUT)
    ]
    grown = [piece(tool_calls=[of(n, text)]) for half in (1, 2) for n, text in enumerate(one[half] for one in CUT)]
    return lines(*begun, *grown, piece("tool_calls"))


def _responses() -> Reply:
    items = [
        {"type": "function_call", "id": f"f{n}", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for n, call in enumerate(CALLS)
    ]
    events: list[dict[str, Any]] = []
    for n, (item, (_, first, second)) in enumerate(zip(items, CUT)):
        events.append({"type": "response.output_item.added", "output_index": n, "item": {**item, "arguments": ""}})
        events += [
            {"type": "response.function_call_arguments.delta", "output_index": n, "delta": text}
            for text in (first, second)
        ]
    whole = {"id": "r", "model": "m", "status": "completed", "output": items, "usage": {}}
    return lines(*events, {"type": "response.completed", "response": whole})


def _anthropic() -> Reply:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m1", "model": "m", "usage": {}}}]
    for n, (call, first, second) in enumerate(CUT):
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        events.append({"type": "content_block_start", "index": n, "content_block": block})
        for text in (first, second):
            delta = {"type": "input_json_delta", "partial_json": text}
            events.append({"type": "content_block_delta", "index": n, "delta": delta})
        events.append({"type": "content_block_stop", "index": n})
    return lines(*events, {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"})


def _gemini() -> Reply:
    calls = [{"functionCall": {"id": c.id, "name": c.name, "args": json.loads(c.arguments)}} for c in CALLS]
    events = [{"candidates": [{"content": {"parts": [call], "role": "model"}}]} for call in calls]
    return lines(*events, {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {}, "responseId": "r"})


def _bedrock() -> Reply:
    events: list[dict[str, Any]] = [{"messageStart": {"role": "assistant"}}]
    for n, (call, first, second) in enumerate(CUT):
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        events.append({"contentBlockStart": {"start": start, "contentBlockIndex": n}})
        events += [
            {"contentBlockDelta": {"delta": {"toolUse": {"input": text}}, "contentBlockIndex": n}}
            for text in (first, second)
        ]
        events.append({"contentBlockStop": {"contentBlockIndex": n}})
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    return told(*events, {"messageStop": {"stopReason": "tool_use"}}, {"metadata": {"usage": usage}})


CALLING: dict[str, Callable[[], Reply]] = {
    "openai": _openai, "azure": _openai, "mistral": _openai, "responses": _responses, "anthropic": _anthropic,
    "gemini": _gemini, "bedrock": _bedrock,
}  # fmt: skip


@pytest.mark.parametrize("name", list(SPOKEN))
@pytest.mark.parametrize("waiting", [True, False])
def test_calls_are_streamed_in_pieces_that_add_up(name: str, waiting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value)
    kind, content = CALLING[name]()
    said = httpx2.Response(200, content=content, headers={"content-type": kind})
    chat = SPOKEN[name].chat(httpx2.MockTransport(lambda request: said))
    request = ask(tools=[TOOL, ToolSpec("see")])

    async def read() -> list[Any]:
        return [delta async for delta in chat.astream(request)]

    *deltas, last = list(chat.stream(request)) if waiting else asyncio.run(read())
    written: dict[int, list[str]] = {}
    for piece in (piece for delta in deltas for piece in delta.calls):
        call = written.setdefault(piece.index, ["", "", ""])
        call[0], call[1] = call[0] or piece.id or "", call[1] or piece.name or ""
        call[2] += piece.arguments
    assert [ToolCall(*written[index]) for index in sorted(written)] == list(CALLS)
    assert list(last.response.message.tool_calls) == list(CALLS) and last.response.finish_reason == "tool_calls"


# phases, proxies, headers ---------------------------------------------------------------------------------------------


def endpoint(spoken: Spoken, **more: Any) -> RemoteChat:
    url = more.pop("url", "http://model.example/v1")
    return RemoteChat(Endpoint(url, spoken.auth(), **more), spoken.dialect("remote"))


def test_each_phase_has_its_limit(spoken: Spoken, way: Ask) -> None:
    kept = Kept(spoken)
    chat = endpoint(spoken, transport=kept, timeouts=Timeouts(connect=1.5, write=2.5, read=3.5))
    way(chat, ask())
    way(chat, ask(timeout=2.0))
    first, second = (request.extensions["timeout"] for request in kept.requests)
    assert first == {"connect": 1.5, "write": 2.5, "read": 3.5, "pool": None}
    assert second["connect"] == 1.5 and all(1 < second[phase] <= 2 for phase in ("write", "read", "pool"))


@pytest.mark.parametrize(("phase", "tries"), [("ConnectTimeout", 3), ("WriteTimeout", 3), ("ReadTimeout", 1)])
def test_a_phase_that_takes_too_long(spoken: Spoken, way: Ask, phase: str, tries: int) -> None:
    """Asked again where the request has not arrived: of one that has, it may be at work."""
    asked: list[httpx2.Request] = []

    def late(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        raise getattr(httpx2, phase)("too late", request=request)

    chat = endpoint(spoken, transport=httpx2.MockTransport(late), retries=2)
    with pytest.MonkeyPatch.context() as patch, Recorder(None).span("call") as span:
        patch.setattr("windlass.apply.providers.wire.tries.backoff", lambda attempt: 0.001)
        with pytest.raises(ProviderError, match=rf"did not answer in time \({phase}\)"):
            way(chat, ask())
    assert len(asked) == tries and span.attributes.get("windlass.retries", 0) == tries - 1


def test_a_server_that_takes_nothing_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        chat = endpoint(SPOKEN["openai"], url=url, timeouts=Timeouts(write=0.2, read=30), retries=0)
        for name in ("complete", "acomplete"):
            with pytest.raises(ProviderError, match=r"in time \(WriteTimeout\)"):
                WAYS[name](chat, ask("x" * 30_000_000))


class Proxy:
    """Answers in place of those whom it is asked to ask."""

    def __init__(self, spoken: Spoken) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                outer.asked.append(self.path)
                said = spoken.reply(httpx2.Request("POST", self.path, content=content))
                self.send_response(200)
                self.send_header("content-type", said.headers["content-type"])
                self.end_headers()
                self.wfile.write(said.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def proxy(spoken: Spoken) -> Iterator[Proxy]:
    made = Proxy(spoken)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize("given", [True, False])
def test_a_proxy_is_asked_to_ask(spoken: Spoken, proxy: Proxy, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is given, or that of the usual environment variables."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    if not given:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
    chat = endpoint(spoken, proxy=proxy.url if given else None)
    for way in WAYS.values():
        assert way(chat, ask()).message.text == TEXT
    chat.close()
    assert len(proxy.asked) == 4 and all(path.startswith("http://model.example/v1/") for path in proxy.asked)


def test_headers_of_ones_own_are_sent_and_keys_stay(spoken: Spoken, way: Ask) -> None:
    kept = Kept(spoken)
    way(endpoint(spoken, transport=kept, headers={"X-Team": "harbour", "User-Agent": "mine/1"}), ask())
    way(endpoint(spoken, transport=kept), ask())
    own, usual = (request.headers for request in kept.requests)
    assert (own["x-team"], own["user-agent"]) == ("harbour", "mine/1")
    assert "x-team" not in usual and usual["user-agent"].startswith("windlass/")
    for name in spoken.auth().headers("POST", "http://model.example/v1", b""):
        assert own[name] and usual[name]


# cancelled calls, and others in their place ---------------------------------------------------------------------------


class Hanging(httpx2.AsyncBaseTransport):
    """Begins its answer, and then says nothing more."""

    def __init__(self, spoken: Spoken) -> None:
        self.spoken, self.open = spoken, 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.open += 1
        kind = self.spoken.stream[0] if streamed(request) else "application/json"
        return httpx2.Response(200, headers={"content-type": kind}, stream=self.Stream(self))

    class Stream(httpx2.AsyncByteStream):
        def __init__(self, outer: Hanging) -> None:
            self.outer = outer

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield self.outer.spoken.stream[1][:40]
            await asyncio.sleep(60)

        async def aclose(self) -> None:
            self.outer.open -= 1


def test_a_cancelled_call_ends_its_request(spoken: Spoken) -> None:
    transport = Hanging(spoken)
    chat = endpoint(spoken, transport=transport)

    async def read() -> None:
        async for _ in chat.astream(ask()):
            pass

    async def work() -> None:
        for call in (chat.acomplete(ask()), read()):
            task = asyncio.ensure_future(call)
            while not transport.open:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not transport.open
        await chat.aclose()

    asyncio.run(work())


def test_another_stands_in_and_the_one_that_fails_is_spared(spoken: Spoken, way: Ask) -> None:
    asked: list[httpx2.Request] = []

    def down(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(503, headers={"retry-after": "0"})

    first = endpoint(spoken, transport=httpx2.MockTransport(down), retries=0)
    pool = Pool([first, spoken.serving()], failures=2, pause=1000)
    for _ in range(4):
        assert way(pool, ask()).message.text == TEXT  # type: ignore[arg-type]
    assert len(asked) == 2

"""Mistral's API: OpenAI's with a few names of its own, as its SDK sends and reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.apply.provider_world import KEY, Loopback, ask, events, piece, reply

from windlass.apply.providers import known
from windlass.core.errors import Unsupported
from windlass.core.values import (
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolSpec,
)

CALLED = ChatRequest(
    [
        Message("user", "1+1?"),
        Message("assistant", "", [ToolCall("call_of_another_maker", "add", '{"a": 1}')]),
        Message("tool", "2", tool_call_id="call_of_another_maker", name="add"),
    ],
    tools=[ToolSpec("add", "Adds.", {"type": "object", "properties": {}}, strict=True)],
    tool_choice="required",
)
PARTS = ChatRequest(
    [
        Message(
            "user",
            [
                TextPart("What is this?"),
                ImagePart(url="https://a.example/b.png"),
                ImagePart(data=b"\x89PNG"),
                AudioPart(b"RIFF"),
                FilePart(url="https://a.example/c.pdf", name="c.pdf"),
                FilePart(data=b"%PDF", name="d.pdf"),
            ],
        )
    ]
)
REQUESTS = [
    ask(),
    ask(temperature=0.0, top_p=0.9, max_tokens=50, seed=7, stop=["END"], extra={"safe_prompt": True}),
    ask(schema={"type": "object", "properties": {"a": {"type": "integer"}}}),
    CALLED,
    PARTS,
]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", KEY)


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_official_sdk_sends_our_requests(request_: ChatRequest, streamed: bool) -> None:
    """Its types refuse other names, and write what they take as it came."""
    sdk = pytest.importorskip("mistralai.client")
    with Loopback() as server:
        server.answer(events(piece("x"), piece(finish="stop")) if streamed else reply())
        chat = known.model("mistral:m", base_url=server.url)
        list(chat.stream(request_)) if streamed else chat.complete(request_)
        (_, headers, ours) = server.requests[0]
        arguments = {name: value for name, value in ours.items() if name != "stream"}
        client = sdk.Mistral(api_key=KEY, server_url=server.url.removesuffix("/v1"))
        if streamed:
            list(client.chat.stream(**arguments))
        else:
            client.chat.complete(**arguments)
        path, theirs_headers, theirs = server.requests[1]
    assert path == server.requests[0][0] == "/v1/chat/completions"
    assert headers["authorization"] == theirs_headers["authorization"]
    assert ours == without_defaults(theirs, ours)


def without_defaults(theirs: Any, ours: Any) -> Any:
    """What the SDK adds where nothing was said: defaults."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        usual: dict[str, Any] = {"stream": False, "prefix": False, "strict": False, "index": 0}
        return {
            name: without_defaults(value, ours.get(name))
            for name, value in theirs.items()
            if name in ours or usual.get(name, ...) != value
        }
    if isinstance(theirs, list) and isinstance(ours, list):
        return [without_defaults(one, other) for one, other in zip(theirs, ours, strict=True)]
    return theirs


def test_names_of_its_own() -> None:
    assert known.at("https://api.mistral.ai/v1", "m").dialect.api == "The Mistral API", "as [model] in windlass.toml"
    body = known.model("mistral:m").dialect.call(ask(seed=7), stream=True).body or {}
    assert body["random_seed"] == 7 and "seed" not in body and body["stream"] and "stream_options" not in body
    body = known.model("mistral:m").dialect.call(CALLED, stream=False).body or {}
    _, asked, answered = body["messages"]
    id = asked["tool_calls"][0]["id"]
    assert id == answered["tool_call_id"] and len(id) == 9 and id.isalnum()
    own = Message("tool", "2", tool_call_id="D681PevKs", name="add")
    body = known.model("mistral:m").dialect.call(ChatRequest([own]), stream=False).body or {}
    assert body["messages"][0]["tool_call_id"] == "D681PevKs"


def test_what_was_thought_stands_apart() -> None:
    def chunks(thought: str, text: str) -> list[dict[str, Any]]:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
        return [thinking, {"type": "text", "text": text}] if text else [thinking]

    value = json.loads(reply()[2])
    value["choices"][0]["message"]["content"] = chunks("Hm.", "Hello!")
    pieces = [piece(content=chunks("Hm.", "")), piece("Hello!"), piece(finish="model_length")]
    with Loopback() as server:
        server.answer((200, {}, json.dumps(value).encode()), events(*pieces))
        chat = known.model("mistral:m", base_url=server.url)
        whole = chat.complete(ask())
        *deltas, last = chat.stream(ask())
    assert last.response is not None and last.response.finish_reason == "length"
    for response in (whole, last.response):
        assert response.message.text == "Hello!" and response.message.reasoning == "Hm."
    assert [(delta.reasoning, delta.text) for delta in deltas] == [("Hm.", ""), ("", "Hello!")]


def test_what_it_does_not_know_is_refused() -> None:
    for parameters in ({"logprobs": 2}, {"extra": {"logit_bias": {}}}):
        with pytest.raises(Unsupported, match="The Mistral API has no parameter"):
            known.model("mistral:m").complete(ask(**parameters))

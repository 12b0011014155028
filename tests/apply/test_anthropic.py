"""Our requests to Anthropic's API are the official SDK's, and its answers are read whole, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from tests.apply.provider_world import KEY, Loopback, ask

from windlass.apply.providers import known
from windlass.apply.providers.dialects.anthropic import Anthropic
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolSpec,
    Usage,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
BLOCKS = [
    {"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
    {"type": "text", "text": "Hello!"},
    {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
]
COUNTS = {
    "input_tokens": 12, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 3, "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 4},
}  # fmt: skip


def reply(*blocks: dict[str, Any], finish: str = "end_turn", **more: Any) -> tuple[int, dict[str, str], bytes]:
    value = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x-20260101", "stop_sequence": None,
        "content": list(blocks or BLOCKS), "stop_reason": finish, "usage": COUNTS, **more,
    }  # fmt: skip
    return 200, {}, json.dumps(value).encode()


def streamed(*, whole: bool = True) -> tuple[int, dict[str, str], bytes]:
    start = json.loads(reply()[2]) | {"content": [], "stop_reason": None}
    start["usage"] = COUNTS | {"output_tokens": 1, "output_tokens_details": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    empty = {"thinking": "", "text": ""}
    pieces = [
        [{"type": "thinking_delta", "thinking": "Hm."}, {"type": "signature_delta", "signature": "sig=="}],
        [{"type": "text_delta", "text": "Hel"}, {"type": "text_delta", "text": "lo!"}],
        [
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"a"'},
            {"type": "input_json_delta", "partial_json": ": 1}"},
        ],
    ]
    for index, (block, deltas) in enumerate(zip(BLOCKS, pieces)):
        begun = {
            **block,
            **{k: v for k, v in empty.items() if k in block},
            **({"input": {}} if "input" in block else {}),
        }
        begun.pop("signature", None)
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    if whole:
        delta = {"stop_reason": "tool_use", "stop_sequence": None}
        usage = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}, "input_tokens": None}
        events += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    return 200, {"content-type": "text/event-stream"}, "".join(lines).encode()


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def chat(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteChat]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    made = known.model("anthropic:claude-x", base_url=server.url)
    yield made
    made.close()


def test_an_answer(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(finish="tool_use"))
    response = chat.complete(ask())
    assert response.message.text == "Hello!" and response.message.reasoning == "Hm."
    assert response.message.tool_calls == (ToolCall("t1", "add", '{"a": 1}'),)
    assert response.finish_reason == "tool_calls" and response.model == "claude-x-20260101"
    assert response.usage == Usage(input=12, cache_read=8, cache_write=3, output=5, reasoning=4)


def test_a_stream_is_the_same_answer(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(finish="tool_use"), streamed())
    whole = chat.complete(ask())
    *deltas, last = chat.stream(ask())
    assert last.response == whole
    assert "".join(d.text for d in deltas) == "Hello!" and "".join(d.reasoning for d in deltas) == "Hm."
    calls = [call for delta in deltas for call in delta.calls]
    assert "".join(call.arguments for call in calls) == '{"a": 1}' and (calls[0].id, calls[0].name) == ("t1", "add")
    server.answer(streamed(whole=False))
    with pytest.raises(ProviderError, match="before the answer was finished"):
        list(chat.stream(ask()))


def test_signed_reasoning_goes_back_as_it_came(server: Loopback, chat: RemoteChat) -> None:
    server.answer(streamed(), reply())
    *_, last = chat.stream(ask())
    assert last.response is not None
    chat.complete(
        ChatRequest([Message("user", "1+0?"), last.response.message, Message("tool", "1", tool_call_id="t1")])
    )
    _, said, told = server.bodies()[-1]["messages"]
    assert said == {"role": "assistant", "content": BLOCKS}
    assert told == {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]}


def test_a_refusal(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(finish="refusal", content=[], stop_details={"type": "refusal", "explanation": "No."}))
    response = chat.complete(ask())
    assert response.refused and response.message.text == "No." and response.finish_reason == "content_filter"


REQUESTS: list[tuple[ChatRequest, dict[str, Any]]] = [
    (ask(), {}),
    (ask(max_tokens=50, stop=["END"]), {"max_tokens": 50, "stop_sequences": ["END"]}),
    (
        ask(schema=SCHEMA, extra={"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        {
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
            "thinking": {"type": "adaptive"},
        },
    ),
    (
        ask(tools=[ToolSpec("add", "Adds.", SCHEMA, strict=True), ToolSpec("now")], tool_choice="add"),
        {
            "tools": [
                {"name": "add", "description": "Adds.", "input_schema": SCHEMA, "strict": True},
                {"name": "now", "input_schema": {"type": "object", "properties": {}}},
            ],
            "tool_choice": {"type": "tool", "name": "add"},
        },
    ),
    (
        ask(tools=[ToolSpec("now")], tool_choice="required"),
        {
            "tools": [{"name": "now", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "any"},
        },
    ),
    (
        ChatRequest([Message("system", "Be brief."), Message("developer", "Be kind."), Message("user", "Hi")]),
        {"system": "Be brief.\n\nBe kind."},
    ),
    (
        ChatRequest(
            [
                Message(
                    "user",
                    [
                        TextPart("See:"), ImagePart(url="https://a.example/b.png"), ImagePart(data=b"\x89PNG"),
                        FilePart(data=b"%PDF", name="c.pdf"),
                        FilePart(data=b"txt", media_type="text/plain", name="d.txt"),
                    ],
                )
            ]
        ),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See:"},
                        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
                        {
                            "type": "document", "title": "c.pdf",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                        },
                        {
                            "type": "document", "title": "d.txt",
                            "source": {"type": "text", "media_type": "text/plain", "data": "txt"},
                        },
                    ],
                }
            ]
        },
    ),
    (
        ChatRequest(
            [
                Message("user", "1+1 and 2+2?"),
                Message("assistant", "Let me see.", [ToolCall("t1", "add", '{"a": 1}'), ToolCall("t2", "add", "")]),
                Message("tool", "2", tool_call_id="t1"),
                Message("tool", "4", tool_call_id="t2"),
                Message("user", "Well?"),
            ]
        ),
        {
            "messages": [
                {"role": "user", "content": "1+1 and 2+2?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "Let me see."},
                        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
                        {"type": "tool_use", "id": "t2", "name": "add", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": "2"},
                        {"type": "tool_result", "tool_use_id": "t2", "content": "4"},
                        {"type": "text", "text": "Well?"},
                    ],
                },
            ]
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "arguments"), REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_our_requests_are_the_official_sdks(
    server: Loopback, chat: RemoteChat, request_: ChatRequest, arguments: dict[str, Any], stream: bool
) -> None:
    server.answer(streamed() if stream else reply())
    if stream:
        list(chat.stream(request_))
    else:
        chat.complete(request_)
    wanted: dict[str, Any] = {"max_tokens": 8192, "messages": [{"role": "user", "content": "Hi"}]} | arguments
    with anthropic.Anthropic(base_url=server.url.removesuffix("/v1"), api_key=KEY) as client:
        if stream:
            list(client.messages.create(model="claude-x", stream=True, **wanted))
        else:
            client.messages.create(model="claude-x", **wanted)
    ours, theirs = server.requests
    theirs[2].pop("stream", None) if not stream else None
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    for header in ("authorization", "anthropic-version", "content-type"):
        assert ours[1][header] == theirs[1][header]


def test_what_the_api_cannot_say_is_refused(server: Loopback, chat: RemoteChat) -> None:
    for request, why in (
        (ask(seed=3), "no parameter 'seed'"),
        (ask(temperature=0.0), "no parameter 'temperature'"),
        (ask(logprobs=1), "no parameter 'logprobs'"),
        (ChatRequest([Message("user", "Hi"), Message("system", "late")]), "at the beginning only"),
    ):
        with pytest.raises(Unsupported, match=why):
            chat.complete(request)
    assert server.requests == []


def test_an_error_in_the_stream(server: Loopback, chat: RemoteChat) -> None:
    event = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.answer((200, {"content-type": "text/event-stream"}, f"event: error\ndata: {json.dumps(event)}\n\n".encode()))
    with pytest.raises(ProviderError, match="Overloaded"):
        list(chat.stream(ask()))


def test_calls_that_are_no_json(server: Loopback, chat: RemoteChat) -> None:
    said = Message("assistant", "", [ToolCall("t1", "add", '{"a": ')])
    chat_body = Anthropic("m").body(ChatRequest([Message("user", "1+0?"), said]))
    assert chat_body["messages"][1]["content"][0]["input"] == {"arguments": '{"a": '}
    whole = streamed()[2].decode()
    cut = whole.replace(': 1}"', ': "').replace('"tool_use", "stop_sequence"', '"max_tokens", "stop_sequence"')
    assert cut != whole
    server.answer((200, {"content-type": "text/event-stream"}, cut.encode()))
    *_, last = chat.stream(ask())
    assert last.response is not None and last.response.finish_reason == "length"
    assert last.response.message.tool_calls == () and last.response.message.text == "Hello!"


def test_the_limit_of_answers_can_be_chosen() -> None:
    assert Anthropic("m", limit=100).body(ask())["max_tokens"] == 100

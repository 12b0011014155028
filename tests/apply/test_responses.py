"""Our requests to the Responses API are the official SDK's, and its answers are read whole, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.apply.provider_world import KEY, Loopback, ask

from windlass.apply.providers.dialects.responses import Responses
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
SEALED = "reasoning.encrypted_content"
LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
THOUGHT = {
    "type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA",
    "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
}  # fmt: skip
SAID = {
    "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
    "content": [{"type": "output_text", "text": "Hello!", "annotations": [], "logprobs": [LOGPROB]}],
}  # fmt: skip
CALLED = {
    "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}',
    "status": "completed",
}  # fmt: skip


def answer(*items: Any, **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 20, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 29,
    }  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m-2026", "status": "completed", "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "output": list(items), "usage": usage,
    } | more  # fmt: skip


def reply(*items: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(answer(*items, **more)).encode()


def streamed(*, whole: bool = True) -> tuple[int, dict[str, str], bytes]:
    kinds: list[dict[str, Any]] = [
        {"type": "response.created", "response": answer()},
        {"type": "response.output_item.added", "output_index": 0, "item": {**THOUGHT, "summary": []}},
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "First."},
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "Then."},
        {"type": "response.output_item.added", "output_index": 1, "item": {**SAID, "content": []}},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "lo!", "logprobs": []},
        {"type": "response.output_item.added", "output_index": 2, "item": {**CALLED, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ": 1}"},
    ]
    if whole:
        kinds.append({"type": "response.completed", "response": answer(THOUGHT, SAID, CALLED)})
    numbered = [{"sequence_number": n, **kind} for n, kind in enumerate(kinds)]
    text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered)
    return 200, {"content-type": "text/event-stream"}, text.encode()


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def chat(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteChat]:
    monkeypatch.setenv("WINDLASS_TEST_KEY", KEY)
    made = RemoteChat(Endpoint(server.url, ApiKey("WINDLASS_TEST_KEY")), Responses("m"))
    yield made
    made.close()


def test_an_answer_streamed_or_not(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(THOUGHT, SAID, CALLED), streamed())
    whole = chat.complete(ask())
    assert whole.message.text == "Hello!" and whole.message.reasoning == "First.\n\nThen."
    assert whole.message.tool_calls == (ToolCall("call_1", "add", '{"a": 1}'),)
    assert whole.usage == Usage(input=12, cache_read=8, output=5, reasoning=4) and whole.model == "m-2026"
    assert whole.finish_reason == "tool_calls" and whole.logprobs == (TokenLogprob("Hi", -0.5, bytes=b"Hi"),)
    *deltas, last = chat.stream(ask())
    assert last.response == whole
    assert "".join(d.text for d in deltas) == "Hello!"
    assert "".join(d.reasoning for d in deltas) == whole.message.reasoning
    calls = [call for delta in deltas for call in delta.calls]
    assert (calls[0].id, calls[0].name) == ("call_1", "add") and "".join(c.arguments for c in calls) == '{"a": 1}'


def test_reasoning_goes_back_unread(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(THOUGHT, SAID, CALLED))
    said = chat.complete(ask()).message
    chat.complete(ChatRequest([Message("user", "1+0?"), said, Message("tool", "1", tool_call_id="call_1")]))
    assert server.bodies()[1]["input"] == [
        {"role": "user", "content": "1+0?"},
        THOUGHT,
        SAID,
        CALLED,
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
    ]


@pytest.mark.parametrize(
    ("more", "finish", "refused"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length", False),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter", True),
        ({"output": [{**SAID, "content": [{"type": "refusal", "refusal": "No."}]}]}, "content_filter", True),
    ],
)
def test_how_it_ends(server: Loopback, chat: RemoteChat, more: dict[str, Any], finish: str, refused: bool) -> None:
    server.answer(reply(SAID, **more))
    response = chat.complete(ask())
    assert (response.finish_reason, response.refused) == (finish, refused) and response.message.text


FORMAT = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
REQUESTS: list[tuple[ChatRequest, dict[str, Any]]] = [
    (ask(), {}),
    (ask(max_tokens=50, temperature=0.5, top_p=0.9), {"max_output_tokens": 50, "temperature": 0.5, "top_p": 0.9}),
    (ask(schema=SCHEMA, extra={"text": {"verbosity": "low"}}), {"text": {"verbosity": "low", **FORMAT}}),
    (ask(logprobs=2), {"top_logprobs": 2, "include": [SEALED, "message.output_text.logprobs"]}),
    (ask(extra={"store": True, "reasoning": {"effort": "low"}}), {"store": True, "reasoning": {"effort": "low"}}),
    (
        ask(tools=[ToolSpec("add", "Adds.", SCHEMA, strict=True)], tool_choice="add"),
        {
            "tools": [
                {"type": "function", "name": "add", "parameters": SCHEMA, "description": "Adds.", "strict": True}
            ],
            "tool_choice": {"type": "function", "name": "add"},
        },
    ),
    (
        ChatRequest(
            [
                Message("system", "Be brief."),
                Message(
                    "user",
                    [
                        TextPart("See:"), ImagePart(data=b"\x89PNG"), FilePart(data=b"%PDF", name="c.pdf"),
                        FilePart(url="https://a.example/d.pdf"),
                    ],
                ),
                Message("assistant", "", [ToolCall("c1", "add", "{}")]),
            ]
        ),
        {
            "input": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "See:"},
                        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
                        {
                            "type": "input_file", "filename": "c.pdf",
                            "file_data": "data:application/pdf;base64,JVBERg==",
                        },
                        {"type": "input_file", "file_url": "https://a.example/d.pdf"},
                    ],
                },
                {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            ]
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "arguments"), REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_our_requests_are_the_official_sdks(
    server: Loopback, chat: RemoteChat, request_: ChatRequest, arguments: dict[str, Any], stream: bool
) -> None:
    server.answer(streamed() if stream else reply(SAID))
    list(chat.stream(request_)) if stream else chat.complete(request_)
    wanted: dict[str, Any] = {"input": [{"role": "user", "content": "Hi"}], "store": False, "include": [SEALED]}
    with openai.OpenAI(base_url=server.url, api_key=KEY) as client:
        made: Any = client.responses.create(model="m", **(wanted | arguments), **({"stream": True} if stream else {}))
        if stream:
            list(made)
    ours, theirs = server.requests
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    assert ours[1]["authorization"] == theirs[1]["authorization"]


def test_what_goes_wrong(server: Loopback, chat: RemoteChat) -> None:
    with pytest.raises(Unsupported, match="no parameter 'stop'"):
        chat.complete(ask(stop=["x"]))
    server.answer(streamed(whole=False))
    with pytest.raises(ProviderError, match="before the answer was finished"):
        list(chat.stream(ask()))
    failed = {"type": "response.failed", "response": answer(error={"code": "server_error", "message": "out of order"})}
    for event in (failed, {"type": "error", "message": "out of order", "code": None}):
        text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
        server.answer((200, {"content-type": "text/event-stream"}, text.encode()))
        with pytest.raises(ProviderError, match="out of order"):
            list(chat.stream(ask()))
    server.answer(reply(error={"code": "server_error", "message": "broken"}))
    with pytest.raises(ProviderError, match="broken"):
        chat.complete(ask())

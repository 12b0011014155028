"""Our requests to Bedrock are botocore's, signature included, and its answers are read whole, streamed or not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from tests.apply.every_provider import message, told
from tests.apply.provider_world import Loopback, ask

from windlass.apply.providers import known
from windlass.apply.providers.dialects.bedrock import Bedrock
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.sigv4 import SigV4
from windlass.core.errors import ConfigError, ProviderError, Unsupported
from windlass.core.values import (
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolSpec,
    Usage,
)

MODEL = "eu.maker.model-v1:0"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "AWS_SESSION_TOKEN": "token=="}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
BLOCKS: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig=="}}},
    {"reasoningContent": {"redactedContent": "AAEC"}},
    {"text": "Hello!"},
    {"toolUse": {"toolUseId": "t1", "name": "add", "input": {"a": 1}}},
]
COUNTS = {
    "inputTokens": 12, "outputTokens": 9, "cacheReadInputTokens": 8, "cacheWriteInputTokens": 3, "totalTokens": 32,
}  # fmt: skip


def reply(finish: str = "tool_use") -> tuple[int, dict[str, str], bytes]:
    output = {"message": {"role": "assistant", "content": BLOCKS}}
    value = {"output": output, "stopReason": finish, "usage": COUNTS, "metrics": {"latencyMs": 5}}
    return 200, {}, json.dumps(value).encode()


def streamed(*, whole: bool = True) -> tuple[int, dict[str, str], bytes]:
    deltas: list[tuple[int, dict[str, Any]]] = [
        (0, {"reasoningContent": {"text": "H"}}),
        (0, {"reasoningContent": {"text": "m."}}),
        (0, {"reasoningContent": {"signature": "sig=="}}),
        (1, {"reasoningContent": {"redactedContent": "AAEC"}}),
        (2, {"text": "Hel"}),
        (2, {"text": "lo!"}),
        (3, {"toolUse": {"input": '{"a"'}}),
        (3, {"toolUse": {"input": ": 1}"}}),
    ]
    start = {"start": {"toolUse": {"toolUseId": "t1", "name": "add"}}, "contentBlockIndex": 3}
    pieces = [{"contentBlockDelta": {"delta": delta, "contentBlockIndex": at, "p": "abcd"}} for at, delta in deltas]
    events: list[dict[str, Any]] = [{"messageStart": {"role": "assistant"}}, *pieces[:6]]
    events += [{"contentBlockStart": start}, *pieces[6:], {"contentBlockStop": {"contentBlockIndex": 3}}]
    if whole:
        events += [{"messageStop": {"stopReason": "tool_use"}}]
        events += [{"metadata": {"usage": COUNTS, "metrics": {"latencyMs": 5}}}]
    kind, content = told(*events)
    return 200, {"content-type": kind}, content


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def chat(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteChat]:
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    for name, value in {**KEYS, "AWS_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    made = known.model(f"bedrock:{MODEL}", base_url=server.url.removesuffix("/v1"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def makers() -> botocore.session.Session:
    return botocore.session.get_session()


def client(session: botocore.session.Session, server: Loopback) -> Any:
    return session.create_client(
        "bedrock-runtime", region_name="eu-central-1", endpoint_url=server.url.removesuffix("/v1"),
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=KEYS["AWS_SESSION_TOKEN"], config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def test_an_answer(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply())
    response = chat.complete(ask())
    assert response.message.text == "Hello!" and response.message.reasoning == "Hm."
    assert response.message.tool_calls == (ToolCall("t1", "add", '{"a": 1}'),)
    assert response.finish_reason == "tool_calls" and response.model == MODEL and response.id
    assert response.usage == Usage(input=12, cache_read=8, cache_write=3, output=9) and response.cost_usd is None


def test_a_stream_is_the_same_answer(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(), streamed())
    whole = chat.complete(ask())
    *deltas, last = chat.stream(ask())
    assert last.response is not None
    assert last.response.message == whole.message and last.response.usage == whole.usage
    assert last.response.finish_reason == whole.finish_reason
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
    _, said, answered = server.bodies()[-1]["messages"]
    assert said == {"role": "assistant", "content": BLOCKS}
    assert answered["content"] == [{"toolResult": {"toolUseId": "t1", "content": [{"text": "1"}]}}]


@pytest.mark.parametrize(
    ("stop", "finish", "refused"),
    [
        ("end_turn", "stop", False), ("stop_sequence", "stop", False), ("max_tokens", "length", False),
        ("model_context_window_exceeded", "length", False), ("guardrail_intervened", "content_filter", True),
        ("content_filtered", "content_filter", True), ("something_new", "stop", False),
    ],
)  # fmt: skip
def test_why_it_stopped(server: Loopback, chat: RemoteChat, stop: str, finish: str, refused: bool) -> None:
    server.answer(reply(stop))
    response = chat.complete(ask())
    assert (response.finish_reason, response.refused) == (finish, refused)


def test_a_malformed_call_is_no_answer(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply("malformed_tool_use"))
    with pytest.raises(ProviderError, match="malformed_tool_use"):
        chat.complete(ask())


def test_a_call_that_was_cut_off_is_withdrawn(server: Loopback, chat: RemoteChat) -> None:
    start = {"start": {"toolUse": {"toolUseId": "t1", "name": "add"}}, "contentBlockIndex": 1}
    events: list[dict[str, Any]] = [{"contentBlockDelta": {"delta": {"text": "See:"}, "contentBlockIndex": 0}}]
    events += [{"contentBlockStart": start}]
    events += [{"contentBlockDelta": {"delta": {"toolUse": {"input": '{"a'}}, "contentBlockIndex": 1}}]
    kind, content = told(*events, {"messageStop": {"stopReason": "max_tokens"}})
    server.answer((200, {"content-type": kind}, content))
    *_, last = chat.stream(ask())
    assert last.response is not None and last.response.finish_reason == "length"
    assert last.response.message.tool_calls == () and last.response.message.text == "See:"
    kind, content = told(*events, {"messageStop": {"stopReason": "tool_use"}})
    server.answer((200, {"content-type": kind}, content))
    with pytest.raises(ProviderError, match="without a usable answer"):
        list(chat.stream(ask()))


def test_malformed_arguments_go_back_as_their_text() -> None:
    said = Message("assistant", "", [ToolCall("t1", "add", '{"a'), ToolCall("t2", "add", "[1]")])
    blocks = Bedrock(MODEL).body(ChatRequest([said]))["messages"][0]["content"]
    assert [block["toolUse"]["input"] for block in blocks] == [{"arguments": '{"a'}, {"arguments": "[1]"}]


def user(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


REQUESTS: list[tuple[ChatRequest, dict[str, Any]]] = [
    (ask("Grüße"), {"messages": user({"text": "Grüße"})}),
    (
        ask(temperature=0.5, top_p=0.9, max_tokens=50, stop=["END"]),
        {"inferenceConfig": {"temperature": 0.5, "topP": 0.9, "maxTokens": 50, "stopSequences": ["END"]}},
    ),
    (
        ask(extra={"additionalModelRequestFields": {"top_k": 5}, "serviceTier": {"type": "flex"}}),
        {"additionalModelRequestFields": {"top_k": 5}, "serviceTier": {"type": "flex"}},
    ),
    (
        ask(tools=[ToolSpec("add", "Adds.", SCHEMA, strict=True), ToolSpec("now")], tool_choice="add"),
        {
            "toolConfig": {
                "tools": [
                    {
                        "toolSpec": {
                            "name": "add", "description": "Adds.", "inputSchema": {"json": SCHEMA}, "strict": True,
                        }
                    },
                    {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
                ],
                "toolChoice": {"tool": {"name": "add"}},
            }
        },
    ),
    (
        ask(tools=[ToolSpec("add", parameters=SCHEMA)], tool_choice="required"),
        {
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "add", "inputSchema": {"json": SCHEMA}}}], "toolChoice": {"any": {}},
            }
        },
    ),
    (
        ChatRequest([Message("system", "Be brief."), Message("developer", "Be kind."), Message("user", "Hi")]),
        {"system": [{"text": "Be brief."}, {"text": "Be kind."}]},
    ),
    (
        ChatRequest(
            [
                Message(
                    "user",
                    [
                        TextPart("See:"), ImagePart(data=b"\x89PNG"), ImagePart(url="s3://bucket/a.png"),
                        FilePart(data=b"%PDF", name="the  bill_3.pdf"), AudioPart(b"RIFF"),
                    ],
                )
            ]
        ),
        {
            "messages": user(
                {"text": "See:"},
                {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}},
                {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}},
                {"document": {"format": "pdf", "name": "the-bill-3", "source": {"bytes": b"%PDF"}}},
                {"audio": {"format": "wav", "source": {"bytes": b"RIFF"}}},
            )
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
                *user({"text": "1+1 and 2+2?"}),
                {
                    "role": "assistant",
                    "content": [
                        {"text": "Let me see."},
                        {"toolUse": {"toolUseId": "t1", "name": "add", "input": {"a": 1}}},
                        {"toolUse": {"toolUseId": "t2", "name": "add", "input": {}}},
                    ],
                },
                *user(
                    {"toolResult": {"toolUseId": "t1", "content": [{"text": "2"}]}},
                    {"toolResult": {"toolUseId": "t2", "content": [{"text": "4"}]}},
                    {"text": "Well?"},
                ),
            ]
        },
    ),
]  # fmt: skip


def test_our_requests_are_botocores(server: Loopback, chat: RemoteChat, makers: botocore.session.Session) -> None:
    theirs = client(makers, server)
    for stream in (False, True):
        server.answer(streamed() if stream else reply())
        for request, arguments in REQUESTS:
            server.requests.clear()
            wanted = {"messages": user({"text": "Hi"})} | arguments
            if stream:
                list(chat.stream(request))
                list(theirs.converse_stream(modelId=MODEL, **wanted)["stream"])
            else:
                chat.complete(request)
                theirs.converse(modelId=MODEL, **wanted)
            ours, botocores = server.requests
            assert ours[0] == botocores[0] and ours[2] == botocores[2]
            assert ours[1]["content-type"] == botocores[1]["content-type"]
            assert ours[1]["x-amz-security-token"] == botocores[1]["x-amz-security-token"]


def test_our_signature_is_that_of_botocores_own_request(
    server: Loopback, chat: RemoteChat, makers: botocore.session.Session
) -> None:
    sent: list[Any] = []
    theirs = client(makers, server)
    theirs.meta.events.register("before-send.bedrock-runtime.Converse", lambda request, **_: sent.append(request))
    server.answer(reply())
    theirs.converse(modelId=MODEL, messages=user({"text": "Hi"}))
    (request,) = sent
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    now = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    made = SigV4("bedrock", "eu-central-1", now=lambda: now).headers("POST", request.url, request.body)
    assert made["Authorization"] == headers["authorization"]
    # What arrives is what was signed: path and host are not changed on the way.
    chat.complete(ask())
    path, arrived, body = server.requests[-1]
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    now = datetime.strptime(arrived["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    again = SigV4("bedrock", "eu-central-1", now=lambda: now).headers(
        "POST", f"http://{arrived['host']}{path}", content
    )
    assert again["Authorization"] == arrived["authorization"]


def test_botocore_reads_the_streams_of_these_tests(server: Loopback, makers: botocore.session.Session) -> None:
    """The encoder of the tests is right, so that what we read of it is."""
    server.answer(streamed())
    events = list(client(makers, server).converse_stream(modelId=MODEL, messages=user({"text": "Hi"}))["stream"])
    redacted = base64.b64decode("AAEC")
    assert events[4]["contentBlockDelta"]["delta"] == {"reasoningContent": {"redactedContent": redacted}}
    assert events[-1]["metadata"]["usage"] == COUNTS


def test_a_schema_where_the_model_can(server: Loopback, chat: RemoteChat, makers: botocore.session.Session) -> None:
    with pytest.raises(Unsupported, match="no parameter 'schema'"):
        chat.complete(ask(schema=SCHEMA))
    assert chat.structured == "tool"
    able = RemoteChat(chat.endpoint, Bedrock(MODEL, schema=True))
    assert able.structured == "schema"
    server.answer(reply())
    able.complete(ask(schema=SCHEMA, extra={"outputConfig": {"effort": "low"}}))
    structure = {"jsonSchema": {"schema": json.dumps(SCHEMA), "name": "answer"}}
    config = {"effort": "low", "textFormat": {"type": "json_schema", "structure": structure}}
    client(makers, server).converse(modelId=MODEL, messages=user({"text": "Hi"}), outputConfig=config)
    ours, theirs = server.bodies()
    assert ours == theirs


def test_what_the_api_cannot_say_is_refused(server: Loopback, chat: RemoteChat) -> None:
    def shown(part: ImagePart | FilePart) -> ChatRequest:
        return ChatRequest([Message("user", [part])])

    for request, why in (
        (ask(seed=3), "no parameter 'seed'"),
        (ask(logprobs=1), "no parameter 'logprobs'"),
        (ask(tools=[ToolSpec("now")], tool_choice="none"), "call no tool"),
        (ChatRequest([Message("user", "Hi"), Message("system", "late")]), "at the beginning only"),
        (shown(ImagePart(url="https://a.example/b.png")), "s3:// addresses only"),
        (shown(ImagePart(data=b"BM", media_type="image/bmp")), "no images of type image/bmp"),
        (shown(FilePart(data=b"{}", media_type="application/json")), "no files of type application/json"),
    ):
        with pytest.raises(Unsupported, match=why):
            chat.complete(request)
    assert server.requests == []


def test_failures_in_and_before_the_stream(server: Loopback, chat: RemoteChat) -> None:
    begun = message(b'{"role":"assistant"}', event_type="messageStart", message_type="event")
    broken = message(b'{"message":"Too fast"}', exception_type="throttlingException", message_type="exception")
    kind = {"content-type": "application/vnd.amazon.eventstream"}
    server.answer((200, kind, begun + broken))
    with pytest.raises(ProviderError, match="throttlingException: Too fast"):
        list(chat.stream(ask()))
    server.answer((200, kind, begun + broken[:-1] + b"\x00"))
    with pytest.raises(ProviderError, match="checksum"):
        list(chat.stream(ask()))
    why = f"The security token {KEYS['AWS_SESSION_TOKEN']} is invalid."
    server.answer((403, {}, json.dumps({"message": why}).encode()))
    with pytest.raises(ProviderError, match=r"security token \[key\] is invalid") as caught:
        chat.complete(ask())
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(caught.value)


def test_regions_and_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK", *KEYS):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AWS_REGION is not set"):
        known.model(f"bedrock:{MODEL}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID is not set"):
        known.model(f"bedrock:{MODEL}")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer")
    made = known.model(f"bedrock:{MODEL}").endpoint
    assert made.base_url == "https://bedrock-runtime.us-west-2.amazonaws.com"
    assert made.auth.headers("POST", "", b"") == {"Authorization": "Bearer bearer"}

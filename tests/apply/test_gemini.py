"""Our requests to the Gemini API are the official SDK's, and its answers are read whole, streamed or not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from tests.apply.provider_world import KEY, Loopback, ask

from windlass.apply.providers import known
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import (
    AudioPart,
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

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of its own dependencies
    genai = pytest.importorskip("google.genai")

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
CALL = {"functionCall": {"name": "add", "args": {"a": 1}}, "thoughtSignature": "c2ln"}
PARTS = [{"text": "Hm.", "thought": True}, {"text": "Hel"}, {"text": "lo!"}, CALL]
COUNTS = {
    "promptTokenCount": 30, "cachedContentTokenCount": 8, "candidatesTokenCount": 5, "thoughtsTokenCount": 4,
    "totalTokenCount": 39,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}, {"modality": "IMAGE", "tokenCount": 10}],
}  # fmt: skip


def answer(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate], "usageMetadata": COUNTS, "modelVersion": "g-2026", "responseId": "r1",
    } | more  # fmt: skip


def reply(*parts: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps(answer(*parts, **more)).encode()


def streamed(finish: str | None = "STOP") -> tuple[int, dict[str, str], bytes]:
    events = [answer(part, finish=None) for part in PARTS[:-1]] + [answer(PARTS[-1], finish=finish)]
    text = "".join(f"data: {json.dumps(event)}\r\n\r\n" for event in events)
    return 200, {"content-type": "text/event-stream"}, text.encode()


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def chat(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteChat]:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    made = known.model("gemini:g", base_url=f"{server.url}beta")
    yield made
    made.close()


def test_an_answer_streamed_or_not(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(*PARTS), streamed())
    whole = chat.complete(ask())
    assert whole.message.text == "Hello!" and whole.message.reasoning == "Hm."
    assert whole.message.tool_calls == (ToolCall("call-0", "add", '{"a": 1}'),) and whole.finish_reason == "tool_calls"
    assert whole.usage == Usage(input=12, cache_read=8, output=5, reasoning=4, input_image=10)
    assert whole.usage.total == COUNTS["totalTokenCount"] and whole.model == "g-2026"
    *deltas, last = chat.stream(ask())
    assert last.response == whole and "".join(d.text for d in deltas) == "Hello!"
    server.answer(streamed(finish=None))
    with pytest.raises(ProviderError, match="before the answer was finished"):
        list(chat.stream(ask()))


def test_signed_thoughts_go_back_and_results_are_named(server: Loopback, chat: RemoteChat) -> None:
    server.answer(reply(*PARTS))
    said = chat.complete(ask()).message
    chat.complete(ChatRequest([Message("user", "1+0?"), said, Message("tool", "1", tool_call_id="call-0")]))
    _, model, result = server.bodies()[1]["contents"]
    assert model == {"role": "model", "parts": PARTS}
    assert result == {"role": "user", "parts": [{"functionResponse": {"name": "add", "response": {"output": "1"}}}]}


@pytest.mark.parametrize("more", [{"finish": "SAFETY"}, {"candidates": [], "promptFeedback": {"blockReason": "OTHER"}}])
def test_what_is_withheld_is_a_refusal(server: Loopback, chat: RemoteChat, more: dict[str, Any]) -> None:
    server.answer(reply(**more))
    response = chat.complete(ask())
    assert response.refused and response.finish_reason == "content_filter" and response.message.text == ""


def test_logprobs(server: Loopback, chat: RemoteChat) -> None:
    one = {"token": "Hi", "logProbability": -0.5, "tokenId": 3}
    value = answer({"text": "Hi"})
    value["candidates"][0]["logprobsResult"] = {"chosenCandidates": [one], "topCandidates": [{"candidates": [one]}]}
    server.answer((200, {}, json.dumps(value).encode()))
    plain = TokenLogprob("Hi", -0.5, 3)
    assert chat.complete(ask(logprobs=1)).logprobs == (TokenLogprob("Hi", -0.5, 3, top=(plain,)),)


REQUESTS: list[tuple[ChatRequest, Any, dict[str, Any]]] = [
    (ask(), "Hi", {}),
    (
        ask(max_tokens=50, temperature=0.5, top_p=0.9, stop=["END"], seed=7, logprobs=2, extra={"topK": 3}),
        "Hi",
        {
            "max_output_tokens": 50, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"], "seed": 7,
            "response_logprobs": True, "logprobs": 2, "top_k": 3,
        },
    ),
    (ask(schema=SCHEMA), "Hi", {"response_mime_type": "application/json", "response_json_schema": SCHEMA}),
    (
        ask(
            tools=[ToolSpec("add", "Adds.", SCHEMA)], tool_choice="add",
            extra={"thinkingConfig": {"thinkingBudget": 0}},
        ),
        "Hi",
        {
            "tools": [
                {"function_declarations": [{"name": "add", "description": "Adds.", "parameters_json_schema": SCHEMA}]}
            ],
            "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["add"]}},
            "thinking_config": {"thinking_budget": 0},
        },
    ),
    (ChatRequest([Message("system", "Be brief."), Message("user", "Hi")]), "Hi", {"system_instruction": "Be brief."}),
    (
        ChatRequest(
            [
                Message(
                    "user",
                    [
                        TextPart("See:"), ImagePart(data=b"\x89PNG"), AudioPart(b"RIFF"),
                        FilePart(url="https://a.example/d.pdf"),
                    ],
                ),
                Message("assistant", "Well.", [ToolCall("c1", "add", '{"a": 1}')]),
                Message("tool", "2", tool_call_id="c1"),
                Message("user", "And?"),
            ]
        ),
        [
            {
                "role": "user",
                "parts": [
                    {"text": "See:"},
                    {"inline_data": {"data": b"\x89PNG", "mime_type": "image/png"}},
                    {"inline_data": {"data": b"RIFF", "mime_type": "audio/wav"}},
                    {"file_data": {"file_uri": "https://a.example/d.pdf", "mime_type": "application/pdf"}},
                ],
            },
            {
                "role": "model",
                "parts": [{"text": "Well."}, {"function_call": {"id": "c1", "name": "add", "args": {"a": 1}}}],
            },
            {
                "role": "user",
                "parts": [
                    {"function_response": {"id": "c1", "name": "add", "response": {"output": "2"}}},
                    {"text": "And?"},
                ],
            },
        ],
        {},
    ),
]  # fmt: skip


def camel(value: Any) -> Any:
    """The API takes each name in both spellings, and the SDK mixes them; ours are the documented ones."""
    spelt = {"mime_type": "mimeType", "file_uri": "fileUri", "parameters_json_schema": "parametersJsonSchema"}
    spelt["thinking_budget"] = "thinkingBudget"
    if isinstance(value, dict):
        return {spelt.get(key, key): camel(one) for key, one in value.items()}
    return [camel(one) for one in value] if isinstance(value, list) else value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("request_", "contents", "config"), REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_our_requests_are_the_official_sdks(
    server: Loopback, chat: RemoteChat, request_: ChatRequest, contents: Any, config: dict[str, Any], stream: bool
) -> None:
    server.answer(streamed() if stream else reply(*PARTS[:3]))
    list(chat.stream(request_)) if stream else chat.complete(request_)
    options = genai.types.HttpOptions(base_url=server.url.removesuffix("/v1"), api_version="v1beta")
    client = genai.Client(api_key=KEY, http_options=options)
    if not isinstance(contents, str):
        contents = [genai.types.Content.model_validate(content) for content in contents]
    settings = genai.types.GenerateContentConfig.model_validate(config) if config else None
    if stream:
        list(client.models.generate_content_stream(model="g", contents=contents, config=settings))
    else:
        client.models.generate_content(model="g", contents=contents, config=settings)
    ours, theirs = server.requests
    if not theirs[2].get("generationConfig", True):
        del theirs[2]["generationConfig"]  # it sends an empty one at times
    assert ours[0] == theirs[0] and ours[2] == camel(theirs[2])
    assert ours[1]["x-goog-api-key"] == theirs[1]["x-goog-api-key"] == KEY


def test_what_goes_wrong(server: Loopback, chat: RemoteChat) -> None:
    with pytest.raises(Unsupported, match="no parameter 'top_k'"):
        chat.complete(ask(extra={"top_k": 3}))
    with pytest.raises(Unsupported, match="at the beginning only"):
        chat.complete(ChatRequest([Message("user", "Hi"), Message("system", "late")]))
    server.answer(reply(finish="MALFORMED_FUNCTION_CALL"))
    with pytest.raises(ProviderError, match="MALFORMED_FUNCTION_CALL"):
        chat.complete(ask())
    server.answer((400, {}, b'[{"error": {"code": 400, "message": "bad schema", "status": "INVALID_ARGUMENT"}}]'))
    with pytest.raises(ProviderError, match="bad schema"):
        chat.complete(ask())

"""In every dialect what is asked is sent, or refused before anything is sent; and nothing else is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import httpx2
import pytest
from tests.apply.every_provider import KEYS, SPOKEN, Spoken
from tests.apply.provider_world import ask

from windlass.apply.providers.dialects.dialect import fitted
from windlass.apply.tasks import Example, task
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import (
    AudioPart,
    ChatRequest,
    ChatResponse,
    FilePart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
    ToolSpec,
)
from windlass.testing import Scripted

SCHEMA = {
    "type": "object", "properties": {"mark-field": {"type": "string"}}, "required": ["mark-field"],
    "additionalProperties": False,
}  # fmt: skip
TOOL = ToolSpec("mark-tool", "mark-words", SCHEMA)
PNG = b"mark-of-a-picture"


def said(*content: str | Part, role: Any = "user") -> ChatRequest:
    parts = [TextPart(part) if isinstance(part, str) else part for part in content]
    last = [] if role == "user" else [Message("user", "Go on.")]
    return ChatRequest([Message(role, parts), *last])


CALLED = [
    Message("user", "Look."), Message("assistant", "mark-said", [ToolCall("markcall1", "mark-tool", '{"mark-in": 1}')])
]  # fmt: skip

ASKED: dict[str, tuple[ChatRequest, tuple[Any, ...]]] = {
    "temperature": (ask(temperature=0.123), (0.123,)),
    "top_p": (ask(top_p=0.456), (0.456,)),
    "max_tokens": (ask(max_tokens=789), (789,)),
    "stop": (ask(stop=["mark-stop", "mark-end"]), ("mark-stop", "mark-end")),
    "seed": (ask(seed=987654), (987654,)),
    "logprobs": (ask(logprobs=7), (7,)),
    "schema": (ask(schema=SCHEMA), ("mark-field",)),
    "tools": (ask(tools=[TOOL]), ("mark-tool", "mark-words", "mark-field")),
    "tool_choice of one": (ask(tools=[TOOL, ToolSpec("other")], tool_choice="other"), ("other", "mark-tool")),
    "tool_choice none": (ask(tools=[TOOL], tool_choice="none"), ("none|NONE",)),
    "tool_choice required": (ask(tools=[TOOL], tool_choice="required"), ("required|any|ANY",)),
    "strict tools": (ask(tools=[ToolSpec("mark-tool", "", SCHEMA, strict=True)]), ("strict",)),
    "an unknown parameter": (ask(extra={"mark_unknown": 1}), ("mark_unknown",)),
    "system": (ChatRequest([Message("system", "mark-rules"), Message("user", "mark-q")]), ("mark-rules", "mark-q")),
    "two systems": (
        ChatRequest([Message("system", "mark-a"), Message("developer", "mark-b"), Message("user", "q")]),
        ("mark-a", "mark-b"),
    ),
    "a late system": (ChatRequest([Message("user", "q"), Message("system", "mark-late")]), ("mark-late",)),
    "several parts": (said("mark-one", "mark-two"), ("mark-one", "mark-two")),
    "an image": (said("q", ImagePart(data=PNG)), (PNG, "png")),
    "an image elsewhere": (said("q", ImagePart(url="https://h.example/mark.png")), ("https://h.example/mark.png",)),
    "a sound": (said("q", AudioPart(PNG, "audio/mpeg")), (PNG,)),
    "a file": (said("q", FilePart(data=PNG, name="mark-name.pdf")), (PNG,)),
    "a file elsewhere": (said("q", FilePart(url="https://h.example/mark.pdf")), ("https://h.example/mark.pdf",)),
    "an image of the system": (said("rules", ImagePart(data=PNG), role="system"), (PNG,)),
    "a name": (ChatRequest([Message("user", "q", name="mark-ana")]), ("mark-ana",)),
    "a call and its result": (
        ChatRequest([*CALLED, Message("tool", "mark-found", tool_call_id="markcall1")], tools=[TOOL]),
        ("mark-said", "markcall1|mark-tool", "mark-tool", "mark-in", "mark-found"),
    ),
    "a result with an image": (
        ChatRequest([*CALLED, Message("tool", [TextPart("x"), ImagePart(data=PNG)], tool_call_id="markcall1")]),
        (PNG,),
    ),
}


def leaves(value: Any) -> Iterator[Any]:
    """Keys and values; JSON within texts opened."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    else:
        yield value
        if isinstance(value, str) and value.startswith("{"):
            yield from leaves(json.loads(value))


def stands(mark: Any, body: Any) -> bool:
    found = [*leaves(body)]
    if isinstance(mark, bytes):
        text = base64.b64encode(mark).decode()
        return any(isinstance(one, str) and text in one for one in found)
    if isinstance(mark, str):
        return any(isinstance(one, str) and part in one for one in found for part in mark.split("|"))
    return mark in found


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("dialect", SPOKEN)
def test_what_is_asked_is_sent_or_refused(dialect: str, asked: str) -> None:
    request, marks = ASKED[asked]
    spoken = SPOKEN[dialect].dialect("m")
    for stream in (False, True):
        try:
            body = spoken.call(fitted(request, spoken), stream=stream).body
        except Unsupported as refused:
            assert refused.message and refused.hint
            return
        missing = [mark for mark in marks if not stands(mark, body)]
        assert not missing, body


@pytest.mark.parametrize("dialect", SPOKEN)
def test_every_parameter_of_its_own_is_passed_on(dialect: str) -> None:
    spoken = SPOKEN[dialect].dialect("m")
    assert spoken.extra
    for name in spoken.extra:
        value: Any = {"mark": 1} if name in ("output_config", "outputConfig", "text") else ["mark"]
        body = spoken.call(fitted(ask(extra={name: value}), spoken), stream=False).body
        assert stands("mark", body) and name in {*leaves(body)}, name


@task(temperature=0.5)
def kind(animal: str, seen: int = 3) -> Literal["cat", "dog"]:
    """Say which animal that is, and nothing that nobody asked for."""
    raise NotImplementedError


SHOWN = [Example({"animal": "It miaows at night.", "seen": 1}, "cat")]


def wire(spoken: Spoken, request: ChatRequest) -> dict[str, Any]:
    dialect = spoken.dialect("m")
    body = dialect.call(
        fitted(request, dialect, "warn" if "temperature" not in dialect.knows else "error"), stream=False
    ).body
    assert body is not None
    return dict(body)


def asked_of(spoken: Spoken, animal: str) -> ChatRequest:
    mode: Any = "schema" if "schema" in spoken.dialect("m").knows else "tool"
    return kind.using(examples=SHOWN, mode=mode).request(Scripted(), animal=animal, seen=2)


@pytest.mark.parametrize("dialect", SPOKEN)
@pytest.mark.filterwarnings("ignore:.*has no parameter temperature")
def test_no_word_is_sent_that_the_request_does_not_hold(dialect: str) -> None:
    """Nothing hidden: every text with a space in it was the user's own, or is told by `Task.request`."""
    request = asked_of(SPOKEN[dialect], "It barks at day.")
    own = " ".join(message.text for message in request.messages) + json.dumps(
        [request.schema, *map(str, request.tools)]
    )
    texts = [one for one in leaves(wire(SPOKEN[dialect], request)) if isinstance(one, str) and " " in one]
    assert len(texts) >= 4
    for text in texts:
        assert text in own or (text.startswith("{") and json.loads(text)), text


@pytest.mark.parametrize("dialect", SPOKEN)
@pytest.mark.filterwarnings("ignore:.*has no parameter temperature")
def test_what_is_sent_begins_with_the_same_bytes_each_time(dialect: str) -> None:
    """Or providers find nothing of it in their caches: calls differ from their inputs on, and turns only go on."""
    spoken = SPOKEN[dialect]
    first, again, other = (wire(spoken, asked_of(spoken, text)) for text in ("It barks.", "It barks.", "It purrs."))
    assert json.dumps(first) == json.dumps(again)
    assert json.dumps(first).replace("It barks.", "It purrs.") == json.dumps(other)

    model = Scripted('{"value": "cow"}', '{"value": "pig"}', '{"value": "cat"}')
    assert kind.using(model=model, examples=SHOWN)("It purrs.", seen=2) == "cat"
    turns = [wire(spoken, ChatRequest(request.messages)) for request in model.requests]
    for before, after in pairwise(turns):
        (name,) = [name for name in before if before[name] != after[name]]
        assert after[name][: len(before[name])] == before[name] and len(after[name]) == len(before[name]) + 2


@pytest.mark.parametrize("dialect", SPOKEN)
@pytest.mark.filterwarnings("ignore:.*has no parameter temperature")
def test_an_answer_that_says_nothing_can_be_asked_for_again(dialect: str) -> None:
    """Providers refuse messages without content."""
    nothing = [ChatResponse("i", "m", Message("assistant", text), "stop") for text in ("", " \n")]
    model = Scripted(*nothing, '{"value": "cat"}')
    assert kind.using(model=model)("It purrs.") == "cat"
    for request in model.requests:
        body = wire(SPOKEN[dialect], ChatRequest(request.messages))
        assert all(not isinstance(one, str) or one.strip() for one in leaves(body)) and not stands("cow", body)
        turns = next(body[name] for name in ("messages", "contents", "input") if name in body)
        assert all(turn.get("content") or turn.get("parts") for turn in turns)
    assert "the answer is empty" in model.last.messages[-1].text


def test_signed_thoughts_go_back_when_it_is_asked_again() -> None:
    """Some APIs refuse a call of a tool without the thought that led to it."""
    sealed = ("an API", [{"thought": "hm", "signature": "x"}])
    call = ToolCall("1", "answer", '{"value": "cow"}')
    wrong = ChatResponse("i", "m", Message("assistant", "", [call], sealed=sealed), "tool_calls")
    model = Scripted(wrong, {"value": "cat"}, structured="tool")
    assert kind.using(model=model)("It purrs.") == "cat"
    assert [message.sealed for message in model.last.messages if message.role == "assistant"] == [sealed]


@pytest.mark.parametrize("finish", ["error", "insufficient_system_resource"])
def test_an_answer_that_its_server_could_not_finish_is_none(finish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenRouter and DeepSeek say so where others say "stop"."""
    monkeypatch.setenv("WINDLASS_TEST_KEY", KEYS["WINDLASS_TEST_KEY"])
    spoken = SPOKEN["openai"]
    whole = json.dumps(spoken.answer).replace('"stop"', f'"{finish}"')
    stream = spoken.stream[1].replace(b'"stop"', f'"{finish}"'.encode())
    chat = spoken.chat(httpx2.MockTransport(lambda _: httpx2.Response(200, content=whole)))
    with pytest.raises(ProviderError, match=finish):
        chat.complete(ask())
    answer = httpx2.Response(200, content=stream, headers={"content-type": spoken.stream[0]})
    with pytest.raises(ProviderError, match=finish):
        list(spoken.chat(httpx2.MockTransport(lambda _: answer)).stream(ask()))

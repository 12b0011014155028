"""Chat values as JSON: whatever they hold comes back as it was, and equal questions have equal digests."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.core.plain import asked, digest_of, packed, unpacked
from windlass.core.values import (
    AudioPart,
    ChatRequest,
    ChatResponse,
    Citation,
    FilePart,
    ImagePart,
    Kept,
    Message,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolSpec,
    Usage,
)

TEXT = st.text(max_size=8)  # with lone surrogates, which models of bytes do write
COUNT = st.none() | st.integers(0, 10**12)
NUMBER = st.floats(allow_nan=False)
USAGE = st.builds(Usage, *[COUNT] * 9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("$"), inner, max_size=3),
    max_leaves=6,
)
PART = st.one_of(
    st.builds(TextPart, TEXT),
    st.builds(ImagePart, data=st.binary(max_size=6), media_type=TEXT),
    st.builds(ImagePart, url=TEXT),
    st.builds(AudioPart, st.binary(max_size=6)),
    st.builds(FilePart, data=st.binary(max_size=6), name=TEXT),
)
LOGPROB = st.builds(
    TokenLogprob, TEXT, st.none() | NUMBER, COUNT, st.none() | st.binary(max_size=4),
    st.just(()) | st.tuples(st.builds(TokenLogprob, TEXT, NUMBER)),
)  # fmt: skip
MESSAGE = st.builds(
    Message, st.sampled_from(["assistant", "user"]), TEXT | st.lists(PART, max_size=3) | st.tuples(PART),
    st.just(()) | st.tuples(st.builds(ToolCall, TEXT, TEXT, TEXT)), st.none() | TEXT, st.none() | TEXT, TEXT,
    st.none() | st.tuples(TEXT, JSON),
)  # fmt: skip
RESPONSE = st.builds(
    ChatResponse, TEXT, TEXT, MESSAGE, st.sampled_from(["stop", "length", "tool_calls"]), USAGE, st.none() | NUMBER,
    st.just(()) | st.tuples(st.builds(Citation, TEXT, TEXT, TEXT, st.integers(), st.integers(), TEXT)), st.booleans(),
    st.none() | TEXT, st.lists(LOGPROB, max_size=2), st.just(()), st.booleans(),
    st.none() | st.builds(Kept, USAGE, st.none() | NUMBER, st.none() | NUMBER),
)  # fmt: skip


@settings(max_examples=120)
@given(RESPONSE)
def test_an_answer_comes_back_as_it_was(response: ChatResponse) -> None:
    text = packed(response)
    assert text.isascii() and unpacked(text) == response


def test_what_comes_back_is_shared_with_nobody() -> None:
    sealed = {"thinking": ["signed"]}
    text = packed(ChatResponse("1", "m", Message("assistant", "hi", sealed=("api", sealed)), "stop"))
    first = unpacked(text)
    assert first.message.sealed is not None
    first.message.sealed[1]["thinking"].append("changed")
    again = unpacked(text).message.sealed
    assert again == ("api", sealed) == ("api", {"thinking": ["signed"]})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"$":"Usage"}', '{"$":"Widget"}', '{"$":"ChatResponse"}', '{"$":"bytes"}', "[" * 5000]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no packed answer"):
        unpacked(text)


def test_what_json_cannot_hold_is_refused() -> None:
    odd = ChatResponse("1", "m", Message("assistant", "hi", sealed=("api", object())), "stop")
    with pytest.raises(InputError, match="holds a object"):
        packed(odd)
    with pytest.raises(InputError, match="holds a object"):
        asked(ChatRequest([], extra={"a": object()}))


BASE = ChatRequest([Message("user", "hi")])


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, messages=[Message("user", "ho")]),
        replace(BASE, messages=[Message("system", "hi")]),
        replace(BASE, messages=[*BASE.messages, *BASE.messages]),
        replace(BASE, temperature=0.0),
        replace(BASE, max_tokens=5),
        replace(BASE, stop=["."]),
        replace(BASE, seed=1),
        replace(BASE, extra={"top_k": 1}),
        replace(BASE, tools=[ToolSpec("look")]),
        replace(BASE, tool_choice="none"),
        replace(BASE, schema={"type": "string"}),
        replace(BASE, logprobs=0),
    ],
)
def test_whatever_is_asked_otherwise_is_another_question(other: ChatRequest) -> None:
    assert digest_of(asked(other)) != digest_of(asked(BASE))


def test_the_order_of_properties_is_part_of_the_question() -> None:
    """Models write properties in the order of the schema: reasoning before the answer is not the same as after it."""
    one = replace(BASE, schema={"properties": {"why": {}, "answer": {}}})
    two = replace(BASE, schema={"properties": {"answer": {}, "why": {}}})
    assert digest_of(asked(one)) != digest_of(asked(two))


def test_how_long_may_be_waited_is_no_part_of_it() -> None:
    assert asked(replace(BASE, timeout=5.0, background=True)) == asked(BASE)


def test_media_are_told_by_their_digest() -> None:
    def image(data: bytes) -> str:
        said = asked(ChatRequest([Message("user", [ImagePart(data=data)])]))
        assert len(str(said)) < 300
        return digest_of(said)

    assert image(b"a" * 100_000) != image(b"b" * 100_000)
    assert image(b"a" * 100_000) == image(b"a" * 100_000)

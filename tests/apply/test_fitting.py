"""What cannot fit a model's window fails before it is sent, and says by how much; what nobody knows passes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.wrappers.fitting import Fitting, window_of
from windlass.apply.wrappers.tokens import count, estimated, tokenizer_at
from windlass.core.errors import InputError, TooLong
from windlass.core.protocols import AsyncChatModel, ChatModel, Tokenizing
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
from windlass.core.windows import Window
from windlass.testing import Scripted


class Words(Scripted):
    """A model of 20 tokens whose tokens are words; its template adds one to each message."""

    context = 20

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return [0] * len(text.split())

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        return [0] * sum(1 + len(message.text.split()) for message in messages)

    def decode(self, tokens: Sequence[int]) -> str:
        return ""

    def token_facts(self) -> Mapping[str, Any]:
        return {}


def ask(words: int, **parameters: Any) -> ChatRequest:
    return ChatRequest([Message("user", "word " * words)], **parameters)


def test_a_known_tokenizer_counts_to_the_token() -> None:
    model = Words("yes", "yes")
    assert isinstance(model, Tokenizing)
    fitting = Fitting(model)
    assert isinstance(fitting, ChatModel) and isinstance(fitting, AsyncChatModel)
    assert fitting.complete(ask(18)).message.text == "yes"  # 19 tokens, and room for one of answer
    assert fitting.complete(ask(14, max_tokens=5)).message.text == "yes"
    for request, by in ((ask(19), 1), (ask(30), 12), (ask(15, max_tokens=5), 1)):
        with pytest.raises(TooLong, match=f" {by} tokens too long") as caught:
            fitting.complete(request)
        assert caught.value.by == by
    assert len(model.requests) == 2


def test_every_way_to_ask_is_checked() -> None:
    model = Words()
    fitting = Fitting(Fitting(model))

    async def stream() -> None:
        async for _ in fitting.astream(ask(50)):
            raise AssertionError("sent")

    for call in (
        lambda: fitting.complete(ask(50)),
        lambda: [*fitting.stream(ask(50))],
        lambda: asyncio.run(fitting.acomplete(ask(50))),
        lambda: asyncio.run(stream()),
    ):
        with pytest.raises(TooLong):
            call()
    assert model.requests == []


def test_streams_pass() -> None:
    assert [d.text for d in Fitting(Words("abcdef")).stream(ask(1))] == ["abc", "def", ""]


def test_an_estimate_refuses_only_what_is_far_too_long() -> None:
    model = Scripted("yes")
    fitting = Fitting(model, window=Window(1000))
    request = ChatRequest([Message("user", "x" * 4400)])  # about 1,104 tokens
    assert fitting.complete(request).message.text == "yes"
    with pytest.raises(TooLong, match=r"about 2,004 tokens does not fit 'scripted'.*about 1,005 tokens too long"):
        fitting.complete(ChatRequest([Message("user", "x" * 8000)]))


def test_limits_of_input_and_output_are_their_own() -> None:
    fitting = Fitting(Words("yes"), window=Window(100, input=10, output=50))
    with pytest.raises(TooLong, match="max_tokens=60 is 10 too many"):
        fitting.complete(ask(1, max_tokens=60))
    with pytest.raises(TooLong, match=" 1 tokens too long"):
        fitting.complete(ask(10, max_tokens=5))
    assert fitting.complete(ask(9, max_tokens=50)).message.text == "yes"


def test_the_table_knows_models_by_their_seller() -> None:
    def at(url: str, name: str, **options: Any) -> Window | None:
        return window_of(RemoteChat(Endpoint(url), ChatCompletions(name)), **options)

    known = at("https://api.openai.com/v1", "gpt-4o")
    assert known is not None and known.context == 128_000
    assert at("https://model.example/v1", "gpt-4o") is None
    assert at("https://model.example/v1", "mine", extra={"mine": Window(4096)}) == Window(4096)


def test_an_unknown_window_passes() -> None:
    assert Fitting(Scripted("yes")).complete(ask(1_000_000)).message.text == "yes"


def test_all_that_is_sent_is_counted() -> None:
    plain = count(ChatRequest([Message("user", "hi")])).tokens
    parts = [TextPart("hi"), ImagePart(data=b"x"), AudioPart(b"x" * 16_000), FilePart(data=b"x" * 4000)]
    assert count(ChatRequest([Message("user", parts)])).tokens == plain + 1500 + 33 + 101
    called = Message("assistant", "hi", [ToolCall("1", "look", '{"where": "there"}')])
    assert count(ChatRequest([called])).tokens > plain
    assert count(ChatRequest([Message("user", "hi")], tools=[ToolSpec("look", "Looks.")])).tokens > plain
    assert count(ChatRequest([Message("user", "hi")], schema={"type": "string"})).tokens > plain
    assert count(ask(3), Words()).exact
    assert not count(ChatRequest([Message("user", parts)]), Words()).exact
    assert not count(ChatRequest([Message("user", "hi")], schema={"type": "string"}), Words()).exact


def test_other_scripts_are_not_counted_as_english() -> None:
    assert estimated("") == 0 and estimated("abcd") == 1 and estimated("abcde") == 2
    assert estimated("漢字" * 10) == 20
    assert estimated("Привет") == 3


def test_a_tokenizers_json_counts(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    assert tokenizer_at(path)("word word other") == 3
    assert count(ask(10), None, tokenizer_at(path)).tokens == 14
    with pytest.raises(TooLong):
        Fitting(Scripted(), window=Window(40), tokenizer=path).complete(ask(100))
    with pytest.raises(InputError, match=r"absent\.json"):
        tokenizer_at(tmp_path / "absent.json")

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from constraint_world import TEXT, draw, end_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from windlass.build.tokenizer.training import train
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import Unsupported
from windlass.core.values import ChatRequest, Message, ToolCall, ToolSpec
from windlass.serve.engine.constraints.grammars import Grammars
from windlass.serve.engine.dialect.dialect import Dialect
from windlass.serve.engine.dialect.harmony import Channels
from windlass.serve.engine.dialect.tools import End, Piece, Tools, tools_json
from windlass.serve.engine.prompt import _as_template_sees

TEMPLATE = ChatTemplate(
    "{{ tools }}{{ reasoning_effort }}{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{% endfor %}<|start|>assistant{# <|channel|>commentary to=functions.f #}",
    {},
    where="here",
)
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "name": {"type": "string", "maxLength": 9}},
    "required": ["x", "name"],
    "additionalProperties": False,
}
TOOLS = [ToolSpec("point", "A point", POINT), ToolSpec("clock")]
CALLABLE = Tools(TOOLS).callable
THOUGHT = "<|channel|>analysis<|message|>Let me <b>see</b>.<|end|><|start|>assistant"
CALL = '<|channel|>commentary to=functions.point <|constrain|>json<|message|>{"x": 1, "name": "<|end|>"}'

cuts = st.lists(st.integers(0, 400), max_size=12)


def read(text: str, cuts: list[int]) -> tuple[Piece, End]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    parts = Channels(CALLABLE)
    pieces = [parts.push(text[start:end]) for start, end in itertools.pairwise(places)]
    last, end = parts.finish()
    return sum([*pieces, last], Piece()), end


@settings(max_examples=60, deadline=None)
@given(cuts=cuts, call=st.sampled_from([CALL, " to=functions.point" + CALL.replace(" to=functions.point", "", 1)]))
def test_a_call_behind_reasoning_and_a_word_to_the_user(call: str, cuts: list[int]) -> None:
    said = "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant"
    piece, end = read(THOUGHT + said + call, cuts)
    assert (piece.reasoning, piece.text) == ("Let me <b>see</b>.", "I look it up.")
    (made,) = end.calls
    assert made == ToolCall(made.id, "point", '{"x": 1, "name": "<|end|>"}') and not end.malformed
    assert "".join(delta.arguments for delta in piece.calls) == made.arguments


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=20), cuts=cuts)
def test_content_is_what_stands_in_the_last_channel(text: str, cuts: list[int]) -> None:
    piece, end = read(f"{THOUGHT}<|channel|>final<|message|>{text}", cuts)
    assert piece == Piece("Let me <b>see</b>.", text) and end == End()


WORDS = [
    "<|start|>", "assistant", "<|channel|>", "analysis", "final", "commentary", " to=functions.point", "<|end|>",
    "<|message|>", "<|constrain|>json", '{"x": "', '"}', "{", "}", " ", "to=", "¤", "¤",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=14), cuts=cuts)
def test_marks_in_any_order_break_nothing_and_lose_nothing(words: list[str], cuts: list[int]) -> None:
    text = "".join(words)
    piece, end = read(text, cuts)
    whole, whole_end = read(text, [])
    assert (piece.reasoning, piece.text, end.malformed) == (whole.reasoning, whole.text, whole_end.malformed)
    shown = piece.reasoning + piece.text + "".join(call.arguments for call in end.calls)
    assert shown.count("¤") == text.count("¤")
    if "<|message|>" not in text:
        assert piece == Piece(text=text)


@pytest.mark.parametrize("text", ["hello", "<b>", "to do", "a" * 400, "<|channel|>" + "a" * 400])
def test_what_has_no_header_is_content_at_once(text: str) -> None:
    parts = Channels(CALLABLE)
    assert parts.push(text).text == text or text in ("<b>",)
    assert not parts.finish()[1].malformed


@pytest.mark.parametrize(
    "call",
    [
        CALL[:-1],
        CALL + "!",
        CALL.replace("functions.point", "functions.line"),
        CALL.replace("functions.point", "browser.search"),
        CALL.replace('"x": 1', '"x": NaN'),
        CALL.partition("{")[0] + "[]",
    ],
)
def test_a_broken_call_is_shown_and_said_to_be_malformed(call: str) -> None:
    piece, end = read(THOUGHT + call, [])
    assert end == End((), True)
    assert piece.text == "<|start|>assistant" + call  # as it was written, from behind the reasoning on


# what is written -----------------------------------------------------------------------------------------------------

MARKS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>")
tokenizer = Tokenizer.from_str(train(TEXT, 420, kind="bpe", allow_smaller=True).tokenizer.to_str())
tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])


def answer(seed: int, **asked: Any) -> tuple[str, Piece, End]:
    dialect, eos = Dialect.of(TEMPLATE), end_of(tokenizer)
    request = ChatRequest([Message("user", "hi")], **{k: asked.pop(k) for k in ("tools", "tool_choice") if k in asked})
    asked |= request.beyond_text()
    tools = dialect.tools(request, asked, model="m")
    made = Grammars(tokenizer, [eos], visible=dialect.marks)
    constraint, parts = dialect.answer(
        asked, tools, tokenizer=tokenizer, prompt=[1], ends=frozenset([eos]), grammars=lambda: made
    )
    assert not asked and constraint is not None
    tokens = draw(constraint, tokenizer.get_vocab_size(), eos, seed, longest=300)
    text = dialect.decoder(tokenizer)(tokens)
    pieces = [parts.push(letter) for letter in text]
    last, end = parts.finish()
    return "" if len(tokens) == 300 else text, sum([*pieces, last], Piece()), end


@pytest.mark.parametrize("choice", ["required", "point", "clock"])
def test_forced_calls_satisfy_the_schema_of_their_tool(choice: str) -> None:
    finished = 0
    for seed in range(8):
        text, _, end = answer(seed, tools=TOOLS, tool_choice=choice)
        if text:
            finished += 1
            (call,) = end.calls
            assert choice in ("required", call.name) and not end.malformed
            jsonschema.validate(json.loads(call.arguments), POINT if call.name == "point" else {"maxProperties": 0})
    assert finished > 1  # the others go on thinking


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": POINT},
        {"regex": "[a-c]{3}"},
        {"choice": ["abc", "cab"]},
        {"grammar": 'start: "a" /[bc]/ "b"'},
        {"response_format": POINT, "tools": TOOLS, "tool_choice": "none"},
    ],
    ids=["schema", "regex", "choice", "grammar", "none"],
)
def test_constraints_hold_for_the_final_channel(asked: dict[str, Any]) -> None:
    finished = 0
    for seed in range(8):
        text, piece, end = answer(seed, **asked)
        if text:
            finished += 1
            final = text.rpartition("<|channel|>final<|message|>")[2]
            assert piece.text.endswith(final) and not end.malformed
            if "response_format" in asked:
                jsonschema.validate(json.loads(final), POINT)
            else:
                assert len(final) == 3 and set(final) <= set("abc")
    assert finished > 1


def test_reasoning_and_words_to_the_user_may_stand_before() -> None:
    """Spelt by the marks' own tokens, as the model was trained to."""
    dialect, eos = Dialect.of(TEMPLATE), end_of(tokenizer)
    made = Grammars(tokenizer, [eos], visible=dialect.marks)
    said = "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant"
    for asked, text in (
        ({"response_format": POINT}, '<|channel|>final<|message|>{"x":1,"name":"a"}'),
        ({"tools": TOOLS, "tool_choice": "required"}, CALL.replace(", ", ",").replace('": ', '":')),
        ({"tools": TOOLS}, "<|channel|>final<|message|>Good day."),
    ):
        given = dict(asked)
        request = ChatRequest(
            [Message("user", "hi")], **{k: given.pop(k) for k in ("tools", "tool_choice") if k in given}
        )
        given |= request.beyond_text()
        tools = dialect.tools(request, given, model="m")
        for before in ("", THOUGHT, THOUGHT + THOUGHT + said):
            constraint, _ = dialect.answer(
                dict(given), tools, tokenizer=tokenizer, prompt=[1], ends=frozenset([eos]), grammars=lambda: made
            )
            assert constraint is not None
            for token in tokenizer.encode(before + text, add_special_tokens=False).ids:
                constraint.accept(token)
            constraint.accept(eos)


def test_a_free_choice_is_either_content_or_a_call() -> None:
    ends = [end for text, _, end in (answer(seed, tools=TOOLS) for seed in range(12)) if text]
    assert any(end.calls for end in ends) and not all(end.calls for end in ends)


def published() -> ChatTemplate:
    """gpt-oss' own template, which TRL brings."""
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("TRL is not installed")
    path = Path(found.origin).parent / "chat_templates" / "gptoss.jinja"
    if not path.is_file():
        pytest.skip("this TRL brings no template of gpt-oss")
    return ChatTemplate(path.read_text(encoding="utf-8"), {}, where="gpt-oss")


def test_the_published_template_is_known_and_writes_calls_as_they_are_read() -> None:
    template = published()
    dialect = Dialect.of(template)
    assert dialect.harmony and dialect.switches({"reasoning_effort": "low"}) == {"reasoning_effort": "low"}
    call = ToolCall("c", "point", '{"x": 1, "name": "a"}')
    talk = [
        Message("user", "Where?"),
        Message("assistant", "", (call,), reasoning="I need a point."),
        Message("tool", "there", tool_call_id="c"),
    ]
    turns = [_as_template_sees(message, "messages") for message in talk]
    text = template.render(turns, add_generation_prompt=True, tools=tools_json(TOOLS), reasoning_effort="low")
    assert "Reasoning: low" in text and text.endswith("<|start|>assistant")
    said = text[text.index("<|start|>assistant") :].removesuffix("<|start|>assistant")
    answer, _, result = said.partition("<|call|>")
    assert "functions.point to=assistant" in result and "there" in result
    piece, end = read(answer.removeprefix("<|start|>assistant"), [])
    assert piece.reasoning == "I need a point." and not piece.text and not end.malformed
    (made,) = end.calls
    assert made.name == "point" and json.loads(made.arguments) == json.loads(call.arguments)


def test_the_template_says_that_a_model_speaks_harmony() -> None:
    dialect = Dialect.of(TEMPLATE)
    assert dialect.harmony and dialect.marks == set(MARKS)
    assert dialect.switches({"reasoning_effort": "high"}) == {"reasoning_effort": "high"}
    with pytest.raises(Unsupported, match="reasoning_budget"):
        answer(0, reasoning_budget=5)

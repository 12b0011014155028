from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch
from constraint_world import TEXT, draw, end_of
from tokenizers import AddedToken, Tokenizer

from windlass.build.tokenizer.training import train
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError, Unsupported
from windlass.core.values import ChatRequest, Message, ToolSpec
from windlass.serve.engine.constraints.grammars import Grammars
from windlass.serve.engine.dialect.dialect import Dialect, Parts
from windlass.serve.engine.dialect.json_calls import (
    HERMES,
    KIMI,
    KIMI_ARGUMENTS,
    KIMI_CALL,
    KIMI_CALLS,
    KIMI_CALLS_END,
    KIMI_END,
    MISTRAL,
)
from windlass.serve.engine.dialect.tools import End, Piece

QWEN = ChatTemplate(
    "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
    {},
    where="here",
)
MISTRALISH = ChatTemplate("{{ tools }}[TOOL_CALLS]{{ messages }}", {}, where="here")
PLAIN = ChatTemplate("{{ messages }}", {}, where="here")

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "name": {"type": "string", "maxLength": 3}},
    "required": ["x", "name"],
    "additionalProperties": False,
}
TOOL = ToolSpec("point", "A point", POINT)


def tokenizer_with(*words: str, special: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_str(train(TEXT, 420, kind="bpe", allow_smaller=True).tokenizer.to_str())
    tokenizer.add_tokens([AddedToken(word, special=special, normalized=False) for word in words])
    return tokenizer


KIMI_TEMPLATE = ChatTemplate(
    "{{ tools }}{% for m in messages %}<think>{{ m.reasoning_content }}</think>{{ m.content }}"
    "{% for c in m.tool_calls %}<|tool_calls_section_begin|>{{ c }}{% endfor %}{% endfor %}",
    {},
    where="here",
)
KIMI_TOKENS = tokenizer_with(
    KIMI_CALLS, KIMI_CALL, KIMI_ARGUMENTS, KIMI_END, KIMI_CALLS_END, "<think>", "</think>", special=True
)
MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]")
SEEN, SPECIAL = tokenizer_with(*MARKS, special=False), tokenizer_with(*MARKS, special=True)


def answer(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    seed: int = 0,
    prompt: str = "hello",
    **asked: Any,
) -> tuple[str, Piece, End]:
    """The raw text of a random answer, all of its parts, and how it ends."""
    dialect = Dialect.of(template)
    eos = end_of(tokenizer)
    request = ChatRequest([Message("user", "hi")], **{k: asked.pop(k) for k in ("tools", "tool_choice") if k in asked})
    asked |= request.beyond_text()
    tools = dialect.tools(request, asked, model="m")
    made = Grammars(tokenizer, [eos], visible=dialect.marks)
    constraint, parts = dialect.answer(
        asked,
        tools,
        tokenizer=tokenizer,
        prompt=tokenizer.encode(prompt, add_special_tokens=False).ids,
        ends=frozenset([eos]),
        grammars=lambda: made,
    )
    assert not asked and constraint is not None
    tokens = draw(constraint, tokenizer.get_vocab_size(), eos, seed, longest=200)
    assert len(tokens) < 200
    text = dialect.decoder(tokenizer)(tokens)
    pieces = [parts.push(letter) for letter in text]
    last, end = parts.finish()
    return text, sum([*pieces, last], Piece()), end


@pytest.mark.parametrize("tokenizer", [SEEN, SPECIAL], ids=["seen", "special"])
@pytest.mark.parametrize("template", [QWEN, MISTRALISH], ids=["hermes", "mistral"])
def test_a_tool_is_called_whatever_kind_of_token_its_marks_are(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    for seed in range(5):
        silent = {"reasoning_budget": 0} if template is QWEN else {}
        text, shown, end = answer(template, tokenizer, seed, tools=[TOOL], tool_choice="point", **silent)
        assert shown.text == "", text
        assert [call.name for call in end.calls] == ["point"]
        jsonschema.validate(json.loads(end.calls[0].arguments), POINT)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_kimi_calls_out_of_the_middle_of_its_thoughts(opened: bool, choice: str) -> None:
    """K2 Thinking opens its section itself, K2.5 in the prompt; both sometimes forget to close it."""
    dialect, eos = Dialect.of(KIMI_TEMPLATE), end_of(KIMI_TOKENS)
    assert dialect.calls is KIMI and dialect.tags is not None
    said = '{"x": 1, "name": "a"}'
    call = f"{KIMI_CALLS}{KIMI_CALL}functions.point:0{KIMI_ARGUMENTS}{said}{KIMI_END}{KIMI_CALLS_END}"
    made = Grammars(KIMI_TOKENS, [eos], visible=dialect.marks)
    for before in ("", "Hm, </thi", "Hm.</think>", "Hm.</think>I look."):
        if choice == "required" and before.endswith("look."):
            continue
        asked = ChatRequest([Message("user", "hi")], tools=[TOOL], tool_choice=choice).beyond_text()
        tools = dialect.tools(ChatRequest([], tools=[TOOL], tool_choice=choice), asked, model="m")
        prompt = KIMI_TOKENS.encode("hi<think>" if opened else "hi", add_special_tokens=False).ids
        constraint, parts = dialect.answer(
            asked, tools, tokenizer=KIMI_TOKENS, prompt=prompt, ends=frozenset([eos]), grammars=lambda: made
        )
        assert constraint is not None
        ids = KIMI_TOKENS.encode(("" if opened else "<think>") + before + call, add_special_tokens=False).ids
        for token in ids:
            logits = torch.zeros(KIMI_TOKENS.get_vocab_size())
            constraint.allow(logits)
            assert logits[token] == 0, KIMI_TOKENS.id_to_token(token)
            constraint.accept(token)
        constraint.accept(eos)
        pieces = [parts.push(letter) for letter in dialect.decoder(KIMI_TOKENS)(ids)]
        last, end = parts.finish()
        shown = sum([*pieces, last], Piece())
        assert shown.reasoning == before.partition("</think>")[0] and shown.text == before.partition("</think>")[2]
        assert [(one.name, one.arguments, one.id) for one in end.calls] == [("point", said, "functions.point:0")]


@pytest.mark.parametrize("tokenizer", [SEEN, SPECIAL], ids=["seen", "special"])
def test_an_answer_obeys_its_schema_behind_reasoning_of_a_budget(tokenizer: Tokenizer) -> None:
    for seed in range(5):
        text, shown, _ = answer(QWEN, tokenizer, seed, prompt="hi<think>\n", response_format=POINT, reasoning_budget=7)
        thought, rest_of_text = text.split("</think>")
        assert shown.reasoning == thought.strip()
        assert len(tokenizer.encode(thought, add_special_tokens=False).ids) <= 7 * 4
        assert shown.text == rest_of_text
        jsonschema.validate(json.loads(shown.text), POINT)


def test_reasoning_that_the_prompt_switched_off_is_not_expected() -> None:
    _, shown, _ = answer(QWEN, SEEN, prompt="<think>\n\n</think>\n\n", response_format={"const": 7})
    assert shown == Piece(text="7")


def test_the_template_says_what_a_model_speaks() -> None:
    assert Dialect.of(QWEN).calls is HERMES and Dialect.of(MISTRALISH).calls is MISTRAL
    for template in (PLAIN, None, ChatTemplate("<tool_call>{{ messages }}", {}, where="here")):
        assert Dialect.of(template).calls is None
    assert Dialect.of(QWEN).tags is not None and Dialect.of(MISTRALISH).tags is None
    decode = Dialect.of(MISTRALISH).decoder(SPECIAL)
    ids = [SPECIAL.token_to_id(word) for word in ("[TOOL_CALLS]", "<think>", "a")]
    assert decode(ids) == "[TOOL_CALLS]a"


@pytest.mark.parametrize(
    ("template", "asked", "told"),
    [
        (PLAIN, {"tools": [TOOL]}, "teaches no format"),
        (PLAIN, {"reasoning_budget": 3}, "does not reason"),
        (QWEN, {"regex": "a", "response_format": {}}, "at once: response_format, regex"),
        (QWEN, {"choice": ["a"], "tools": [TOOL]}, "at once: tools, choice"),
        (QWEN, {"tools": [ToolSpec("f", parameters={"if": {}})]}, r"tools\[0\]\.parameters\.if"),
        (QWEN, {"response_format": {"not": {}}}, "response_format.not"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(template: ChatTemplate, asked: dict[str, Any], told: str) -> None:
    with pytest.raises((InputError, Unsupported), match=told):
        answer(template, SEEN, **asked)


def test_tags_that_are_no_tokens_cannot_be_followed_by_a_grammar() -> None:
    tokenizer = train(TEXT, 420, kind="bpe", allow_smaller=True).tokenizer
    with pytest.raises(Unsupported, match="</think>"):
        answer(QWEN, tokenizer, prompt="<think>", response_format=POINT)
    assert answer(QWEN, tokenizer, response_format={"const": 7})[1].text == "7"


def test_switches_go_to_templates_that_know_them() -> None:
    dialect = Dialect.of(QWEN)
    asked: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}
    assert dialect.switches(asked) == {"enable_thinking": True} and not asked
    assert dialect.switches({"reasoning_effort": "none"}) == {"enable_thinking": False}
    for name, asked in (
        ("reasoning_effort", {"reasoning_effort": "high"}),
        ("shout", {"chat_template_kwargs": {"shout": 1}}),
        ("messages", {"chat_template_kwargs": {"messages": []}}),
    ):
        with pytest.raises(Unsupported, match=f"'{name}'"):
            dialect.switches(asked)


def test_an_answer_without_calls_or_reasoning_is_content() -> None:
    parts = Parts()
    assert parts.push("<think>") == Piece(text="<think>") and not parts.thinking
    assert parts.finish() == (Piece(), End())

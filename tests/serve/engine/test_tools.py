from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import torch
from constraint_world import draw, end_of, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from windlass.core.errors import InputError, Unsupported
from windlass.core.values import ToolCall, ToolCallDelta, ToolSpec
from windlass.serve.engine.constraints.grammars import Grammars
from windlass.serve.engine.constraints.keywords import Schema
from windlass.serve.engine.dialect.calls import Format
from windlass.serve.engine.dialect.formats import FORMATS, find_format
from windlass.serve.engine.dialect.json_calls import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    HERMES,
    KIMI,
    LLAMA,
    MISTRAL,
    MISTRAL_ARGS,
)
from windlass.serve.engine.dialect.python_calls import PYTHONIC
from windlass.serve.engine.dialect.tagged_calls import GLM, MINIMAX, QWEN_XML
from windlass.serve.engine.dialect.tools import CallStream, End, Piece, Tools, grammar

WEATHER = ToolSpec(
    "get_weather",
    "The weather of a place",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 6},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"enum": ["°C", "K"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
CLOCK = ToolSpec("clock")
SEARCH = ToolSpec(
    "search",
    parameters={
        "properties": {
            "query": {"$ref": "#/$defs/q"},
            "deep": {"type": "boolean"},
            "tags": {"type": "array", "items": {"enum": ["a"]}},
        },
        "required": ["query", "deep"],
        "additionalProperties": False,
        "$defs": {"q": {"type": "string", "minLength": 1, "maxLength": 4}},
    },
)
ANYTHING = ToolSpec(
    "anything",
    parameters={
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "number": {"type": "number"},
            "flag": {"type": "boolean"},
            "list": {"type": "array"},
            "table": {"type": "object"},
            "perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "schlüssel": {},
        },
        "additionalProperties": False,
    },
)
TOOLS = [WEATHER, CLOCK, SEARCH]
BY_NAME = {tool.name: tool for tool in TOOLS}
CALLABLE = Tools([*TOOLS, ANYTHING]).callable
formats = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)


def tagged(value: Any) -> str:
    """A value as templates write it between tags: JSON, but for texts."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rendered(format: Format, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Calls as the chat templates of the models write them."""
    objects = [(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls]
    if format is HERMES:
        return "\n".join(f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in objects)
    if format is LLAMA:
        ((name, arguments),) = objects
        return f'{{"name": "{name}", "parameters": {arguments}}}'
    if format is MISTRAL:
        inner = [f'{{"name": "{name}", "arguments": {arguments}}}' for name, arguments in objects]
        return f"[TOOL_CALLS] [{', '.join(inner)}]"
    if format is MISTRAL_ARGS:
        return "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in objects)
    if format is KIMI:
        inner = [
            f"<|tool_call_begin|>functions.{name}:{i}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
            for i, (name, arguments) in enumerate(objects)
        ]
        return f"<|tool_calls_section_begin|>{''.join(inner)}<|tool_calls_section_end|>"
    if format is DEEPSEEK:
        inner = [f"<｜tool▁call▁begin｜>{n}<｜tool▁sep｜>{a}<｜tool▁call▁end｜>" for n, a in objects]
        return f"<｜tool▁calls▁begin｜>{''.join(inner)}<｜tool▁calls▁end｜>"
    if format is DEEPSEEK_FENCED:
        inner = [
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{n}\n```json\n{a}\n```<｜tool▁call▁end｜>" for n, a in objects
        ]
        return "<｜tool▁calls▁begin｜>" + "\n".join(inner) + "<｜tool▁calls▁end｜>"
    if format is PYTHONIC:
        return "[" + ", ".join(f"{n}({', '.join(f'{k}={v!r}' for k, v in a.items())})" for n, a in calls) + "]"
    if format is QWEN_XML:
        said = [(n, "".join(f"<parameter={k}>\n{tagged(v)}\n</parameter>\n" for k, v in a.items())) for n, a in calls]
        return "\n".join(f"<tool_call>\n<function={n}>\n{a}</function>\n</tool_call>" for n, a in said)
    if format is GLM:
        said = [
            (n, "".join(f"<arg_key>{k}</arg_key>\n<arg_value>{tagged(v)}</arg_value>\n" for k, v in a.items()))
            for n, a in calls
        ]
        return "\n".join(f"<tool_call>{n}\n{a}</tool_call>" for n, a in said)
    assert format is MINIMAX
    said = [(n, "".join(f'<parameter name="{k}">{tagged(v)}</parameter>\n' for k, v in a.items())) for n, a in calls]
    inner = "".join(f'<invoke name="{n}">\n{a}</invoke>\n' for n, a in said)
    return f"<minimax:tool_call>\n{inner}</minimax:tool_call>"


TRICKY = '</tool_call> "{é'
CALLS = [("clock", {}), ("search", {"query": TRICKY})]
WRITTEN = {format.name: rendered(format, CALLS[format is LLAMA :]) for format in FORMATS}


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def read(format: Format, pieces: list[str], tools: Mapping[str, Schema] = CALLABLE) -> tuple[list[str], End]:
    """What was shown, and how the answer ends; what was streamed of its calls is what they are."""
    stream = CallStream(format, tools)
    told = [stream.push(piece) for piece in pieces]
    last, end = stream.finish()
    check_streamed([delta for piece in [*told, last] for delta in piece.calls], end)
    return [piece.text for piece in [*told, last]], end


def check_streamed(deltas: Sequence[ToolCallDelta], end: End) -> None:
    made: list[ToolCall] = []
    for delta in deltas:
        if delta.name is not None:
            assert delta.index == len(made) and delta.id is not None
            made.append(ToolCall(delta.id, delta.name, delta.arguments))
        else:
            assert delta.index == len(made) - 1 and delta.id is None
            made[-1] = replace(made[-1], arguments=made[-1].arguments + delta.arguments)
    assert made[: len(end.calls)] == list(end.calls)


cuts = st.lists(st.integers(0, 400), max_size=12)


@formats
@settings(max_examples=25, deadline=None)
@given(cuts=cuts)
def test_calls_are_read_however_they_are_cut_and_never_shown(format: Format, cuts: list[int]) -> None:
    before = "Let me see.\n\n" if format.begin else ""
    shown, end = read(format, split(before + WRITTEN[format.name], cuts))
    assert "".join(shown) == before.strip()
    assert not end.malformed
    calls = [(call.name, json.loads(call.arguments)) for call in end.calls]
    assert calls == CALLS[format is LLAMA :]
    assert len({call.id for call in end.calls}) == len(end.calls)


scalar = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["</tool_call>", "null", "5", '{"', "[1", "<parameter=x>", "<|tool_call_end|>", "<｜tool▁call▁end｜>", "\n", " a\n"]
)
values = st.recursive(
    scalar | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "number": st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
        "list": st.lists(values, max_size=3),
        "table": st.dictionaries(texts, values, max_size=3),
        "perhaps": st.none() | texts.filter(lambda text: text.strip() not in ("null", "None")),
        "schlüssel": scalar | st.text("abc ", min_size=1),
    },
)


@formats
@settings(max_examples=50, deadline=None)
@given(calls=st.lists(arguments, min_size=1, max_size=3), cuts=cuts)
def test_what_is_written_in_a_format_is_read_from_it(
    format: Format, calls: list[dict[str, Any]], cuts: list[int]
) -> None:
    ends = {"qwen_xml": "</parameter>", "minimax": "</parameter>", "glm": "</arg_value>"}
    calls = calls[: 1 if format is LLAMA else 3]
    for call in calls:
        if format.name in ends and any(ends[format.name] in str(value) for value in call.values()):
            return
    text = rendered(format, [("anything", call) for call in calls])
    shown, end = read(format, split(text, cuts))
    assert "".join(shown) == "" and not end.malformed
    assert [json.loads(call.arguments) for call in end.calls] == calls


@settings(max_examples=10, deadline=None)
@given(text=texts)
def test_a_long_text_is_streamed_as_it_is_written(text: str) -> None:
    for format in FORMATS:
        if format is PYTHONIC:
            continue  # a value is known when it is complete
        written = rendered(format, [("anything", {"text": "a" * 50 + text})])
        stream = CallStream(format, CALLABLE)
        halfway = stream.push(written[: written.index("a" * 50) + 40])
        assert "".join(delta.arguments for delta in halfway.calls).endswith("a" * 30), format.name


@formats
@settings(max_examples=40, deadline=None)
@given(text=st.text('<tool_ca> \n[TOOL]{"é} x', max_size=30), cuts=cuts)
def test_text_that_announces_no_call_comes_through_unchanged(format: Format, text: str, cuts: list[int]) -> None:
    if format.begin and format.begin in text:
        return
    shown, end = read(format, split(text, cuts))
    assert "".join(shown) == text
    assert not end.calls and not end.malformed


@formats
@settings(max_examples=60, deadline=None)
@given(data=st.data(), cuts=cuts)
def test_broken_calls_never_become_calls_with_broken_arguments(format: Format, data: Any, cuts: list[int]) -> None:
    text = WRITTEN[format.name]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        kind = data.draw(st.sampled_from(["cut", "drop", "add"]))
        if kind == "cut":
            text = text[:place]
        elif kind == "drop":
            text = text[:place] + text[place + data.draw(st.integers(1, 6)) :]
        else:
            text = text[:place] + data.draw(st.text('"{}[]()\\,:=\n<é\ud800nan', max_size=4)) + text[place:]
    shown, end = read(format, split(text, cuts))
    for call in end.calls:
        assert call.name in CALLABLE
        assert isinstance(json.loads(call.arguments, parse_constant=pytest.fail), dict)
        call.arguments.encode()
    if not end.calls:
        assert "".join(shown) == text  # what is not a call is all there to be seen
    whole, whole_end = read(format, [text])
    assert "".join(whole) == "".join(shown) and whole_end.malformed == end.malformed
    assert [(c.name, c.arguments) for c in whole_end.calls] == [(c.name, c.arguments) for c in end.calls]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), cuts=cuts)
def test_marks_in_any_order_break_nothing_and_lose_nothing(data: Any, cuts: list[int]) -> None:
    format = data.draw(st.sampled_from(FORMATS))
    known = [
        *format.marks,
        format.begin,
        "anything",
        "text",
        "{",
        "}",
        '"',
        ":",
        ",",
        "\n",
        " ",
        "=",
        ">",
        "a",
        "\x00",
        "é",
    ]
    text = format.begin + "".join(data.draw(st.lists(st.sampled_from(known), max_size=14)))
    shown, end = read(format, split(text, cuts))
    if not end.calls:
        assert "".join(shown) == text


@formats
@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_call_cut_off_is_shown_and_said_to_be_malformed(format: Format, cut: int) -> None:
    text = WRITTEN[format.name]
    text = text[: len(text) - cut]
    shown, end = read(format, [text])
    if [call.name for call in end.calls][-1:] == ["search"]:  # all but marks was there
        assert "".join(shown) == "" and not end.malformed
        assert (
            cut
            < len({"kimi": "<|tool_calls_section_end|>", "qwen_xml": "\n</tool_call>"}.get(format.name, "x" * 25)) + 1
        )
        return
    assert all(call.name == "clock" for call in end.calls)
    assert end.malformed == bool(format.begin)
    assert "search" not in text or "search" in "".join(shown)


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (HERMES, '<tool_call>{"name": "clock", "arguments": []}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "arguments": "{}"}</tool_call>'),
        (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock"}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "arguments": {"a": NaN}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "arguments": {"a": "\\ud800"}}</tool_call>'),
        (HERMES, "<tool_call>" + "[" * 100_000),
        (HERMES, '<tool_call>{"name": "clock", "arguments": {"a": ' + "9" * 5000 + "}}</tool_call>"),
        (MISTRAL, '[TOOL_CALLS]{"name": "clock", "arguments": {}}'),
        (MISTRAL, "[TOOL_CALLS][]"),
        (MISTRAL_ARGS, "[TOOL_CALLS]clock[ARGS]{} and"),
        (MISTRAL_ARGS, "[TOOL_CALLS][ARGS]{}"),
        (LLAMA, '<|python_tag|>{"name": "clock"}'),
        (LLAMA, "<|python_tag|>clock.call()"),
        (KIMI, "<|tool_calls_section_begin|><|tool_call_begin|>clock<|tool_call_argument_begin|>{}<|tool_call_end|>"),
        (KIMI, "<|tool_calls_section_begin|><|tool_calls_section_end|>"),
        (DEEPSEEK, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>clock<｜tool▁sep｜>[]<｜tool▁call▁end｜>"),
        (
            DEEPSEEK_FENCED,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n{}<｜tool▁call▁end｜>",
        ),
        (QWEN_XML, "<tool_call><function=unknown></function></tool_call>"),
        (
            QWEN_XML,
            "<tool_call><function=search><parameter=query>a</parameter><parameter=query>b</parameter></function>",
        ),
        (GLM, "<tool_call>clock\n<arg_value>1</arg_value></tool_call>"),
        (MINIMAX, '<minimax:tool_call><invoke name="clock"><parameter name="a">1</invoke></minimax:tool_call>'),
    ],
)
def test_what_is_announced_as_a_call_and_is_none_is_malformed(format: Format, text: str) -> None:
    shown, end = read(format, [text])
    assert end.malformed and not end.calls
    assert "".join(shown) == text


def test_values_between_tags_are_of_the_types_that_the_schema_allows() -> None:
    said = {"flag": "True", "number": "1e999", "perhaps": "None", "schlüssel": "12", "list": ' ["</parameter>"]'}
    inner = "".join(f"<parameter={name}>{value}</parameter>" for name, value in said.items())
    _, end = read(QWEN_XML, [f"<tool_call><function=anything>{inner}</function></tool_call>"])
    made = '{"flag": true, "number": 1e999, "perhaps": null, "schlüssel": 12, "list": ["</parameter>"]}'
    assert end.calls[0].arguments.replace("  ", " ") == made
    _, end = read(QWEN_XML, ["<tool_call><function=anything><parameter=flag>perhaps</parameter></function>"])
    assert end.calls[0].arguments == '{"flag": "perhaps"}'  # for the tool to say that it is wrong


def test_ids_that_a_format_writes_are_kept() -> None:
    _, end = read(KIMI, [WRITTEN["kimi"]])
    assert [call.id for call in end.calls] == ["functions.clock:0", "functions.search:1"]


@pytest.mark.parametrize(
    "text",
    ["[__import__('os')]", "[clock(1)]", "[clock(**{})]", "[a.clock()]", "[clock(a=b)]", "[clock(a=1+1)]", "[1, 2]"],
)
def test_python_is_read_and_never_run(text: str) -> None:
    shown, end = read(PYTHONIC, [text])
    assert not end.calls and "".join(shown) == text


def test_python_calls_take_literals_of_python_and_of_json() -> None:
    _, end = read(PYTHONIC, ["[search(a=None, b=true, c=-1.5, d=[1, (2,)], e={'x': False}), clock()]"])
    assert json.loads(end.calls[0].arguments) == {"a": None, "b": True, "c": -1.5, "d": [1, [2]], "e": {"x": False}}


def test_arguments_are_passed_on_as_they_were_written() -> None:
    """A number too large for a double is JSON all the same; read and written again, it would be none."""
    _, end = read(HERMES, ['<tool_call>{"arguments" : {"a":1e999, "b": 1.50} , "name":"clock"}</tool_call>'])
    assert end.calls[0].arguments == '{"a":1e999, "b": 1.50}'


def test_an_answer_that_only_begins_like_a_call_is_an_answer() -> None:
    for format, text in ((LLAMA, '{"name": 3}'), (PYTHONIC, "[1, 2, 3]")):
        shown, end = read(format, [*text])
        assert "".join(shown) == text and not end.malformed


# grammars ------------------------------------------------------------------------------------------------------------

tokenizer = trained("bpe")
eos = end_of(tokenizer)
own = Grammars(tokenizer, [eos])


def written(format: Format, tools: Tools, seed: int, longest: int = 400) -> tuple[str, int]:
    lark = grammar(format, tools)
    assert lark is not None
    tokens = draw(own.grammar(lark, where="tools"), tokenizer.get_vocab_size(), eos, seed, longest=longest)
    return str(tokenizer.decode(tokens, skip_special_tokens=False)), len(tokens)


def pieces_of(text: str, seed: int) -> list[str]:
    chance = random.Random(seed)
    return split(text, [chance.randrange(500) for _ in range(9)])


@formats
@pytest.mark.parametrize("choice", ["required", "search", "get_weather", "clock"])
def test_forced_calls_always_satisfy_the_schema_of_their_tool(format: Format, choice: str) -> None:
    tools = Tools(TOOLS, choice)
    finished = 0
    for seed in range(12):
        text, count = written(format, tools, seed)
        if count == 400:
            continue
        finished += 1
        shown, end = read(format, pieces_of(text, seed), tools.callable)
        assert "".join(shown) == "" and end.calls and not end.malformed, text
        if choice != "required":
            assert [call.name for call in end.calls] == [choice]
        for call in end.calls:
            jsonschema.validate(json.loads(call.arguments), dict(BY_NAME[call.name].parameters))
    assert finished > 6


@formats
def test_a_free_choice_is_either_text_or_whole_calls(format: Format) -> None:
    tools = Tools(TOOLS)
    lark = grammar(format, tools)
    assert lark is not None
    for text in ("", "Good day.", "  two\nlines", "<b>", "a [list] {of} things"):
        if not format.begin and text[:1] in ("{", "["):
            continue
        assert allowed(lark, text), text
    forced = Tools(TOOLS, "required")
    for seed in range(6):
        text, count = written(format, forced, seed)
        if count < 400:
            assert allowed(lark, text)
            assert not format.begin or allowed(lark, "Let me see. " + text)
            assert not allowed(lark, text[:-1] + "!")


@formats
def test_models_may_write_calls_as_their_templates_do(format: Format) -> None:
    """To the letter: spaces too."""
    calls = [("get_weather", {"city": "Köln", "days": 3}), ("clock", {})][: 1 if format is LLAMA else 2]
    text = rendered(format, calls)
    lark = grammar(format, Tools(TOOLS, "required"))
    assert lark is not None
    assert allowed(lark, text.replace("'", '"') if format is PYTHONIC else text), text


@pytest.mark.parametrize("format", [HERMES, KIMI, DEEPSEEK, DEEPSEEK_FENCED, GLM], ids=lambda format: format.name)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_marks_are_written_by_their_own_tokens(format: Format, choice: str) -> None:
    """Also behind a call, where another one may follow or all of them end, by marks that begin alike."""
    marked = Tokenizer.from_str(tokenizer.to_str())
    marked.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in format.marks])
    lark = grammar(format, Tools(TOOLS, choice))
    assert lark is not None
    constraint = Grammars(marked, [eos], visible=frozenset(format.marks)).grammar(lark, where="tools")
    calls = [("get_weather", {"city": "Köln", "days": 3}), ("clock", {}), ("get_weather", {"city": "a"})]
    tokens = marked.encode(rendered(format, calls), add_special_tokens=False).ids
    jumped = 0
    for place, token in enumerate(tokens):
        logits = torch.zeros(marked.get_vocab_size())
        constraint.allow(logits)
        assert logits[token] == 0, (marked.id_to_token(token), marked.decode(tokens[:place], skip_special_tokens=False))
        forced = constraint.forced()
        assert tokens[place : place + len(forced)] == forced
        jumped += bool(forced)
        constraint.accept(token)
    assert jumped > 5
    constraint.accept(eos)


def allowed(lark: str, text: str) -> bool:
    matcher = own.grammar(lark, where="tools")._matcher  # type: ignore[attr-defined]
    tokens = own._spelling.encode(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_only_one_call_where_calls_are_not_to_be_parallel() -> None:
    one = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
    several, single = grammar(HERMES, Tools(TOOLS)), grammar(HERMES, Tools(TOOLS, several=False))
    assert several is not None and single is not None
    assert allowed(several, f"{one}\n{one}") and allowed(single, one)
    assert not allowed(single, f"{one}\n{one}")


def test_an_answer_obeys_its_schema_where_it_is_no_call() -> None:
    lark = grammar(HERMES, Tools(TOOLS), {"type": "array", "items": {"type": "integer"}})
    assert lark is not None
    assert allowed(lark, "[1,2]") and allowed(lark, '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>')
    assert not allowed(lark, "hello")
    assert grammar(HERMES, Tools(TOOLS, "none")) is None
    lark = grammar(HERMES, Tools(TOOLS, "none"), {"type": "null"})
    assert lark is not None and allowed(lark, "null")


def test_without_a_choice_calls_are_text() -> None:
    stream = CallStream(HERMES, Tools(TOOLS, "none").callable)
    assert stream.push("<tool_call>") == Piece(text="<tool_call>")


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        (ToolSpec("f", parameters={"type": "object", "properties": {"a": {"not": {}}}}), r"tools\[0\]\.parameters"),
        (ToolSpec("f", parameters={"type": "array"}), "must describe an object"),
    ],
)
def test_parameters_that_cannot_be_enforced_are_refused_by_name(tool: ToolSpec, told: str) -> None:
    with pytest.raises((InputError, Unsupported), match=told):
        Tools([tool])


def test_python_calls_need_identifiers() -> None:
    for tool in (ToolSpec("get-weather"), ToolSpec("f", parameters={"type": "object", "properties": {"a b": {}}})):
        with pytest.raises(Unsupported, match="Python call"):
            grammar(PYTHONIC, Tools([tool]))


@pytest.mark.parametrize(
    ("template", "format"),
    [
        ('...<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>', HERMES),
        ("{{ '[TOOL_CALLS] [' }}", MISTRAL),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", MISTRAL_ARGS),
        ('{"name": function name, "parameters": dictionary} {{ "<|python_tag|>" }}', LLAMA),
        ("[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]", PYTHONIC),
        ("<tool_call>\\n<function=example>", QWEN_XML),
        ("<tool_call>{name}\\n<arg_key>{key}</arg_key>", GLM),
        ("{{ '<minimax:tool_call>' }}", MINIMAX),
        ("<|tool_calls_section_begin|>", KIMI),
        ("{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>'}}", DEEPSEEK),
        ("{{'<｜tool▁calls▁begin｜>' + '\\n```json\\n'}}", DEEPSEEK_FENCED),
        ("{{ messages[0].content }}", None),
    ],
)
def test_the_format_shows_in_the_template(template: str, format: Format | None) -> None:
    assert find_format(template) is format


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(InputError, match="tool_choice is 'other'"):
        Tools(TOOLS, "other")

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import jsonschema
import pytest
from constraint_world import draw, end_of, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError, Unsupported
from windlass.core.values import ToolSpec
from windlass.serve.engine.constraints.grammars import Grammars
from windlass.serve.engine.dialect.tool_formats import (
    FORMATS,
    HERMES,
    LLAMA,
    MISTRAL,
    MISTRAL_ARGS,
    PYTHONIC,
    Format,
    find_format,
)
from windlass.serve.engine.dialect.tools import CallStream, End, Tools

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
TOOLS = [WEATHER, CLOCK, SEARCH]
BY_NAME = {tool.name: tool for tool in TOOLS}
formats = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)

WRITTEN = {
    "hermes": '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>\n'
    '<tool_call>\n{"name": "search", "arguments": {"query":"</tool_call> \\"{\\u00e9"}}\n</tool_call>',
    "llama": '{"name": "search", "parameters": {"query": "</tool_call> \\"{é"}}',
    "mistral": '[TOOL_CALLS] [{"name": "clock", "arguments": {}},'
    ' {"name": "search", "arguments": {"query": "</tool_call> \\"{é"}}]',
    "mistral_args": '[TOOL_CALLS]clock[ARGS]{}[TOOL_CALLS]search[ARGS]{"query": "</tool_call> \\"{é"}',
    "pythonic": "[clock(), search(query='</tool_call> \"{é')]",
}
NAMES = frozenset(BY_NAME)


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def read(format: Format, pieces: list[str], names: frozenset[str] = NAMES) -> tuple[list[str], End]:
    stream = CallStream(format, names)
    shown = [stream.push(piece) for piece in pieces]
    end = stream.finish()
    return [*shown, end.text], end


cuts = st.lists(st.integers(0, 400), max_size=12)


@formats
@settings(max_examples=60, deadline=None)
@given(cuts=cuts)
def test_calls_are_read_however_they_are_cut_and_never_shown(format: Format, cuts: list[int]) -> None:
    before = "Let me see.\n\n" if format.begin else ""
    shown, end = read(format, split(before + WRITTEN[format.name], cuts))
    assert "".join(shown) == before.strip()
    assert not end.malformed
    calls = [(call.name, json.loads(call.arguments)) for call in end.calls]
    assert calls[-1] == ("search", {"query": '</tool_call> "{é'})
    assert calls[:-1] == ([] if format is LLAMA else [("clock", {})])
    assert len({call.id for call in end.calls}) == len(end.calls)


@formats
@settings(max_examples=80, deadline=None)
@given(text=st.text('<tool_ca> \n[TOOL]{"é} x', max_size=30), cuts=cuts)
def test_text_that_announces_no_call_comes_through_unchanged(format: Format, text: str, cuts: list[int]) -> None:
    if format.begin and format.begin in text:
        return
    shown, end = read(format, split(text, cuts))
    assert "".join(shown) == text
    assert not end.calls and not end.malformed


@formats
@settings(max_examples=150, deadline=None)
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
        assert call.name in NAMES
        assert isinstance(json.loads(call.arguments, parse_constant=pytest.fail), dict)
        call.arguments.encode()
    if not end.calls:
        assert "".join(shown) == text  # what is not a call is all there to be seen


@formats
@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_call_cut_off_is_shown_and_said_to_be_malformed(format: Format, cut: int) -> None:
    text = WRITTEN[format.name]
    text = text[: len(text) - cut]
    shown, end = read(format, [text])
    whole = format is HERMES and cut < len("\n</tool_call>") + 1  # the JSON was complete
    if format.begin:
        assert end.malformed != whole
    assert all("</tool" not in call.name for call in end.calls)
    if not whole:
        assert all(call.name == "clock" for call in end.calls)
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
    ],
)
def test_what_is_announced_as_a_call_and_is_none_is_malformed(format: Format, text: str) -> None:
    shown, end = read(format, [text])
    assert end.malformed and not end.calls
    assert "".join(shown) == text


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


def written(tools: Tools, seed: int, schema: dict[str, Any] | None = None, longest: int = 400) -> tuple[str, int]:
    lark = tools.grammar(schema)
    assert lark is not None
    tokens = draw(own.grammar(lark, where="tools"), tokenizer.get_vocab_size(), eos, seed, longest=longest)
    return str(tokenizer.decode(tokens, skip_special_tokens=False)), len(tokens)


def pieces_of(text: str, seed: int) -> list[str]:
    chance = random.Random(seed)
    return split(text, [chance.randrange(500) for _ in range(9)])


@formats
@pytest.mark.parametrize("choice", ["required", "search", "get_weather", "clock"])
def test_forced_calls_always_satisfy_the_schema_of_their_tool(format: Format, choice: str) -> None:
    tools = Tools(format, TOOLS, choice)
    finished = 0
    for seed in range(12):
        text, count = written(tools, seed)
        if count == 400:
            continue
        finished += 1
        stream = tools.stream()
        shown = "".join(stream.push(piece) for piece in pieces_of(text, seed))
        end = stream.finish()
        assert shown + end.text == "" and end.calls and not end.malformed, text
        if choice != "required":
            assert [call.name for call in end.calls] == [choice]
        for call in end.calls:
            jsonschema.validate(json.loads(call.arguments), dict(BY_NAME[call.name].parameters))
    assert finished > 6


@formats
def test_a_free_choice_is_either_text_or_whole_calls(format: Format) -> None:
    tools = Tools(format, TOOLS)
    lark = tools.grammar()
    assert lark is not None
    for text in ("", "Good day.", "  two\nlines", "<b>", "a [list] {of} things"):
        if not format.begin and text[:1] in ("{", "["):
            continue
        assert allowed(lark, text), text
    plain = WRITTEN[format.name].split("\n<tool_call>")[0] if format is HERMES else None
    forced = Tools(format, TOOLS, "required")
    for seed in range(6):
        text, count = written(forced, seed)
        if count < 400:
            assert allowed(lark, text)
            assert not format.begin or allowed(lark, "Let me see. " + text)
            assert not allowed(lark, text[:-1] + "!")
    assert plain is None or allowed(lark, plain)


def allowed(lark: str, text: str) -> bool:
    matcher = own.grammar(lark, where="tools")._matcher  # type: ignore[attr-defined]
    tokens = own._spelling.encode(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_only_one_call_where_calls_are_not_to_be_parallel() -> None:
    one = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
    several, single = Tools(HERMES, TOOLS).grammar(), Tools(HERMES, TOOLS, several=False).grammar()
    assert several is not None and single is not None
    assert allowed(several, f"{one}\n{one}") and allowed(single, one)
    assert not allowed(single, f"{one}\n{one}")


def test_an_answer_obeys_its_schema_where_it_is_no_call() -> None:
    lark = Tools(HERMES, TOOLS).grammar({"type": "array", "items": {"type": "integer"}})
    assert lark is not None
    assert allowed(lark, "[1,2]") and allowed(lark, '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>')
    assert not allowed(lark, "hello")
    assert Tools(HERMES, TOOLS, "none").grammar() is None
    lark = Tools(HERMES, TOOLS, "none").grammar({"type": "null"})
    assert lark is not None and allowed(lark, "null")


def test_without_a_choice_calls_are_text() -> None:
    stream = Tools(HERMES, TOOLS, "none").stream()
    assert stream.push("<tool_call>") == "<tool_call>"


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        (ToolSpec("f", parameters={"type": "object", "properties": {"a": {"not": {}}}}), r"tools\[0\]\.parameters"),
        (ToolSpec("f", parameters={"type": "array"}), "must describe an object"),
    ],
)
def test_parameters_that_cannot_be_enforced_are_refused_by_name(tool: ToolSpec, told: str) -> None:
    with pytest.raises((InputError, Unsupported), match=told):
        Tools(HERMES, [tool])


def test_python_calls_need_identifiers() -> None:
    for tool in (ToolSpec("get-weather"), ToolSpec("f", parameters={"type": "object", "properties": {"a b": {}}})):
        with pytest.raises(Unsupported, match="Python call"):
            Tools(PYTHONIC, [tool]).grammar()


@pytest.mark.parametrize(
    ("template", "format"),
    [
        ('...<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>', HERMES),
        ("{{ '[TOOL_CALLS] [' }}", MISTRAL),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", MISTRAL_ARGS),
        ('{"name": function name, "parameters": dictionary} {{ "<|python_tag|>" }}', LLAMA),
        ("[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]", PYTHONIC),
        ("<tool_call>\\n<function=example>", None),
        ("{{ messages[0].content }}", None),
    ],
)
def test_the_format_shows_in_the_template(template: str, format: Format | None) -> None:
    assert find_format(template) is format


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(InputError, match="tool_choice is 'other'"):
        Tools(HERMES, TOOLS, "other")

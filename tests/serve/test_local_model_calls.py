"""A model in a folder answers under constraints, calls tools and reasons, as its chat template says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from engine_world import make_calling_folder

from windlass.core.errors import InputError, Unsupported
from windlass.core.values import ChatRequest, ChatResponse, Message, ToolCall, ToolCallDelta, ToolSpec
from windlass.serve.engine import LocalModel
from windlass.serve.engine.prompt import _as_template_sees

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "kind": {"enum": ["left", "right"]}},
    "required": ["x", "kind"],
    "additionalProperties": False,
}
TOOL = ToolSpec("point", "A point", POINT)
SILENT = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    loaded = LocalModel.load(make_calling_folder(tmp_path_factory.mktemp("model") / "m"))
    yield loaded
    loaded.close()


def ask(model: LocalModel, content: str = "hello", **asked: Any) -> ChatResponse:
    """The answer, having checked that what was streamed is what it holds."""
    given = {"temperature": 1.0, "max_tokens": 200, **asked}
    deltas = list(model.stream(ChatRequest([Message("user", content)], **given)))
    response = deltas[-1].response
    assert response is not None
    assert "".join(delta.text for delta in deltas) == response.message.text
    assert "".join(delta.reasoning for delta in deltas) == response.message.reasoning
    streamed = joined([piece for delta in deltas for piece in delta.calls])
    if response.finish_reason == "tool_calls":
        assert streamed == list(response.message.tool_calls)
    return response


def joined(pieces: Sequence[ToolCallDelta]) -> list[ToolCall]:
    made: list[ToolCall] = []
    for piece in pieces:
        if piece.name is not None and piece.id is not None:
            made.append(ToolCall(piece.id, piece.name, ""))
        made[piece.index] = replace(made[piece.index], arguments=made[piece.index].arguments + piece.arguments)
    return made


def test_an_answer_satisfies_its_schema(model: LocalModel) -> None:
    for seed in range(4):
        response = ask(model, schema=POINT, seed=seed, extra=SILENT)
        jsonschema.validate(json.loads(response.message.text), POINT)
        assert response.finish_reason == "stop"


def test_jumping_over_forced_tokens_changes_nothing(model: LocalModel) -> None:
    """Log-probabilities need every token's logits, so nothing is jumped over where they are asked for."""
    for temperature in (0.0, 1.0):
        for seed in range(3):
            asked = {"schema": POINT, "extra": SILENT, "temperature": temperature, "seed": seed}
            jumped, slow = ask(model, **asked), ask(model, **asked, logprobs=0)
            assert jumped.message.text == slow.message.text
            assert jumped.usage.completion == slow.usage.completion == len(slow.logprobs)


@pytest.mark.parametrize("name", ["regex", "choice", "grammar"])
def test_other_constraints_come_by_their_wire_names(model: LocalModel, name: str) -> None:
    value: Any = {"regex": "[a-c]{3}", "choice": ["abc", "cab"], "grammar": 'start: "a" /[bc]/ "b"'}[name]
    text = ask(model, extra={**SILENT, name: value}).message.text
    assert re.fullmatch("[a-c]{3}", text)


def test_a_tool_is_called_with_arguments_that_satisfy_its_schema(model: LocalModel) -> None:
    for seed, choice in enumerate(("required", "point")):
        extra = {**SILENT, "parallel_tool_calls": False}
        response = ask(model, tools=[TOOL], tool_choice=choice, seed=seed, extra=extra)
        assert response.finish_reason == "tool_calls" and response.message.text == ""
        (call,) = response.message.tool_calls
        jsonschema.validate(json.loads(call.arguments), POINT)
        assert call.name == "point" and call.id


def test_a_call_is_streamed_while_it_is_written(model: LocalModel) -> None:
    request = ChatRequest([Message("user", "a")], tools=[TOOL], tool_choice="point", max_tokens=200, extra=SILENT)
    deltas = [delta for delta in model.stream(request) if delta.calls]
    assert len(deltas) > 2 and deltas[0].calls[0].name == "point"
    assert all(piece.name is None for delta in deltas[1:] for piece in delta.calls)


def test_a_call_cut_off_is_no_call(model: LocalModel) -> None:
    response = ask(model, tools=[TOOL], tool_choice="point", max_tokens=12, extra=SILENT)
    assert response.finish_reason == "length" and not response.message.tool_calls
    assert response.message.text.startswith("<tool_call>")


def test_reasoning_is_kept_apart_limited_and_counted(model: LocalModel) -> None:
    response = ask(model, schema=POINT, extra={"reasoning_budget": 9})
    jsonschema.validate(json.loads(response.message.text), POINT)
    assert response.usage.reasoning is not None and 1 <= response.usage.reasoning <= 10
    assert "</think>" not in response.message.reasoning
    assert ask(model, schema=POINT, extra=SILENT).usage.reasoning is None


def test_calls_of_earlier_turns_reach_the_template_as_values(model: LocalModel) -> None:
    turns = [
        Message("user", "a"),
        Message("assistant", "", [ToolCall("123456789", "point", '{"x": 7}')]),
        Message("tool", "b", tool_call_id="123456789"),
    ]
    assert model.decode(model.encode_chat(turns)) == "<user>a<assistant>7<tool>b<think>"
    as_text = _as_template_sees(turns[1], "messages[1]")["tool_calls"][0]["function"]["arguments"]
    assert "json: " + as_text + "!" == 'json: {"x": 7}!' and str(as_text) == '{"x": 7}' and as_text["x"] == 7
    broken = replace(turns[1], tool_calls=[ToolCall("1", "point", "[7")])
    with pytest.raises(InputError, match=r"messages\[1\]\.tool_calls\[0\]\.function\.arguments"):
        model.encode_chat([turns[0], broken])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"schema": {"not": {}}}, "'not'"),
        ({"extra": {"regex": "("}}, "'regex'"),
        ({"tools": [TOOL], "tool_choice": "line"}, "tool_choice is 'line'"),
        ({"tools": [ToolSpec("f", parameters={"uniqueItems": True})]}, r"tools\[0\]"),
        ({"tools": [TOOL], "extra": {"raw_prompt": True}}, "teaches no format"),
        ({"extra": {"chat_template_kwargs": {"shout": True}}}, "'shout'"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(model: LocalModel, asked: dict[str, Any], told: str) -> None:
    with pytest.raises((InputError, Unsupported), match=told):
        ask(model, **asked)

"""Tool calls of a real engine, streamed to the official client, whose helpers join them to what the answer holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
from engine_world import make_calling_folder  # noqa: E402

from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.engine import LocalModel  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

PARAMETERS = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "name": {"type": "string", "maxLength": 8}},
    "required": ["x", "name"],
    "additionalProperties": False,
}
HI = [{"role": "user", "content": "hello"}]
CHAT = [{"type": "function", "function": {"name": "point", "parameters": PARAMETERS}}]
RESPONSES = [{"type": "function", "name": "point", "parameters": PARAMETERS}]
QUIET = {"effort": "none"}
SILENT = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    model = LocalModel.load(make_calling_folder(tmp_path_factory.mktemp("model") / "m"), name="m")
    with (
        ServerThread(create_app({"m": model}, {})) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made,
    ):
        yield made
    model.close()


@pytest.mark.parametrize("seed", range(4))
def test_the_stream_helper_of_chat_joins_the_calls(client: Any, seed: int) -> None:
    asked = {"model": "m", "messages": HI, "tools": CHAT, "tool_choice": "required", "max_tokens": 440, "seed": seed}
    whole = client.chat.completions.create(**asked, extra_body=SILENT).choices[0]
    with client.chat.completions.stream(**asked, extra_body=SILENT) as stream:
        kinds = [event.type for event in stream]
        found = stream.get_final_completion().choices[0]
    assert found.finish_reason == whole.finish_reason == "tool_calls"
    assert [call.function.arguments for call in found.message.tool_calls] == [
        call.function.arguments for call in whole.message.tool_calls
    ]
    assert all(call.id and call.function.name == "point" for call in found.message.tool_calls)
    assert kinds.count("tool_calls.function.arguments.delta") > 2 * len(found.message.tool_calls)
    assert not found.message.content


def test_the_first_piece_of_a_call_names_it(client: Any) -> None:
    asked = {"model": "m", "messages": HI, "tools": CHAT, "tool_choice": "point", "max_tokens": 440, "stream": True}
    asked |= {"tool_choice": {"type": "function", "function": {"name": "point"}}, "seed": 1}
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, extra_body=SILENT)]
    pieces = [piece for choice in chunks for piece in choice.delta.tool_calls or ()]
    assert (pieces[0].index, pieces[0].type, pieces[0].function.name) == (0, "function", "point") and pieces[0].id
    assert all(piece.id is None and piece.type is None and piece.function.name is None for piece in pieces[1:])
    assert set(json.loads("".join(piece.function.arguments for piece in pieces))) == {"x", "name"}
    assert chunks[-1].finish_reason == "tool_calls" and chunks[-1].delta.tool_calls is None


@pytest.mark.parametrize("seed", range(2))
def test_the_stream_helper_of_responses_joins_the_calls(client: Any, seed: int) -> None:
    asked = {
        "model": "m",
        "input": "hello",
        "tools": RESPONSES,
        "tool_choice": "required",
        "max_output_tokens": 440,
        "reasoning": QUIET,
    }
    with client.responses.stream(**asked, extra_body={"seed": seed}) as stream:
        events = list(stream)
        final = stream.get_final_response()
    whole = client.responses.create(**asked, extra_body={"seed": seed})
    calls = [item for item in final.output if item.type == "function_call"]
    assert [call.arguments for call in calls] == [item.arguments for item in whole.output]
    for call in calls:
        mine = [event for event in events if getattr(event, "item_id", None) == call.id]
        deltas = [event.delta for event in mine if event.type == "response.function_call_arguments.delta"]
        assert len(deltas) > 2 and "".join(deltas) == call.arguments
        assert [event.arguments for event in mine if event.type == "response.function_call_arguments.done"] == [
            call.arguments
        ]
    assert final.status == "completed" and all(call.status == "completed" for call in calls)


def test_a_call_cut_off_is_withdrawn_and_shown(client: Any) -> None:
    asked = {"model": "m", "messages": HI, "tools": CHAT, "tool_choice": "required", "max_tokens": 15, "seed": 0}
    whole = client.chat.completions.create(**asked, extra_body=SILENT).choices[0]
    assert whole.finish_reason == "length" and not whole.message.tool_calls
    chunks = [c.choices[0] for c in client.chat.completions.create(**asked, stream=True, extra_body=SILENT)]
    assert "".join(choice.delta.content or "" for choice in chunks) == whole.message.content
    assert chunks[-1].finish_reason == "length"
    asked = {
        "model": "m",
        "input": "hello",
        "tools": RESPONSES,
        "tool_choice": "required",
        "max_output_tokens": 15,
        "reasoning": QUIET,
    }
    events = list(client.responses.create(**asked, stream=True, extra_body={"seed": 0}))
    final = events[-1].response
    assert events[-1].type == "response.incomplete" and final.status == "incomplete"
    assert final.output_text.startswith("<tool_call>")
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in final.output] == [item.id for item in done]
    assert all(item.status == "incomplete" for item in done)

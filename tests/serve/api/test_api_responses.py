"""POST /v1/responses through the official client: its types check every event and item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
from serving_fakes import Echo, Failing, Speller  # noqa: E402

from windlass.core.errors import ProviderError  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

MODEL, ECHO = Speller(), Echo()
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
MIDWAY = Failing(ProviderError("It broke.", status=500), after=2)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ServerThread(create_app({"speller": MODEL, "echo": ECHO, "midway": MIDWAY}, {})) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def ask(client: Any, input: Any = "hi", **fields: Any) -> Any:
    return client.responses.create(**{"model": "speller", "input": input, **fields})


def test_a_text(client: Any) -> None:
    answer = ask(client, instructions="Be brief.", max_output_tokens=3, temperature=0.5)
    assert (answer.output_text, answer.status, answer.object) == ("aaa", "completed", "response")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (2, 3, 5)
    assert answer.instructions == "Be brief." and answer.store is False
    request = MODEL.requests[-1]
    assert [m.role for m in request.messages] == ["system", "user"] and request.max_tokens == 3


def test_a_stream_opens_fills_and_closes_every_item(client: Any) -> None:
    events = list(ask(client, stream=True, reasoning={"effort": "low"}, tools=[TOOL], tool_choice="none"))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds.count("response.output_text.delta") == 8 and kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == "Hm."
    final = events[-1].response
    assert final.output_text == "a" * 8 and final.output[0].content[0].text == "Hm."
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [item.id for item in final.output] == [item.id for item in done]


def test_the_clients_stream_helper_assembles_the_response(client: Any) -> None:
    with client.responses.stream(model="speller", input="hi") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "a" * 8


def test_tool_calls_and_their_results(client: Any) -> None:
    answer = ask(client, tools=[TOOL], tool_choice={"type": "function", "name": "look"})
    (call,) = answer.output
    assert (call.type, call.name, call.arguments) == ("function_call", "look", '{"a": 1}')
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "look"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        call,
        {"type": "function_call_output", "call_id": call.call_id, "output": "found"},
    ]
    assert ask(client, history, model="echo").output_text == "found"
    user, assistant, tool = ECHO.requests[-1].messages
    assert user.text == "look" and assistant.reasoning == "Hm." and assistant.tool_calls[0].name == "look"
    assert (tool.role, tool.tool_call_id) == ("tool", "c1")
    streamed = list(ask(client, tools=[TOOL], stream=True))
    assert [e.arguments for e in streamed if e.type == "response.function_call_arguments.done"] == ['{"a": 1}']
    assert streamed[-1].response.output[0].name == "look"


def test_an_answer_can_be_sent_back_as_history(client: Any) -> None:
    first = ask(client, reasoning={"effort": "low"})
    history = [{"role": "user", "content": "hi"}, *first.output]
    ask(client, [*history, {"role": "user", "content": "and?"}])
    assert [m.role for m in MODEL.requests[-1].messages] == ["user", "assistant", "user"]
    assert MODEL.requests[-1].messages[1].reasoning == "Hm."


def test_structured_output(client: Any) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        a: int

    parsed = client.responses.parse(model="speller", input="hi", text_format=Answer)
    assert parsed.output_parsed == Answer(a=1)
    assert MODEL.requests[-1].schema is not None and MODEL.requests[-1].schema["required"] == ["a"]
    ask(client, text={"format": {"type": "json_object"}})
    assert MODEL.requests[-1].schema == {"type": "object"}


def test_log_probabilities(client: Any) -> None:
    answer = ask(client, top_logprobs=1, max_output_tokens=2)
    assert [t.logprob for t in answer.output[0].content[0].logprobs] == [-0.5, -0.5]
    ask(client, include=["message.output_text.logprobs"])
    assert MODEL.requests[-1].logprobs == 0


def test_a_failure_midway_is_an_event(client: Any) -> None:
    events = list(ask(client, model="midway", stream=True))
    assert events[-1].type == "response.failed" and events[-1].response.error.message == "It broke."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"stop": ["x"]}, "stop"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_refused_is_named(url: str, fields: dict[str, Any], param: str) -> None:
    answer = httpx.post(f"{url}/v1/responses", json={"model": "speller", "input": "hi"} | fields)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param

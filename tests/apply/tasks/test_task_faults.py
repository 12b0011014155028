"""What goes wrong around a task is named where it happens, told once and briefly, and kept on the trace."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from tests.apply.provider_world import Loopback, events, piece, reply

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.tasks import Example, NoAnswer, Refused, Surroundings, Task, surrounded, task
from windlass.core.errors import ConfigError, InputError, ProviderError, Unsupported, WindlassError
from windlass.core.values import ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.testing import Scripted


@dataclass
class Seat:
    row: int
    name: str = ""


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


@task
def seats(hall: str, wanted: list[Seat] | None = None) -> list[Seat]:
    """Find the seats."""
    raise NotImplementedError


@task
def opened(text: str) -> Open:
    """Read it."""
    raise NotImplementedError


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


WAYS: dict[str, Callable[[Task[Any, Any]], Any]] = {
    "run": lambda one: one.run("x"),
    "arun": lambda one: asyncio.run(one.arun("x")),
    "stream": lambda one: list(one.stream("x")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({}, Unsupported, "beyond the known ones (what 'opened' returns)"),
        ({"model": "opnai:m"}, ConfigError, "no provider 'opnai'"),
        ({"model": None}, ConfigError, "[model]"),
    ],
)
def test_what_cannot_even_be_asked_is_on_the_trace(
    ws: Workspace, way: str, settings: dict[str, Any], error: type[WindlassError], told: str
) -> None:
    with pytest.raises(error) as caught:
        WAYS[way](opened.using(**{"model": Scripted(), **settings}))
    assert told in str(caught.value) and caught.value.hint
    ws.recorder.flush()
    (trace,) = ws.store.traces(errors=True)
    assert trace.root.name == "opened" and told in str(trace.root.error)


def test_what_strict_modes_cannot_say_can_be_asked_for_by_the_prompt() -> None:
    asked = opened.using(model=Scripted('{"name": "Ana", "age": 3}'), mode="prompt")
    assert asked("x").model_dump() == {"name": "Ana", "age": 3}


BAD: dict[str, tuple[Any, type[WindlassError], str]] = {
    "a page": ((200, {"content-type": "text/html"}, b"<html>Welcome to nginx</html>"), ProviderError, "not with JSON"),
    "half of JSON": ((200, {}, b'{"choices": [{"mess'), ProviderError, "not with JSON"),
    "a refusal": (reply("", refusal="I won't."), Refused, "I won't"),
    "a storm": ((429, {"retry-after": "0"}, b'{"error": {"message": "slow down"}}'), ProviderError, "slow down"),
    "silence": ((0, {}, b""), ProviderError, "did not answer in time"),
    "an answer that does not fit": (reply('[{"row": "first"}]'), NoAnswer, "0.row: Input should be a valid integer"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_a_provider_does_wrong_is_one_error_and_on_the_trace(ws: Workspace, bad: str) -> None:
    answer, error, told = BAD[bad]
    with Loopback() as provider:
        provider.answer(answer)
        patience = Timeouts(read=0.2 if bad == "silence" else 30)
        model = RemoteChat(Endpoint(provider.url, timeouts=patience), ChatCompletions("m"))
        with pytest.raises(error) as caught:
            seats.using(model=model)("here")
        model.close()
    assert told in caught.value.message and "\n" not in caught.value.message
    ws.recorder.flush()
    (trace,) = ws.store.traces(errors=True)
    assert told in str(trace.root.error)


def test_a_stream_that_breaks_off_is_an_error_and_no_short_answer(ws: Workspace) -> None:
    with Loopback() as provider:
        provider.answer(events(piece('{"value": [{"row": 1, "name": "a"}'), done=False))
        stream = seats.using(model=RemoteChat(Endpoint(provider.url), ChatCompletions("m"))).stream("here")
        with pytest.raises(ProviderError, match="before the answer was finished"):
            list(stream)
    with pytest.raises(RuntimeError, match="not whole yet"):
        _ = stream.value
    ws.recorder.flush()
    (trace,) = ws.store.traces(errors=True)
    assert "before the answer was finished" in str(trace.root.error)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "The input 'wanted' is not of its type"),
        ([{"row": "first"}], "The input 'wanted' is not of its type: "),
        ([object()], "The input 'wanted' is not of its type"),
    ],
)
def test_an_input_of_another_type_is_named_before_anything_is_asked(given: Any, told: str) -> None:
    model = Scripted()
    with pytest.raises(InputError) as caught:
        seats.using(model=model)("here", given)
    assert told in caught.value.message and not model.requests

    def anything(thing: Any) -> str:
        """Say what it is."""
        raise NotImplementedError

    with pytest.raises(InputError, match="The input 'thing' is not of its type: Unable"):
        Task(anything).using(model=model)(object())


def test_what_is_as_good_as_the_type_is_taken() -> None:
    """A tuple for a list, fields for an object, a whole number for a broken one."""
    texts = []
    for wanted in ([Seat(1, "a")], (Seat(1, "a"),), [{"row": 1, "name": "a"}]):
        model = Scripted({"value": []})
        assert seats.using(model=model)("here", wanted) == []  # type: ignore[arg-type]
        texts.append(model.last.messages[-1].text)
    assert len(set(texts)) == 1 and '"row": 1' in texts[0]


def test_an_item_of_another_type_is_its_own_fault() -> None:
    model = Scripted({"value": []}, {"value": []})
    rows: list[Any] = [{"hall": "a"}, {"hall": "b", "wanted": 3}, {"hall": "c"}]
    first, wrong, last = seats.using(model=model).map(rows, progress=False, at_once=1)
    assert first.value == last.value == [] and wrong.kind == "InputError" and wrong.attempts == 0
    assert wrong.error is not None and wrong.error.startswith("Item 1: The input 'wanted' is not of its type")


def test_a_thousand_faults_are_told_in_a_few_lines() -> None:
    """Each would be paid for when the model is asked again."""
    wrong = {"value": [{"row": "x", "name": n} for n in range(1000)]}
    model = Scripted(wrong, {"value": []})
    seats.using(model=model)("here")
    told = model.last.messages[-1].text
    assert len(told) < 4000 and "0.row: Input should be a valid integer" in told and "1980 more like these" in told


def test_an_attempt_is_not_begun_that_would_pass_the_limit() -> None:
    """What was answered is read again: the next attempt takes at least the last one and its answer once more."""
    model = Scripted("no", "no", usage=Usage(input=50, output=20))
    with pytest.raises(NoAnswer, match="70 of 150 tokens are spent, and another attempt may take 90"):
        seats.using(model=model, tokens=150)("here")
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "text", ['{"value": [{"row": 1, "name": "\\ud83d"}]}', '{"value": [{"row": NaN, "name": "a"}]}']
)
def test_an_answer_that_no_json_can_hold_is_asked_for_again(text: str) -> None:
    model = Scripted(text, {"value": [{"row": 1, "name": "a"}]})
    outcome = seats.using(model=model).run("here")
    assert outcome.value == [Seat(1, "a")] and len(outcome.attempts) == 2


def test_an_example_of_another_type_is_named() -> None:
    shown = [Example({"hall": "a", "wanted": 7}, [Seat(1)])]
    with pytest.raises(InputError, match="The input 'wanted'"):
        seats.using(model=Scripted(), examples=shown)("here")


def test_work_is_not_lost_where_the_limit_is_hit(ws: Workspace) -> None:
    """No None in place of an answer: an error, which holds what was said and what it took."""
    model = Scripted("almost", "nearly", usage=Usage(input=7, output=3), cost_usd=0.25)
    with pytest.raises(NoAnswer) as caught:
        seats.using(model=model, attempts=2)("here")
    assert [one.response.message.text for one in caught.value.attempts] == ["almost", "nearly"]
    assert caught.value.usage.total == 20 and caught.value.cost_usd == 0.5
    cut = ChatResponse("i", "m", Message("assistant", '{"value": [{"row": 1'), "length")
    with pytest.raises(NoAnswer, match="cut off"):
        seats.using(model=Scripted(cut))("here")
    ws.recorder.flush()
    spent = [span.attributes["windlass.cost.usd"] for t in ws.store.traces() for span in ws.store.trace(t.root.trace_id)
             if span.operation == "chat"]  # fmt: skip
    assert spent.count(0.25) == 2 and spent.count(None) == 1


def test_what_failed_after_an_attempt_was_paid_is_on_the_trace_with_its_cost(ws: Workspace) -> None:
    model = Scripted("no", ProviderError("down"), cost_usd=0.25)
    with pytest.raises(ProviderError):
        seats.using(model=model)("here")
    ws.recorder.flush()
    (trace,) = ws.store.traces()
    spans = [span for span in ws.store.trace(trace.root.trace_id) if span.operation == "chat"]
    assert [(span.attributes["windlass.cost.usd"], span.status) for span in spans] == [(0.25, "ok"), (None, "error")]


FIRST_CALL = """
import json, sys
from typing import Literal
from windlass.apply.tasks import task
from windlass.apply.providers.known import model

@task(model=model("vllm:m", base_url=sys.argv[1]))
def tone(review: str) -> Literal["good", "bad"]:
    "Say how the writer felt."

assert tone("Fine!") == "good"
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_first_call_loads_no_sdk_and_nothing_heavy(tmp_path: Path) -> None:
    with Loopback() as provider:
        provider.answer(reply('{"value": "good"}'))
        (tmp_path / "call.py").write_text(FIRST_CALL)
        done = subprocess.run(
            [sys.executable, "call.py", provider.url], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    loaded = set(json.loads(done.stdout))
    assert "httpx2" in loaded and not loaded & {
        "openai", "anthropic", "google", "boto3", "botocore", "mistralai", "litellm", "torch", "numpy", "transformers",
        "tiktoken", "tokenizers", "sentence_transformers", "requests", "httpx",
    }  # fmt: skip

"""A task from its signature to its answer: what is asked, what is read, what is asked again, and what it costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from windlass.apply.tasks import Absent, Example, NoAnswer, Refused, Surroundings, Task, surrounded, task
from windlass.apply.tasks.forms.reading import json_in
from windlass.apply.tasks.forms.schema import Unfit
from windlass.core.errors import ConfigError, InputError, ProviderError, WindlassError
from windlass.core.values import ChatResponse, ImagePart, Message, TextPart, Usage
from windlass.core.workspace import Workspace
from windlass.testing import Scripted


class Deal(BaseModel):
    company: str
    amount: float = Field(gt=0, description="US dollars.")
    stage: Literal["lead", "won", "lost"] = "lead"


@task
def deal(notes: str) -> Deal:
    """Take the deal out of these sales notes."""
    raise NotImplementedError


@task(temperature=0)
def tone(review: str, strict: bool = False) -> Literal["good", "bad"]:
    """Say how the writer felt."""
    raise NotImplementedError


GOOD = '{"company": "Acme", "amount": 1200, "stage": null}'


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


def test_a_call(ws: Workspace) -> None:
    model = Scripted(GOOD, usage=Usage(input=30, output=9), cost_usd=0.002)
    outcome = deal.using(model=model).run("Acme wants it for $1,200")
    assert outcome.value == Deal(company="Acme", amount=1200, stage="lead")
    assert outcome.usage == Usage(input=30, output=9) and outcome.cost_usd == 0.002 and len(outcome.attempts) == 1
    assert [(m.role, m.content) for m in model.last.messages] == [
        ("system", "Take the deal out of these sales notes."),
        ("user", "Acme wants it for $1,200"),
    ]
    assert model.last.schema is not None and set(model.last.schema["properties"]) == {"company", "amount", "stage"}
    ws.recorder.flush()
    root, asked = sorted(ws.store.trace(outcome.trace_id or ""), key=lambda span: span.start_ns)
    assert (root.name, asked.name, asked.parent_id) == ("deal", "ask", root.span_id)
    assert root.input == {"notes": "Acme wants it for $1,200"} and root.output["company"] == "Acme"
    assert root.attributes["windlass.task.digest"] == deal.using(model=model).digest
    assert asked.attributes["windlass.cost.usd"] == 0.002 and asked.attributes["gen_ai.usage.input_tokens"] == 30


def test_inputs_of_several_kinds() -> None:
    model = Scripted('{"value": "good"}')
    assert tone.using(model=model)("Fine!", strict=True) == "good"
    assert model.last.messages[-1].text == "<review>\nFine!\n</review>\n<strict>\ntrue\n</strict>"
    assert model.last.temperature == 0

    @dataclass
    class Place:
        street: str
        number: int

    def where(photo: ImagePart, near: Place) -> str:
        """Name the shop in the photo."""
        raise NotImplementedError

    where.__annotations__ = {"photo": ImagePart, "near": Place, "return": str}
    model = Scripted("The bakery")
    photo = ImagePart(data=b"png")
    assert Task(where).using(model=model)(photo, Place("High St", 3)) == "The bakery"
    assert model.last.schema is None
    parts = model.last.messages[-1].content
    assert not isinstance(parts, str) and parts[0] is photo and isinstance(parts[1], TextPart)
    assert json.loads(parts[1].text.split("\n", 1)[1].rpartition("\n")[0]) == {"street": "High St", "number": 3}


def test_it_asks_again_with_the_precise_fault_and_keeps_every_attempt(ws: Workspace) -> None:
    model = Scripted(
        '{"company": "Acme", "amount": -5, "stage": "maybe"}', "Sorry:\n```json\n" + GOOD + "\n```", cost_usd=0.1
    )
    outcome = deal.using(model=model).run("notes")
    assert outcome.value.company == "Acme" and outcome.cost_usd == pytest.approx(0.2)
    assert outcome.usage == Usage(input=20, output=10)
    first, second = model.requests
    assert second.messages[: len(first.messages)] == first.messages, "the prefix stays as it was"
    told = second.messages[-1].text
    assert "amount: Input should be greater than 0 (got '-5')" in told and "stage: Input should be 'lead'" in told
    assert [bool(attempt.problems) for attempt in outcome.attempts] == [True, False]
    ws.recorder.flush()
    assert [span.name for span in ws.store.trace(outcome.trace_id or "")].count("ask") == 2


def test_tokens_that_one_attempt_does_not_report_are_known_of_none() -> None:
    silent = ChatResponse("i", "m", Message("assistant", "no"), "stop")
    outcome = deal.using(model=Scripted(silent, GOOD, usage=Usage(input=60, output=30))).run("notes")
    assert len(outcome.attempts) == 2 and outcome.usage == Usage() and outcome.usage.total is None
    with pytest.raises(NoAnswer) as caught:
        deal.using(model=Scripted("no", silent), attempts=2)("notes")
    assert caught.value.usage == Usage()
    model = Scripted(silent, "no", usage=Usage(input=60, output=30))
    with pytest.raises(NoAnswer, match="90 of 100 tokens are spent"):  # what is known still counts
        deal.using(model=model, tokens=100)("notes")


def test_it_gives_up_and_says_what_it_spent() -> None:
    model = Scripted("no", "no", "no", cost_usd=0.5)
    with pytest.raises(NoAnswer, match="after 3 attempts; the last: the whole: not JSON") as caught:
        deal.using(model=model)("notes")
    assert caught.value.cost_usd == 1.5 and len(caught.value.attempts) == 3
    model = Scripted("no", "no", "no", usage=Usage(input=60, output=30))
    with pytest.raises(NoAnswer, match="90 of 100 tokens are spent"):
        deal.using(model=model, tokens=100)("notes")
    assert len(model.requests) == 1
    cut = ChatResponse("i", "m", Message("assistant", '{"comp'), "length")
    with pytest.raises(NoAnswer, match="cut off after max_tokens=5") as caught:
        deal.using(model=Scripted(cut), max_tokens=5)("notes")
    assert caught.value.cost_usd is None, "not known is not nothing"


def test_an_unknown_price_of_one_attempt_makes_the_sum_unknown() -> None:
    priced = ChatResponse("a", "m", Message("assistant", "no"), "stop", cost_usd=0.1)
    outcome = deal.using(model=Scripted(priced, GOOD)).run("notes")
    assert outcome.cost_usd is None


def test_a_refusal_is_an_error_or_a_value() -> None:
    refusal = ChatResponse("i", "m", Message("assistant", "I won't."), "stop", refused=True)
    with pytest.raises(Refused, match="I won't"):
        deal.using(model=Scripted(refusal))("notes")

    @task
    def maybe(notes: str) -> Deal | Absent:
        """Take the deal out of the notes, if there is one."""
        raise NotImplementedError

    assert maybe.using(model=Scripted(refusal))("notes") == Absent("I won't.")
    assert maybe.using(model=Scripted('{"value": {"why_absent": "only chat"}}'))("notes") == Absent("only chat")
    assert maybe.using(model=Scripted({"value": json.loads(GOOD)}))("notes")


def test_the_form_can_be_asked_for_in_other_ways() -> None:
    tool = Scripted('{"company": 3}', GOOD, structured="tool")
    assert deal.using(model=tool)("notes").company == "Acme"
    first, second = tool.requests
    assert first.schema is None and first.tool_choice == "answer" and first.tools[0].parameters["type"] == "object"
    assert [m.role for m in second.messages[-2:]] == ["assistant", "tool"]
    assert second.messages[-1].tool_call_id == second.messages[-2].tool_calls[0].id
    plain = Scripted('Here you are: {"company": "Acme", "amount": 1200,}', structured="prompt")
    assert deal.using(model=plain)("notes").amount == 1200
    assert plain.last.schema is None and '"exclusiveMinimum": 0' in plain.last.messages[0].text


def test_checks_of_the_task_see_the_inputs() -> None:
    def stands_in(value: Deal, notes: str) -> None:
        if value.company not in notes:
            raise ValueError(f"the company '{value.company}' is not named in the notes")

    model = Scripted(GOOD, GOOD.replace("Acme", "Initech"))
    assert deal.using(model=model, checks=[stands_in])("Initech called").company == "Initech"
    assert "'Acme' is not named" in model.last.messages[-1].text


def test_examples_and_thoughts() -> None:
    shown = [Example({"notes": "Bolt, 5k, won"}, Deal(company="Bolt", amount=5000, stage="won"))]
    model = Scripted(GOOD)
    deal.using(model=model, examples=shown)("notes")
    assert [m.role for m in model.last.messages] == ["system", "user", "assistant", "user"]
    assert json.loads(model.last.messages[2].text) == {"company": "Bolt", "amount": 5000.0, "stage": "won"}
    model = Scripted('{"reasoning": "It sings.", "answer": "good"}')
    thinking = tone.using(model=model, think=True)
    assert thinking("La!") == "good"
    assert model.last.schema is not None and list(model.last.schema["properties"]) == ["reasoning", "answer"]

    def nearest(inputs: Any) -> list[Example]:
        return [Example({"notes": inputs["notes"] + "?"}, Deal(company="C", amount=1))]

    model = Scripted(GOOD)
    deal.using(model=model, examples=nearest)("who")
    assert model.last.messages[1].text == "who?"


def test_on_an_event_loop() -> None:
    @task
    async def double(number: int) -> int:
        """Double it."""
        raise NotImplementedError

    async def work() -> list[Any]:
        models = [Scripted({"value": 2 * n}) for n in range(5)]
        calls = [double.using(model=model)(n) for n, model in enumerate(models)]
        return list(await asyncio.gather(*calls))  # type: ignore[call-overload]

    assert asyncio.run(work()) == [0, 2, 4, 6, 8]

    class Blocking:
        name, digest = "blocking", None

        def complete(self, request: Any) -> ChatResponse:
            return ChatResponse("i", "m", Message("assistant", GOOD), "stop")

        def stream(self, request: Any) -> Any: ...

    assert asyncio.run(deal.using(model=Blocking()).arun("notes")).value.company == "Acme"


def test_a_streamed_answer_grows_and_is_checked_in_the_end(ws: Workspace) -> None:
    text = '{"company": "Acme", "amount": 1200, "stage": null}'
    stream = deal.using(model=Scripted('{"company": "Nobody"}', text)).stream("notes")
    with pytest.raises(RuntimeError, match="not whole yet"):
        _ = stream.outcome
    shown = list(stream)
    assert {"company": "Nobody"} in shown and {"company": "Ac"} in shown
    assert shown[-1] == {"company": "Acme", "amount": 1200}
    assert stream.value == Deal(company="Acme", amount=1200) and len(stream.outcome.attempts) == 2
    ws.recorder.flush()
    root, *calls = sorted(ws.store.trace(stream.outcome.trace_id or ""), key=lambda span: span.start_ns)
    assert root.output["company"] == "Acme" and [call.parent_id for call in calls] == [root.span_id] * 2

    async def read() -> list[Any]:
        streaming = tone.using(model=Scripted('{"value": "good"}', structured="tool")).stream("La!")
        return [value async for value in streaming] + [streaming.value]

    assert asyncio.run(read())[-1] == "good"
    broken = deal.using(model=Scripted(ProviderError("down"))).stream("notes")
    with pytest.raises(ProviderError):
        list(broken)


def test_a_streamed_text() -> None:
    @task
    def poem(theme: str) -> str:
        """Write a poem."""
        raise NotImplementedError

    stream = poem.using(model=Scripted("Roses are red")).stream("roses")
    shown = list(stream)
    assert shown[0] == "Ros" and shown[-1] == stream.value == "Roses are red"


def test_a_prompt_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deal.md"
    path.write_text("Find the deal.\n")
    model = Scripted(GOOD)
    other = deal.using(model=model, prompt=path)
    other("notes")
    assert model.last.messages[0].text == "Find the deal."
    assert other.digest != deal.using(model=model).digest
    with pytest.raises(InputError, match=r"none\.md"):
        deal.using(model=model, prompt=tmp_path / "none.md")("notes")


def test_errors_of_the_model_reach_the_caller_and_the_trace(ws: Workspace) -> None:
    with pytest.raises(ProviderError, match="down"):
        deal.using(model=Scripted(ProviderError("down")))("notes")
    ws.recorder.flush()
    (trace,) = ws.store.traces()
    assert all(span.status == "error" for span in ws.store.trace(trace.root.trace_id))


def no_docstring(x: str) -> str: ...


def no_return(x: str):  # type: ignore[no-untyped-def]
    """Do it."""


def nothing(x: str) -> None:
    """Do it."""


def many(*x: str) -> str:
    """Do it."""
    raise NotImplementedError


def unknown(x: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Do it."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (no_docstring, "no docstring"),
        (no_return, "does not say what it returns"),
        (nothing, "returns nothing"),
        (many, "takes \\*x"),
        (unknown, "cannot be found"),
    ],
)
def test_functions_that_say_too_little(function: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        task(function)


def test_wrong_settings_and_calls() -> None:
    with pytest.raises(InputError, match="no setting 'temprature'"):
        deal.using(temprature=1)
    for wrong, told in (
        ({"temperature": "hot"}, "'temperature' is 'hot', but must be a number"),
        ({"stop": "END"}, "'stop' is 'END', but must be a list"),
        ({"max_tokens": 1.5}, "'max_tokens' is 1.5"),
        ({"extra": [1]}, "'extra' must be a table"),
        ({"attempts": 0}, "attempts=0 could ask nothing"),
        ({"attempts": "3"}, "attempts are a whole number, not '3'"),
        ({"tokens": -1}, "tokens=-1 could ask nothing"),
        ({"mode": "xml"}, "no mode 'xml'"),
    ):
        with pytest.raises(WindlassError, match=told):
            deal.using(**wrong)
    with pytest.raises(TypeError, match=r"deal\(\) missing a required argument: 'notes'"):
        deal.using(model=Scripted())()  # type: ignore[call-arg]
    with surrounded(Surroundings()), pytest.raises(ConfigError, match="names no model"):
        deal("notes")
    with surrounded(Surroundings()), pytest.raises(ConfigError, match="no provider 'opnai'"):
        deal.using(model="opnai:x")("notes")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2]", [1, 2]),
        ('```json\n{"a": [1,],}\n```', {"a": [1]}),
        ('The answer is {"a": "}, ]"} as asked.', {"a": "}, ]"}),
        (' "just text" ', "just text"),
        ("3", 3),
    ],
)
def test_json_between_words(text: str, value: Any) -> None:
    assert json_in(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "  ", "no", '{"a": 1', "{'a': 1}", "[" * 100_000, '{"a": NaN}', '{"a": -Infinity}', "[1e999]", "1" * 5000],
)
def test_what_would_have_to_be_guessed_is_refused(text: str) -> None:
    with pytest.raises(Unfit):
        json_in(text)

"""Whatever the schema is, the random model obeys it."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from windlass.apply.tasks import Absent, task
from windlass.apply.tasks.forms.schema import Shape
from windlass.apply.tasks.forms.strict import Strict
from windlass.core.errors import Unsupported
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.values import ChatRequest, Message, ToolSpec
from windlass.testing import Random
from windlass.testing.drawing import Drawing
from windlass.testing.patterns import matching


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Tree(BaseModel):
    label: str = Field(min_length=1)
    children: list[Tree] = []
    parent: Tree | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(9, ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: dict[str, int] = {}


@dataclass
class Leaf:
    name: str
    weight: float = 1.0


class Row(TypedDict, total=False):
    count: int
    tags: Annotated[list[str], Field(min_length=2, max_length=4)]


class Order(BaseModel):
    id: UUID
    day: date
    at: datetime
    code: str = Field(pattern=r"^[A-Z]{3}-\d{2,4}(x|yz)?$")
    even: int = Field(multiple_of=2, gt=-7, lt=9)
    share: float = Field(ge=0, le=1)
    chosen: set[Literal["a", "b", "c"]]
    pair: tuple[int, str]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    colour: Colour
    anything: Any
    named: dict[Annotated[str, Field(pattern="^k[0-9]+$")], int] = Field(min_length=1)


TYPES: list[Any] = [
    int, float, bool, str, None, date, Colour, Leaf, Row, Tree, Order, Cat | Dog, list[Tree] | None, Absent | Leaf,
    dict[str, list[int]], dict[str, Any] | str, list[int] | dict[str, int], Literal["a", 3, None], tuple[int, Leaf],
    list[Annotated[int, Field(gt=2, lt=4)]], Any,
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_values_obey_the_schema_and_are_of_the_type(kind: Any) -> None:
    shape: Shape[Any] = Shape(kind)
    try:
        strict = Strict(shape.schema)
    except Unsupported:
        strict = None
    for seed in range(8):
        value = Drawing(shape.schema, random.Random(seed)).value()
        jsonschema.validate(value, shape.schema, jsonschema.Draft202012Validator)
        shape.value(value)
        if strict is not None:
            sent = Drawing(strict.schema, random.Random(seed)).value()
            jsonschema.validate(sent, strict.schema, jsonschema.Draft202012Validator)


NUMBERS = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={"minimum": st.integers(-9, 3), "maximum": st.integers(3, 20), "multipleOf": st.sampled_from([1, 2, 3])},
)
TEXTS = st.fixed_dictionaries(
    {"type": st.just("string")}, optional={"minLength": st.integers(0, 4), "maxLength": st.integers(4, 9)}
)
PLAIN = (
    NUMBERS
    | TEXTS
    | st.sampled_from([True, {"type": ["boolean", "null"]}, {"const": 3}, {"enum": ["a", None, 2]}])
    | st.sampled_from(["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid"]).map(
        lambda form: {"type": "string", "format": form}
    )
)


def _more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few, names = st.integers(0, 2), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    objects = st.builds(
        lambda known, others, least: {
            "type": "object", "properties": known, "required": sorted(known)[:least], "additionalProperties": others
        },
        names, st.booleans() | inner, few,
    )  # fmt: skip
    lists = st.builds(
        lambda item, least: {"type": "array", "items": item, "minItems": least, "maxItems": least + 2}, inner, few
    )
    return objects | lists | st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})


@given(schema=st.recursive(PLAIN, _more, max_leaves=8), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_any_schema(schema: Any, seed: int) -> None:
    value = Drawing(schema, random.Random(seed)).value()
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    "pattern",
    [r"^[A-Z]{3}-\d+$", "colou?r", r"(a|bc)*d", r"[^x-z]{2,}", r"^(\w+) \1$", r"^(?!no)[a-z]{2,5}$", r"\bword\b", "."],
)
def test_texts_of_patterns(pattern: str) -> None:
    made = {matching(pattern, random.Random(seed)) for seed in range(20)}
    assert all(re.search(pattern, text) for text in made) and (len(made) > 1 or "word" in pattern)


def test_what_it_cannot_obey_is_refused_by_name() -> None:
    for schema, named in (
        ({"not": {"type": "string"}}, "'not'"),
        ({"type": "array", "contains": {}}, "'contains'"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number"),
        ({"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 3}, "no 3 different items"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "no text of 2"),
        ({"type": "string", "pattern": "^a(?=b)$"}, "no text for the pattern"),
    ):
        with pytest.raises(Unsupported, match=named):
            Drawing(schema, random.Random(1)).value()


@task
def order(notes: str) -> Order:
    """Take the order out of the notes."""
    raise NotImplementedError


@pytest.mark.parametrize("structured", ["schema", "tool"])
def test_as_the_model_of_a_task(structured: Any) -> None:
    model = Random(7, structured=structured)
    assert isinstance(model, ChatModel) and isinstance(model, AsyncChatModel)
    found = [order.using(model=model).run(f"note {n}") for n in range(12)]
    assert len({outcome.value.id for outcome in found}) == 12 and all(outcome.cost_usd == 0 for outcome in found)
    assert asyncio.run(order.using(model=Random(7, structured=structured)).arun("note 3")).value == found[3].value


def test_the_same_seed_gives_the_same_answers_in_any_order() -> None:
    def asked(model: Random, *texts: str) -> dict[str, str]:
        return {text: model.complete(ChatRequest([Message("user", text)])).message.text for text in texts}

    assert asked(Random(1), "a", "b") == asked(Random(1), "b", "a") != asked(Random(2), "a", "b")
    model = Random(1)
    assert asked(model, "a") != asked(model, "a"), "asked again, it says something else"
    pieces = list(Random(1).stream(ChatRequest([Message("user", "a")])))
    assert pieces[-1].response is not None
    assert "".join(piece.text for piece in pieces) == pieces[-1].response.message.text == asked(Random(1), "a")["a"]


def test_it_calls_tools_that_it_is_told_to() -> None:
    tools = [ToolSpec("add", parameters={"type": "object", "properties": {"n": {"type": "integer"}}}), ToolSpec("now")]
    seen = set()
    for choice in ("auto", "required", "now", "none"):
        for seed in range(12):
            response = Random(seed).complete(ChatRequest([Message("user", "a")], tools=tools, tool_choice=choice))
            names = [call.name for call in response.message.tool_calls]
            seen.add((choice, *names))
            assert (response.finish_reason == "tool_calls") == bool(names) == (not response.message.text)
            assert all(isinstance(json.loads(call.arguments), dict) for call in response.message.tool_calls)
    assert seen == {
        ("auto",), ("auto", "add"), ("auto", "now"), ("required", "add"), ("required", "now"), ("now", "now"), ("none",)
    }  # fmt: skip

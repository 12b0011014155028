"""Any type goes to the wire and back unchanged, in a form that strict providers take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from windlass.apply.tasks.codec import Strict
from windlass.apply.tasks.schema import Shape, Unfit
from windlass.core.errors import InputError, Unsupported


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Leaf:
    name: str
    weight: float = 1.0


class Tree(BaseModel):
    """A node."""

    label: str = Field(description="What it is called.", min_length=1)
    children: list[Tree] = []
    note: str | None = "none"


class Row(TypedDict, total=False):
    count: int
    tags: list[str]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(9, ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: dict[str, int] = {}


class Everything(BaseModel):
    colour: Colour
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pair: tuple[int, str]
    extra: Any = None
    leaf: Leaf = Leaf("x")
    maybe: dict[str, list[int]] | list[str] | None = None


NAMES = st.text(max_size=6)
VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, st.integers(-9, 9)),
    "text": (str, NAMES),
    "literal": (Literal["a", "b", 3, None], st.sampled_from(["a", "b", 3, None])),
    "list": (list[bool], st.lists(st.booleans(), max_size=3)),
    "dictionary": (dict[str, int], st.dictionaries(NAMES, st.integers(), max_size=3)),
    "nested dictionary": (dict[str, dict[str, list[int]]], st.just({"a": {"b": [1]}, "c": {}})),
    "tuple": (tuple[int, str], st.tuples(st.integers(), NAMES).map(list)),
    "list or dictionary": (
        list[int] | dict[str, int],
        st.lists(st.integers(), max_size=2) | st.dictionaries(NAMES, st.integers(), max_size=2),
    ),
    "anything": (Any, st.recursive(st.none() | st.booleans() | NAMES, lambda inner: st.lists(inner, max_size=2))),
    "anything or a text": (dict[str, Any] | str, NAMES | st.dictionaries(NAMES, st.integers() | NAMES, max_size=2)),
    "dataclass": (Leaf, st.builds(lambda n, w: {"name": n, "weight": w}, NAMES, st.floats(-5, 5))),
    "typed dict": (
        Row,
        st.fixed_dictionaries({}, optional={"count": st.integers(), "tags": st.lists(NAMES, max_size=2)}),
    ),
    "union of models": (
        Cat | Dog,
        st.builds(lambda n: {"kind": "cat", "lives": n}, st.integers(0, 9))
        | st.builds(lambda t: {"kind": "dog", "tricks": t}, st.dictionaries(NAMES, st.integers(), max_size=2)),
    ),
    "tree": (
        Tree,
        st.recursive(
            st.builds(lambda t: {"label": t, "children": [], "note": None}, st.text(min_size=1, max_size=4)),
            lambda inner: st.builds(
                lambda t, c, n: {"label": t, "children": c, "note": n},
                st.text(min_size=1, max_size=4),
                st.lists(inner, max_size=2),
                st.none() | NAMES,
            ),
            max_leaves=5,
        ),
    ),
    "everything": (
        Everything,
        st.builds(
            lambda colour, pet, number, extra, maybe: {
                "colour": colour, "pet": pet, "pair": [number, "x"], "extra": extra,
                "leaf": {"name": "l", "weight": 0.5}, "maybe": maybe,
            },
            st.sampled_from(["red", "blue"]),
            st.sampled_from([{"kind": "cat", "lives": 3}, {"kind": "dog", "tricks": {"sit": 1}}]),
            st.integers(-3, 3),
            st.none() | st.lists(st.integers(), max_size=2) | NAMES,
            st.none() | st.lists(NAMES, max_size=2) | st.dictionaries(NAMES, st.lists(st.integers(), max_size=1)),
        ),
    ),
}  # fmt: skip


def every_object(schema: Any) -> Any:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from every_object(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from every_object(value)


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_there_and_back(kind: str, data: st.DataObject) -> None:
    python, values = VALUES[kind]
    shape = Shape[Any](python)
    strict = Strict(shape.schema)
    plain = data.draw(values)
    jsonschema.validate(plain, dict(shape.schema))
    sent = json.loads(json.dumps(strict.encode(plain)))
    jsonschema.Draft202012Validator(dict(strict.schema)).validate(sent)
    assert strict.decode(sent) == plain
    assert shape.plain(shape.value(strict.decode(sent))) == shape.plain(shape.value(plain))


@pytest.mark.parametrize("kind", VALUES)
def test_the_form_is_one_that_strict_modes_take(kind: str) -> None:
    schema = Strict(Shape[Any](VALUES[kind][0]).schema).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    for one in every_object(schema):
        assert one["additionalProperties"] is False and one["required"] == list(one["properties"])
    text = json.dumps(schema)
    for keyword in ("oneOf", "allOf", "prefixItems", "minLength", '"default"', '"title"', "discriminator"):
        assert keyword not in text


def test_what_cannot_be_sent_is_told() -> None:
    schema = {"type": "string", "description": "A word.", "minLength": 3, "pattern": "^(?!x)"}
    (word,) = Strict(schema).schema["properties"].values()
    assert word == {"type": "string", "description": "A word. (at least 3 characters) (matching ^(?!x))"}


@pytest.mark.parametrize("value", [None, 3, "x", {"label": 1}, {"children": 3}, [{"key": 1}]])
def test_what_is_of_another_form_is_left_for_the_type_to_refuse(value: Any) -> None:
    for python in (Tree, tuple[int, str], list[Tree], dict[str, Tree], Tree | tuple[int, str]):
        shape = Shape[Any](python)
        sent = Strict(shape.schema).decode(value)
        with pytest.raises(Unfit):
            shape.value(sent)


def test_types_without_a_strict_form_are_refused() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: str

    with pytest.raises(Unsupported, match="beyond the known ones"):
        Strict(Shape[Any](Open).schema)
    with pytest.raises(Unsupported, match="'not'"):
        Strict({"type": "string", "not": {"const": "x"}})
    for python in (object(), Annotated[str, Field(pattern="(")]):
        with pytest.raises(InputError, match="has no JSON schema"):
            Shape[Any](python)

"""Types of every sort, each with its values as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

T = TypeVar("T")


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


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Place(NamedTuple):
    x: int
    y: str = "here"


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: T | None = None


class Mail(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    sender: str = Field(alias="from")
    sent: datetime | None = None
    parts: tuple[Annotated[str, Field(max_length=3)], ...] = ()


class Visit(TypedDict):
    who: str
    when: NotRequired[date]


class Shop(BaseModel):
    stock: dict[Colour, Annotated[int, Field(ge=0)]]
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    owner: Tree | Leaf | None = None


NAMES = st.text(max_size=6)
NUMBERS = st.lists(st.integers(), max_size=2)
COUNTS = st.dictionaries(NAMES, st.integers(), max_size=2)
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
    "optional": (int | None, st.none() | st.integers(-9, 9)),
    "whole or broken number": (int | float, st.integers(-9, 9) | st.floats(-5, 5)),
    "date and time": (list[datetime | date], st.lists(st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat))),
    "time and duration": (tuple[time, timedelta], st.just(["10:30:00", "P1DT2H"])),
    "uuid": (UUID, st.uuids().map(str)),
    "decimal": (Decimal, st.decimals(-9, 9, places=2).map(str)),
    "enumeration of numbers": (Size, st.sampled_from([1, 2])),
    "bounded number": (Annotated[int, Field(gt=0, le=9, multiple_of=3)], st.sampled_from([3, 6, 9])),
    "bounded text": (
        Annotated[str, Field(min_length=1, max_length=3, pattern="^[a-c]+$")],
        st.text("abc", min_size=1, max_size=3),
    ),
    "bounded list": (
        Annotated[list[int], Field(min_length=1, max_length=2)],
        st.lists(st.integers(), min_size=1, max_size=2),
    ),
    "set": (set[str], st.lists(NAMES, unique=True, max_size=3).map(sorted)),
    "named tuple": (Place, st.tuples(st.integers(), NAMES).map(list)),
    "tuple of any length": (tuple[int, ...], st.lists(st.integers(), max_size=3)),
    "numbers for keys": (dict[int, str], st.dictionaries(st.integers(-9, 9).map(str), NAMES, max_size=2)),
    "dates for keys": (dict[date, bool], st.dictionaries(st.dates().map(date.isoformat), st.booleans(), max_size=2)),
    "words for keys": (dict[Literal["a", "b"], int], st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2)),
    "list of unions": (
        list[int | list[int] | dict[str, int] | None],
        st.lists(st.none() | st.integers() | NUMBERS | COUNTS, max_size=3),
    ),
    "typed dict that needs some": (
        Visit,
        st.fixed_dictionaries({"who": NAMES}, optional={"when": st.just("2026-11-22")}),
    ),
    "another name": (
        Mail,
        st.builds(
            lambda who, parts: {"from": who, "sent": None, "parts": parts},
            NAMES,
            st.lists(st.text(max_size=3), max_size=2),
        ),
    ),
    "generic": (Page[Leaf], st.builds(lambda n: {"items": [{"name": n, "weight": 0.5}], "next": None}, NAMES)),
    "generic of generic": (
        Page[Page[int]],
        st.builds(
            lambda items, last: {"items": [{"items": items, "next": last}] * 2, "next": {"items": [], "next": None}},
            NUMBERS,
            st.none() | st.integers(),
        ),
    ),
    "much of it": (
        Shop,
        st.builds(
            lambda stock, pets, owner: {"stock": stock, "pets": pets, "owner": owner},
            st.dictionaries(st.sampled_from(["red", "blue"]), st.integers(0, 9), max_size=2),
            st.lists(st.sampled_from([{"kind": "cat", "lives": 3}, {"kind": "dog", "tricks": {"sit": 1}}]), max_size=2),
            st.sampled_from([None, {"name": "l", "weight": 0.5}, {"label": "t", "children": [], "note": "n"}]),
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

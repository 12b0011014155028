"""Of any type, what is shown of an answer that is still being written is true, and only grows."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.apply.tasks.kinds_of_values import VALUES
from tests.apply.tasks.test_partial import ROOTS, is_beginning

from windlass.apply.tasks import task
from windlass.apply.tasks.forms.begun import shown
from windlass.apply.tasks.forms.partial import NOTHING, beginning
from windlass.apply.tasks.forms.schema import Shape
from windlass.apply.tasks.forms.strict import Strict
from windlass.testing import Scripted


def growing(strict: Strict, text: str) -> list[Any]:
    """What is shown after each character, where there is anything."""
    values = []
    for end in range(len(text) + 1):
        sent, whole = beginning(text[:end])
        if sent is not NOTHING and (value := shown(strict, sent, whole)) is not NOTHING:
            values.append(value)
    return values


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=15)
@given(data=st.data(), indent=st.sampled_from([None, 1]))
def test_every_beginning_shows_a_beginning_of_the_value(kind: str, data: st.DataObject, indent: int | None) -> None:
    python, values = VALUES[kind]
    strict = Strict(Shape[Any](python).schema)
    plain = data.draw(values)
    seen = growing(strict, json.dumps(strict.encode(plain), indent=indent))
    assert seen[-1] == plain
    for before, after in pairwise(seen):
        assert is_beginning(before, after), (before, after)


@settings(max_examples=40)
@given(ROOTS, st.sampled_from(sorted(VALUES)))
def test_what_is_of_another_form_breaks_nothing(value: Any, kind: str) -> None:
    growing(Strict(Shape[Any](VALUES[kind][0]).schema), json.dumps(value))


def test_entries_and_branches_show_once_nothing_can_change_them() -> None:
    strict = Strict(Shape[Any](dict[str, int]).schema)
    text = json.dumps(strict.encode({"ab": 1, "abc": 2}))
    assert [*map(json.loads, dict.fromkeys(map(json.dumps, growing(strict, text))))] == [
        {}, {"ab": 1}, {"ab": 1, "abc": 2}
    ]  # fmt: skip

    class Answer(BaseModel):
        text: str
        quotes: list[str]

    class Doubt(BaseModel):
        text: str
        why: str

    strict = Strict(Shape[Any](Answer | Doubt).schema)
    seen = growing(strict, '{"value": {"text": "It is so.", "quotes": ["a", "b')
    assert seen[0] == {} or seen[0] == {"text": ""}
    assert {"text": "It is"} in seen and seen[-1] == {"text": "It is so.", "quotes": ["a", "b"]}
    # A server that leaves out what may be left out is no reason to show nothing.
    loose = Strict(
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        }
    )
    assert growing(loose, '{"value": [{"a": 1}, {"a": 2}, {"b": "x')[-1] == [{"a": 1}, {"a": 2}, {"b": "x"}]


def test_a_server_that_does_not_wrap_what_it_was_told_to_wrap() -> None:
    @task
    def tags(text: str) -> list[Literal["a", "b"]]:
        """Tag it."""
        raise NotImplementedError

    stream = tags.using(model=Scripted('["a", "b"]')).stream("x")
    assert list(stream)[-1] == ["a", "b"] and stream.value == ["a", "b"]

    async def read() -> list[Any]:
        return [one async for one in tags.using(model=Scripted('{"value": ["a", "b"]}', structured="tool")).stream("x")]

    assert asyncio.run(read()) == [[""], ["a"], ["a", "b"]]

"""Any type goes to the wire and back unchanged, in a form that strict providers take."""

from __future__ import annotations

import json
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from tests.apply.tasks.kinds_of_values import VALUES, Tree

from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.forms.strict import Strict
from windlass.core.errors import InputError, Unsupported


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
    with pytest.raises(Unsupported, match=r"a tuple with an open end \(what 'f' returns\)"):
        Strict({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, "what 'f' returns")
    for python in (object(), Annotated[str, Field(pattern="(")]):
        with pytest.raises(InputError, match="has no JSON schema"):
            Shape[Any](python)

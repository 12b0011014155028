from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError, Unsupported, WindlassError
from windlass.serve.engine.constraints.json_schema import MAX_DEPTH, MAX_PARTS, SUPPORTED, prepare
from windlass.serve.engine.constraints.keywords import REFUSED
from windlass.serve.engine.constraints.patterns import FORMATS, ecma_pattern


@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_keywords_that_cannot_be_enforced_are_refused_by_name_wherever_they_stand(keyword: str) -> None:
    for schema in (
        {"type": "object", keyword: {}},
        {"properties": {"a": {"anyOf": [{"type": "null"}, {"items": {keyword: True}}]}}},
        {"$ref": "#/$defs/x", "$defs": {"x": {keyword: 1}}},
    ):
        if keyword == "$id" and keyword in schema:
            continue
        with pytest.raises(Unsupported, match=re.escape(f"'{keyword}'")):
            prepare(schema)


def test_a_misspelt_keyword_is_refused_with_the_one_meant() -> None:
    with pytest.raises(Unsupported, match="Did you mean 'minLength'"):
        prepare({"properties": {"a": {"type": "string", "minLenght": 3}}})


def test_errors_say_where_in_the_schema() -> None:
    with pytest.raises(InputError, match=r"'schema\.properties\.a\.anyOf\[1\]\.maximum'"):
        prepare({"properties": {"a": {"anyOf": [{}, {"maximum": "3"}]}}})


def test_annotations_are_taken_out_and_cannot_switch_anything_off() -> None:
    schema = {"$schema": "x", "$id": "y", "title": "t", "x-guidance": {"lenient": True}, "type": "string", "default": 1}
    assert prepare(schema) == {"type": "string"}


def test_references_are_followed_renamed_and_only_those_needed_kept() -> None:
    schema = {
        "$ref": "#/$defs/a~1b%20c",
        "$defs": {"a/b c": {"items": {"$ref": "#/$defs/a~1b%20c"}}, "unused": {"not": {}}},
    }
    assert prepare(schema) == {"$ref": "#/$defs/d0", "$defs": {"d0": {"items": {"$ref": "#/$defs/d0"}}}}


@pytest.mark.parametrize("pointer", ["#/$defs/none", "#/anyOf/7", "#/$defs/a/0"])
def test_a_reference_to_nothing_is_told(pointer: str) -> None:
    with pytest.raises(InputError, match="there is no"):
        prepare({"$ref": pointer, "anyOf": [{}], "$defs": {"a": {}}})


def test_references_to_elsewhere_are_refused() -> None:
    with pytest.raises(Unsupported, match="outside"):
        prepare({"$ref": "https://example.com/schema.json"})


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"]}


@pytest.mark.parametrize(
    "branches",
    [
        [CAT, DOG],
        [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        [{"$ref": "#/$defs/cat", "title": "A cat"}, DOG],
        [{"type": "string"}, {"type": ["integer", "null"]}],
        [{"const": 1}, {"const": 2}, {"const": "1"}],
        [{"allOf": [CAT, {"required": ["lives"]}]}, DOG],
        [{"anyOf": [{"type": "null"}, DOG]}, CAT],
        [
            {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
            {"type": "object", "properties": {"b": {}}, "required": ["b"], "additionalProperties": False},
        ],
    ],
)
def test_one_of_whose_branches_exclude_each_other_is_enforced(branches: list[Any]) -> None:
    prepare({"oneOf": branches, "discriminator": {"propertyName": "kind"}, "$defs": {"cat": CAT, "dog": DOG}})


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"type": "string", "minLength": 2}, {"type": "string", "maxLength": 3}],
        [{"const": 1}, {"const": 1.0}],
        [CAT, {**CAT, "required": ["lives"]}],
        [
            {"properties": {"a": {"const": 1}}, "required": ["a"]},
            {"properties": {"a": {"const": 2}}, "required": ["a"]},
        ],
        [{"$ref": "#"}, {"type": "string"}],
    ],
)
def test_one_of_whose_branches_may_both_hold_is_refused(branches: list[Any]) -> None:
    with pytest.raises(Unsupported, match="branches 0 and 1"):
        prepare({"oneOf": branches})


def test_proving_that_branches_exclude_each_other_takes_bounded_time() -> None:
    nested: dict[str, Any] = {"type": "string"}
    for _ in range(12):
        nested = {"anyOf": [nested, nested]}
    with pytest.raises(WindlassError):
        prepare({"oneOf": [nested, nested]})


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"const": 2**53 + 1}, "rounded"),
        ({"enum": [{"a": [1e300]}]}, "rounded"),
        ({"maximum": -(2**60)}, "rounded"),
        ({"minProperties": 2}, "different keys"),
        ({"const": "a\x00"}, "control character"),
        ({"properties": {"\x1b": {}}}, "control character"),
        ({"format": "iri"}, "'iri'"),
        ({"minLength": -1}, "minLength"),
        ({"minLength": True}, "minLength"),
        ({"type": "text"}, "null, boolean"),
        ({"type": []}, "null, boolean"),
        ({"enum": []}, "list of values"),
        ({"anyOf": []}, "list of schemas"),
        ({"anyOf": {}}, "list of schemas"),
        ({"required": "a"}, "list of names"),
        ({"properties": []}, "must be an object"),
        ({"items": 3}, "true or false"),
        ({"pattern": 3}, "must be a text"),
        ({"exclusiveMinimum": True}, "must be a number"),
        ({"items": [{}], "prefixItems": [{}]}, "beside prefixItems"),
        ([], "an object"),
        ({"const": float("nan")}, "not JSON"),
        ({"description": "x" * 300_000}, "bytes"),
    ],
)
def test_wrong_or_unenforceable_values_are_refused(schema: Any, told: str) -> None:
    with pytest.raises((InputError, Unsupported), match=told):
        prepare(schema)


def test_too_many_parts_and_too_deep_nesting_are_refused() -> None:
    with pytest.raises(InputError, match="parts"):
        prepare({"anyOf": [{} for _ in range(MAX_PARTS)]})
    deep: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        deep = {"items": deep}
    prepare(deep)
    with pytest.raises(InputError, match="deeper"):
        prepare({"items": deep})
    chain = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(1500)}
    prepare({"$ref": "#/$defs/d0", "$defs": {**chain, "d1500": {}}})


def test_items_as_a_list_means_what_it_did_in_older_drafts() -> None:
    schema = {"items": [{"type": "null"}], "additionalItems": False}
    assert prepare(schema) == {"prefixItems": [{"type": "null"}], "items": False}


def test_every_keyword_is_either_enforced_or_refused() -> None:
    assert not set(SUPPORTED) & set(REFUSED)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*SUPPORTED, *sorted(REFUSED), "$defs", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_no_value_breaks_the_reader(schema: Any) -> None:
    try:
        prepare(schema)
    except (InputError, Unsupported) as error:
        assert error.message


LETTERS = "ab[]&~-^\\"


@settings(max_examples=300, deadline=None)
@given(st.text(LETTERS, min_size=1, max_size=4), st.sampled_from(LETTERS))
def test_sets_of_letters_mean_what_they_do_in_ecma(inside: str, letter: str) -> None:
    """Python's brackets are ECMA's, but for `]` at the very beginning; Rust's escapes are read by Python as well."""
    pattern = f"^[{inside}]$"
    if inside.lstrip("^").startswith("]") or re.search(r"\\[ab]", inside):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python may learn set operations some day
        try:
            meant = re.compile(pattern)
        except re.error:
            return
    said = re.compile(ecma_pattern(pattern))
    assert bool(said.search(letter)) == bool(meant.search(letter))


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("date", ["2024-02-29", "2000-02-29", "1999-12-31"], ["2023-02-29", "1900-02-29", "2023-04-31", "0000-01-01"]),
        ("time", ["23:59:59Z", "00:00:00.25+01:30"], ["24:00:00Z", "12:00:00"]),
        ("date-time", ["2024-02-29T23:59:59Z"], ["2024-02-30T00:00:00Z", "2024-02-29 00:00:00Z"]),
    ],
)
def test_dates_are_those_of_the_calendar(form: str, right: list[str], wrong: list[str]) -> None:
    rule = FORMATS[form]
    assert rule is not None
    assert all(re.search(rule, text) for text in right)
    assert not any(re.search(rule, text) for text in wrong)

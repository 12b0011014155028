"""A request's fields are read as `json` reads them, and everything that is not changed keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.serve.errors import HttpError
from windlass.serve.gateway.envelope import Envelope

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["model", "stream", "messages", "mod\u00e9l", 'q"uote', ""]) | st.text(max_size=6)


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.booleans(), st.sampled_from([None, 0, 3]), VALUES)
def test_changed_fields_change_and_nothing_else(fields: dict[str, Any], ascii: bool, indent: Any, value: Any) -> None:
    body = json.dumps(fields, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    try:
        envelope = Envelope(body)
    except HttpError:
        with pytest.raises(UnicodeDecodeError):
            body.decode()
        return
    assert envelope.fields == fields
    assert envelope.rewritten({}, {}) is body
    made = envelope.rewritten({"model": value, "new": 1}, {})
    assert json.loads(made) == {**fields, "model": value, "new": 1}


@given(st.binary(max_size=60) | VALUES.map(lambda v: json.dumps(v).encode()))
def test_only_objects_pass(body: bytes) -> None:
    try:
        expected = json.loads(body.decode())
    except (ValueError, RecursionError):
        expected = None
    try:
        got: Any = Envelope(body).fields
    except HttpError as problem:
        assert problem.status == 400
        got = None
    if isinstance(expected, dict) and got is None:
        assert b"NaN" in body or b"Infinity" in body or len(expected) != body.count(b":"), "a field is there twice"
    else:
        assert got == (expected if isinstance(expected, dict) else None)


def test_a_name_that_is_written_in_escapes_is_found_all_the_same() -> None:
    body = b'{"tool": {"model": "m"}, "mod\\u0065l" : "m", "x": 1.50}'
    assert Envelope(body).rewritten({"model": "n"}, {}) == body.replace(b'l" : "m"', b'l" : "n"')


def test_fields_get_their_older_names() -> None:
    names = {"max_completion_tokens": "max_tokens"}
    assert Envelope(b'{"max_completion_tokens": 5}').rewritten({}, names) == b'{"max_tokens": 5}'
    assert Envelope(b'{"model": "m"}').rewritten({}, names) == b'{"model": "m"}'
    with pytest.raises(HttpError, match="Both"):
        Envelope(b'{"max_completion_tokens": 5, "max_tokens": 6}').rewritten({}, names)

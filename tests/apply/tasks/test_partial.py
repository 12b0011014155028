"""Whatever is shown of an answer that is still being written is true, and only grows."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.apply.tasks.forms.partial import NOTHING, parsed

TEXTS = st.text(st.sampled_from('ab"\\/{}[]:,\n é😀\u2028'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9).map(lambda x: round(x, 2)) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ROOTS = st.lists(VALUES, max_size=3) | st.dictionaries(TEXTS, VALUES, max_size=3)


def is_beginning(part: Any, whole: Any) -> bool:
    if isinstance(part, str):
        return isinstance(whole, str) and whole.startswith(part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and is_beginning(part[key], whole[key]) for key in part)
    return part == whole and type(part) is type(whole)


@settings(max_examples=60)
@given(ROOTS, st.booleans(), st.sampled_from([None, 1]))
def test_every_beginning_shows_a_beginning_of_the_value(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    before: Any = NOTHING
    for end in range(len(text) + 1):
        shown = parsed(text[:end])
        if shown is NOTHING:
            assert end == 0
            continue
        assert is_beginning(shown, value), (text[:end], shown)
        assert before is NOTHING or is_beginning(before, shown), (text[:end], before, shown)
        before = shown
    assert before == value


def test_words_around_it_and_nonsense() -> None:
    assert parsed("") is NOTHING and parsed("Sure! Here:") is NOTHING
    assert parsed('Sure: {"a": [1, 2') == {"a": [1]}
    assert parsed('{"a": 1} and more "text') == {"a": 1}
    for text in ("{a: 1", '{"a" 1}', '{"a": x}', "[" * 100_000):
        assert parsed(text) is NOTHING
    assert parsed('{"name": "Ac') == {"name": "Ac"} and parsed('{"na') == {} and parsed('{"a": 1, "b": ') == {"a": 1}

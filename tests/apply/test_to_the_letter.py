"""Words in a text: any part of it is found at its place, any other words are not, and it is said where they part."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.apply.verbatim import Text, as_read, parting

LETTERS = "ab Z1,.'\"-\n\t \xa0\xad’“”«»é中"
TEXTS = st.text(LETTERS, min_size=1, max_size=60)


def plainly(text: str) -> str:
    """What the module promises, written in another way."""
    text = re.sub(r"\xad(?:[^\S\n]*\n\s*)?", "", text)
    text = " ".join(text.split())
    for typed, straight in (("‘’‚‛‹›", "'"), ("“”„‟«»", '"')):
        text = re.sub(f"[{typed}]", straight, text)
    return text


@given(TEXTS)
def test_a_text_reads_as_promised(source: str) -> None:
    assert as_read(source) == plainly(source)


@given(TEXTS, st.data())
@settings(max_examples=300)
def test_any_part_is_found_where_it_stands(source: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(source) - 1))
    words = source[start : data.draw(st.integers(start + 1, len(source)))]
    text = Text(source)
    spans = [text.span(place) for place in text.places(words)]
    if not plainly(words):
        assert not spans
        return
    if not words.endswith("\xad") and plainly(words) in plainly(source):  # a break behind it was cut off
        assert spans
    for begin, end in spans:
        assert plainly(source[begin:end]) == plainly(words)
        assert not source[begin].isspace() and not source[end - 1].isspace(), "no more than the words"


@given(TEXTS, st.text(LETTERS, min_size=1, max_size=12))
@settings(max_examples=300)
def test_what_reads_otherwise_is_not_found(source: str, words: str) -> None:
    assert bool(list(Text(source).places(words))) == (bool(plainly(words)) and plainly(words) in as_read(source))


@given(st.text("abc de", min_size=3, max_size=40), st.data())
def test_one_letter_changed_put_in_or_left_out(source: str, data: st.DataObject) -> None:
    """Every edit that makes other words of it is refused."""
    at = data.draw(st.integers(0, len(source) - 1))
    for edited in (source[:at] + "X" + source[at + 1 :], source[:at] + "X" + source[at:]):
        assert not list(Text(source).places(edited))
    less = source[:at] + source[at + 1 :]
    assert bool(list(Text(source).places(less))) == (bool(less.strip()) and plainly(less) in plainly(source))


@pytest.mark.parametrize(
    ("source", "words", "span"),
    [
        ("He said “no”.", 'said "no"', (3, 12)),
        ("It\u2019s  \n late", "It's late", (0, 12)),
        ("an exam\xad\n  ple of it", "example", (3, 14)),
        ("ex\xadample", "ex\xad\n\nample", (0, 8)),
        ("a \xad b", "a b", (0, 5)),
        ("\xad\xadat once", "at", (2, 4)),
        ("non\u00a0breaking", "non breaking", (0, 12)),
    ],
)
def test_what_is_typed_otherwise_and_reads_alike(source: str, words: str, span: tuple[int, int]) -> None:
    text = Text(source)
    assert [text.span(place) for place in text.places(words)] == [span]


@pytest.mark.parametrize("words", ["He Said", "said no", "say", "He—said", "", "  ", ".*"])
def test_nothing_else_is_forgiven(words: str) -> None:
    assert not list(Text("He said, no - he did.").places(words))


@pytest.mark.parametrize(
    ("source", "words", "whole"),
    [
        ("It costs $1000.", "costs $100", False),
        ("It costs $1000.", "costs $1000", True),
        ("It costs 1,000.", "costs 1", False),
        ("It costs 3.5 million", "costs 3", False),
        ("It costs 3.5 million", "5 million", False),
        ("It costs 3. Five cost", "It costs 3", True),
        ("bathe cattle", "the cat", False),
        ("the cat", "the cat", True),
        ("cafe\u0301s", "cafe", False),
        ("价格是一百元", "价格是一", True),
        ("12kg", "12", True),
    ],
)
def test_what_cuts_through_a_word_or_a_number(source: str, words: str, whole: bool) -> None:
    text = Text(source)
    assert [text.whole(place) for place in text.places(words)] == [whole]


def test_where_words_part_from_the_nearest_text() -> None:
    texts = [Text(one) for one in ("Bread rises slowly.", "The pump moves\n water uphill at night.", "")]
    later = parting("The pump moves bread uphill", texts)
    assert later is not None and (later.text, later.same, later.begins) == (1, "The pump moves ", True)
    assert str(later).startswith("it is the same up to 'The pump moves '") and "'water uphill" in str(later)
    earlier = parting("Two pumps move water uphill at night", texts)
    assert earlier is not None and (earlier.text, earlier.begins) == (1, False)
    assert earlier.same == " water uphill at night" and earlier.there == "The pump moves"
    over = parting("at night. And so on", texts)
    assert over is not None and "where nothing follows and not ' And so on'" in str(over)
    assert parting("Quite something else: XYZ", [Text("1234567890")]) is None and parting("no", []) is None


@given(TEXTS, TEXTS)
def test_what_is_the_same_really_is(source: str, words: str) -> None:
    if list(Text(source).places(words)) or not as_read(words):
        return
    found = parting(words, [Text(source)])
    if found is None:
        return
    text, asked = Text(source).read, as_read(words)
    assert found.same in text and (asked.startswith(found.same) if found.begins else asked.endswith(found.same))
    assert found.here and (found.same + found.there[:1] if found.begins else found.there[-1:] + found.same) in text

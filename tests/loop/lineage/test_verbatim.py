"""The longest verbatim suffix, against the definition."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.loop.lineage.verbatim import TrainingText


def documents(*texts: str) -> list[Document]:
    return [Document(f"d{i}", f"python:{i}", f"Title {i}", text) for i, text in enumerate(texts)]


@given(st.lists(st.text("abc ", max_size=30), min_size=1, max_size=4), st.text("abcd ", max_size=20))
def test_equals_the_definition(texts: list[str], context: str) -> None:
    longest = max(n for n in range(len(context) + 1) if any(context[len(context) - n :] in t for t in texts))
    found = TrainingText(documents(*texts)).longest_suffix(context, limit=100)
    assert len(found.text) == longest
    assert context.endswith(found.text)
    if longest:
        assert found.total == sum(t.count(found.text) for t in texts) == len(found.occurrences)
    for place in found.occurrences:
        assert place.document.text[place.start : place.end] == found.text


def test_names_document_and_offsets() -> None:
    text = TrainingText(documents("def f(x):\n    return x\n", "a naïve 😀 def g(x):\n    return"))
    found = text.longest_suffix("class A:\n def g(x):\n    return")
    assert found.text == " def g(x):\n    return"
    (place,) = found.occurrences
    assert (place.document.id, place.start) == ("d1", 9)


def test_no_match_across_documents_and_none_at_all() -> None:
    text = TrainingText(documents("one", "two"))
    assert text.longest_suffix("onetwo").text == "two"
    assert text.longest_suffix("one\x00two").text == "two"
    assert text.longest_suffix("§").total == 0
    assert text.longest_suffix("").occurrences == ()


def test_limit_counts_the_rest() -> None:
    found = TrainingText(documents("ab " * 50)).longest_suffix("zab ", limit=3)
    assert (len(found.occurrences), found.total) == (3, 50)


def test_refuses_nothing_and_null() -> None:
    with pytest.raises(InputError, match="no training documents"):
        TrainingText([])
    with pytest.raises(InputError, match="'d0' contains a null"):
        TrainingText(documents("a\x00b"))


def test_ten_megabytes_take_no_noticeable_time() -> None:
    text = TrainingText(documents(*(f"line {i} of some text\n" * 100 for i in range(5_000))))
    started = time.process_time()
    found = text.longest_suffix("unseen words, then line 4321 of some text\n" * 5)
    assert found.text.endswith("line 4321 of some text\n")
    assert time.process_time() - started < 5  # measured: about 0.1 s

"""Texts in one row: each keeps its tokens, place and targets, in any company; none is cut unless that is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from encoder_world import WORDS, save_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from windlass.build.adapt.data.columns import Text
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.texts import Example, TextExamples, TextReader, Tokens
from windlass.core.errors import InputError

SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
TEXT = SENTENCE | st.tuples(SENTENCE, SENTENCE)
LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=8)
"""Tokens of each text of each example."""


def examples_of(lengths: list[list[int]], by_token: bool = False) -> list[Example]:
    """Tokens that say which text they are of."""
    found, number = [], 0
    for own in lengths:
        texts = []
        for length in own:
            number += 1
            texts.append(Tokens(np.full(length, number), np.full(length, number % 2)))
        values = sum(own) if by_token else 1
        found.append(Example(texts, np.arange(values) + 100 * len(found)))
    return found


@given(LENGTHS, st.data())
def test_a_row_holds_every_text_whole_and_says_where(lengths: list[list[int]], data: Any) -> None:
    examples = TextExamples(found := examples_of(lengths), typed=True)
    numbers = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    batch = examples.batch([(0, number) for number in numbers])
    assert batch.lengths == sorted(batch.lengths) and sum(batch.lengths) == batch.tokens
    ends = np.cumsum(batch.lengths)
    row, types = batch.inputs_BT[0].numpy(), batch.types_BT
    assert types is not None
    wanted = [text for number in numbers for text in found[number].texts]
    for place, text in zip(batch.places_N.tolist(), wanted, strict=True):
        here = slice(ends[place] - batch.lengths[place], ends[place])
        assert row[here].tolist() == text.ids.tolist() and types[0, here].tolist() == text.types.tolist()
    assert batch.groups_E.tolist() == [len(lengths[number]) for number in numbers]
    assert batch.targets_BT[0].tolist() == [value for number in numbers for value in found[number].targets]
    alike = batch.alike_N.tolist()
    for (one, first), (other, second) in ((a, b) for a in zip(alike, wanted) for b in zip(alike, wanted)):
        assert (one == other) == (first.ids.tolist() == second.ids.tolist())


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=1), min_size=1, max_size=8))
def test_targets_of_tokens_follow_their_texts(lengths: list[list[int]]) -> None:
    found = examples_of(lengths, by_token=True)
    batch = TextExamples(found, by_token=True).batch([(0, number) for number in range(len(lengths))])
    assert batch.counted == batch.tokens == TextExamples(found).tokens
    ends = np.cumsum(batch.lengths)
    for number, place in enumerate(batch.places_N.tolist()):
        here = slice(ends[place] - batch.lengths[place], ends[place])
        assert batch.targets_BT[0, here].tolist() == found[number].targets.tolist()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("words")
    save_tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def rows_of(texts: list[Text]) -> list[Row]:
    return [Row(f"row {number}", {"text": text}) for number, text in enumerate(texts, start=1)]


def texts_of(row: Row) -> list[Text]:
    return [row.values["text"]]


@given(st.lists(TEXT, min_size=1, max_size=8), st.integers(6, 20))
def test_long_texts_are_refused_left_out_or_cut_as_asked(tokenizer: Tokenizer, texts: list[Text], limit: int) -> None:
    tokenizer.no_truncation()
    sizes = [
        len(tokenizer.encode(*text).ids if isinstance(text, tuple) else tokenizer.encode(text).ids) for text in texts
    ]
    long, rows = [number for number, size in enumerate(sizes) if size > limit], rows_of(texts)
    refusing, dropping, cutting = (TextReader(tokenizer, limit, how) for how in ("refuse", "drop", "cut"))
    if long:
        with pytest.raises(InputError, match=rf"row {long[0] + 1}: the text has {sizes[long[0]]} tokens, .* {limit}; "):
            refusing.read(texts, rows)
    else:
        assert [len(one.ids) for one in refusing.read(texts, rows)[0]] == sizes
    if len(long) == len(texts):
        with pytest.raises(InputError, match=f"All {len(texts)} rows are longer than the {limit} tokens"):
            dropping.fitting(rows, texts_of)
    else:
        kept, lines = dropping.fitting(rows, texts_of)
        assert kept == [row for row, size in zip(rows, sizes, strict=True) if size <= limit]
        assert len(lines) == bool(long) and (not long or f"{len(long)} of {len(texts)} rows" in lines[0])
    found, cut = cutting.read(texts, rows)
    assert cut == len(long) and [len(one.ids) for one in found] == [min(size, limit) for size in sizes]
    assert [len(one.types) for one in found] == [len(one.ids) for one in found]
    whole = TextReader(tokenizer, 1000, "refuse").read(texts, rows)[0]  # cutting leaves the tokenizer as it was
    assert [len(one.ids) for one in whole] == sizes


@pytest.mark.parametrize(("text", "most"), [("cat sat", 2), (("cat", "sat on a mat"), 4)])
def test_a_limit_without_room_for_the_text_is_refused(tokenizer: Tokenizer, text: Text, most: int) -> None:
    """Or nothing would be read of it but the marks around it; where these do not fit either, tokenizers cut nothing."""
    for limit in range(1, most + 1):
        with pytest.raises(InputError, match=rf"row 1: in {limit} tokens there is no room for the text"):
            TextReader(tokenizer, limit, "cut").read([text], rows_of([text]))
    found, cut = TextReader(tokenizer, most + 1, "cut").read([text], rows_of([text]))
    assert cut == 1 and len(found[0].ids) == most + 1
